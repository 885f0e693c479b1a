"""The commands of `./lab`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent

app = typer.Typer(
    help="Kubernetes networking labs: one stack file, one up, checked hop by hop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Stack = Annotated[str, typer.Argument(help="a lab of stacks/Pulumi.<STACK>.yaml")]
SANDBOX = typer.Option("--sandbox", help="mean the stack's sandbox where a deployed lab stands too")
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def plan(
    stack: Annotated[str | None, typer.Argument(help="a lab of stacks/Pulumi.<STACK>.yaml")] = None,
    json: Annotated[bool, typer.Option("--json", help="the whole graph as JSON on stdout")] = False,
    out: Annotated[Path | None, typer.Option(help="write graph, node files and objects into this folder")] = None,
    against: Annotated[str | None, typer.Option(metavar="REV", help="what changes since a git revision")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="with --against: as a review comment")] = False,
    gate: Annotated[bool, typer.Option("--gate", help="with --against: exit 4 if a control plane is replaced")] = False,
) -> None:
    """Show the whole graph without cloud account, pulumi CLI or network; with --against, what a change does to it."""
    if against is not None:
        from cli.review.command import review

        raise typer.Exit(review(stack, against, as_json=json, as_markdown=markdown, out=out, gate=gate))
    if markdown or gate:
        typer.echo("lab plan: --markdown and --gate go with --against REV", err=True)
        raise typer.Exit(2)
    if stack is None:
        typer.echo("lab plan: name a stack, or a revision to compare with: --against REV", err=True)
        raise typer.Exit(2)
    from cli.plan.command import plan as run

    raise typer.Exit(run(stack, as_json=json, out=out))


@app.command()
def demo(
    stack: Annotated[str, typer.Argument(help="a lab of stacks/Pulumi.<STACK>.yaml")] = "cfos-egress",
    fast: Annotated[bool, typer.Option("--fast", help="without pauses")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="leave the sandbox standing")] = False,
) -> None:
    """Show a lab alive on this computer: built, checked, followed, broken, mended, and gone again."""
    from cli.sandbox.demo import run

    raise typer.Exit(run(stack, fast=fast, keep=keep))


@app.command()
def sandbox(
    stack: Annotated[str | None, typer.Argument(help="a lab of stacks/Pulumi.<STACK>.yaml")] = None,
    down: Annotated[bool, typer.Option("--down", help="take it away")] = False,
    listed: Annotated[bool, typer.Option("--list", help="show the sandboxes that stand")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="take it away and build it as the file is now")] = False,
    json: Annotated[bool, typer.Option("--json", help="with --list: as JSON on stdout")] = False,
) -> None:
    """Build a lab in network namespaces of this computer, in seconds, and leave it standing."""
    from cli.sandbox.command import run

    raise typer.Exit(run(stack, down=down, listed=listed, rebuild=rebuild, as_json=json))


def _pulumi(command: str, stack: str, context: typer.Context) -> None:
    from cli.lifecycle.pulumi_cli import run

    raise typer.Exit(run(command, stack, context.args))


@app.command(context_settings=PASS_ON)
def preview(stack: Stack, context: typer.Context) -> None:
    """What `up` would change (pulumi preview; further options are passed on)."""
    _pulumi("preview", stack, context)


@app.command(context_settings=PASS_ON)
def up(
    stack: Stack,
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="also write again what verify finds gone or moved")] = False,
) -> None:
    """Make the lab as its file says (pulumi up; further options are passed on)."""
    from cli.lifecycle.pulumi_cli import run

    raise typer.Exit(run("up", stack, context.args, repair=repair))


@app.command(context_settings=PASS_ON)
def destroy(stack: Stack, context: typer.Context) -> None:
    """Take the lab away (pulumi destroy; further options are passed on)."""
    _pulumi("destroy", stack, context)


@app.command()
def stop(stack: Stack) -> None:
    """Switch a lab's EC2 machines off; disks and the API's address stay."""
    from cli.lifecycle.power import run

    raise typer.Exit(run("stop", stack))


@app.command()
def start(stack: Stack) -> None:
    """Switch a stopped lab's EC2 machines on again."""
    from cli.lifecycle.power import run

    raise typer.Exit(run("start", stack))


@app.command()
def cost(
    stack: Stack,
    json: Annotated[bool, typer.Option("--json", help="the sums as JSON on stdout")] = False,
) -> None:
    """What a lab costs: per hour, per evening, and left on for a month."""
    from cli.plan.cost import run

    raise typer.Exit(run(stack, as_json=json))


@app.command()
def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go; touch nothing")] = False,
    json: Annotated[bool, typer.Option("--json", help="the report as JSON on stdout")] = False,
    markdown: Annotated[Path | None, typer.Option(help="append the report, as Markdown, to this file")] = None,
    lock_hours: Annotated[float, typer.Option(min=0, help="a lock older than this is nobody's")] = 2,
    stack_minutes: Annotated[float, typer.Option(min=1, help="longest wait for one stack")] = 30,
    region: Annotated[list[str] | None, typer.Option(help="sweep this AWS region; may be repeated")] = None,
) -> None:
    """Destroy every ephemeral stack past its time (ttlHours), and what no state remembers of one."""
    from cli.reap.command import run

    raise typer.Exit(
        run(
            dry_run=dry_run,
            as_json=json,
            markdown=markdown,
            lock_hours=lock_hours,
            stack_minutes=stack_minutes,
            regions=region or (),
        )
    )


@app.command()
def verify(
    stack: Stack,
    json: Annotated[bool, typer.Option("--json", help="every check as JSON on stdout")] = False,
    junit: Annotated[Path | None, typer.Option(help="write a JUnit report into this file")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show the checks that pass too")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Check every expectation of a lab against its nodes and its API; exit 1 where one fails."""
    from cli.live.verify import verify as run

    raise typer.Exit(run(stack, as_json=json, junit_file=junit, verbose=verbose, sandbox=sandbox))


@app.command()
def walk(
    stack: Stack,
    source: Annotated[str, typer.Argument(help="[NAMESPACE/]POD, or a workload's name, or WORKLOAD@NODE")],
    target: Annotated[str, typer.Argument(help="the same, or an IPv4 address")],
    json: Annotated[bool, typer.Option("--json", help="the hops as JSON on stdout")] = False,
    svg: Annotated[Path | None, typer.Option(help="write a picture for a slide into this file")] = None,
    capture: Annotated[bool, typer.Option(help="listen at every hop at once and show the same packet on each")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Show a packet's way between two pods, hop by hop: the command, what was seen, what was expected."""
    from cli.live.walk import run

    raise typer.Exit(run(stack, source, target, as_json=json, svg=svg, captured=capture, sandbox=sandbox))


@app.command()
def addresses(
    stack: Stack,
    json: Annotated[bool, typer.Option("--json", help="the table as JSON on stdout")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Show who gives which addresses, who took them, and whether any was given twice."""
    from cli.live.addresses import run

    raise typer.Exit(run(stack, as_json=json, sandbox=sandbox))


@app.command(context_settings={"allow_interspersed_args": False})
def ssh(
    stack: Stack,
    node: Annotated[str, typer.Argument(help="a node's name")],
    command: Annotated[list[str] | None, typer.Argument(help="what to run there; without it, a shell")] = None,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Log in to a node with the lab's key, or run a command there; ssh's exit code."""
    from cli.live.ssh import run

    raise typer.Exit(run(stack, node, command or [], sandbox=sandbox))


@app.command()
def kubeconfig(
    stack: Stack,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write it into this file (mode 0600)")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite a file that is not this command's")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Print a lab's kubeconfig, or write it into a file."""
    from cli.live.kubeconfig import run

    raise typer.Exit(run(stack, out, force=force, sandbox=sandbox))


@app.command("break")
def break_(
    stack: Stack,
    fault: Annotated[str | None, typer.Argument(help="what to break; --list shows the faults")] = None,
    node: Annotated[str | None, typer.Option(help="where; without one, where a ping of verify shows it")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    listed: Annotated[bool, typer.Option("--list", help="show the faults, and which this lab can have")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Break one thing on purpose, and say what verify and walk must then find; `mend` undoes it."""
    from cli.live.faults import break_ as run

    raise typer.Exit(run(stack, fault, node=node, yes=yes, listed=listed, sandbox=sandbox))


@app.command()
def mend(
    stack: Stack,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Put back all that `break` broke, on every node that answers."""
    from cli.live.faults import mend as run

    raise typer.Exit(run(stack, sandbox=sandbox))


@app.command(context_settings=PASS_ON)
def test(context: typer.Context) -> None:
    """Lint, types and tests; says what was skipped and why (options are passed on to pytest)."""
    checks = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        # pytest comes last: its closing line is the verdict.
        ["pytest", "-p", "xdist", "-n", "2", "--dist", "loadgroup", *context.args],
    ]
    failed = [check[0] for check in checks if subprocess.run([sys.executable, "-m", *check], cwd=ROOT).returncode]
    if failed:
        typer.echo(f"lab test: failed: {', '.join(failed)}", err=True)
    raise typer.Exit(1 if failed else 0)

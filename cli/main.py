"""The commands of `./lab`. Each imports its module only when it runs, so that `--help` is fast."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli import fault_commands, project
from cli.completion import candidates
from cli.completion.command import Shell
from cli.errors import USAGE, CommandError
from cli.group import LIFE, RUNNING, STACKS, TOOL, WITHOUT_A_LAB, Commands
from cli.parameters import PASS_ON, SANDBOX, SKIP_DOCTOR, OptionalStack, Stack
from components.slowdown import factor
from engine.garbage import no_collection

app = typer.Typer(
    cls=Commands,
    help="Kubernetes networking labs: one stack file, one up, checked hop by hop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Help is as wide as the terminal, up to a width at which lines are still easy to read.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cni-lab {project.version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="where the state is, e.g. s3://bucket; else PULUMI_BACKEND_URL, else .lab/state"
        ),
    ] = None,
) -> None:
    """Kubernetes networking labs: one stack file, one up, checked hop by hop."""
    try:
        factor()
    except ValueError as error:
        raise CommandError(str(error), USAGE) from None
    if backend is not None:
        os.environ["PULUMI_BACKEND_URL"] = backend


@app.command(rich_help_panel=WITHOUT_A_LAB)
def plan(
    stack: OptionalStack = None,
    json: Annotated[bool, typer.Option("--json", help="print the whole graph as JSON")] = False,
    out: Annotated[Path | None, typer.Option(help="write graph, node files and objects into this folder")] = None,
    against: Annotated[str | None, typer.Option(metavar="REV", help="show what changes since a git revision")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="with --against: print a review comment")] = False,
    gate: Annotated[bool, typer.Option("--gate", help="with --against: exit 4 if a lab does not survive")] = False,
) -> None:
    """Show the whole graph without cloud account, pulumi CLI or network; with --against, the effect of a change."""
    if against is not None:
        from cli.review.command import review

        raise typer.Exit(review(stack, against, as_json=json, as_markdown=markdown, out=out, gate=gate))
    if markdown or gate:
        raise CommandError("--markdown and --gate need --against REV", USAGE)
    if stack is None:
        raise CommandError("name a stack, or a revision to compare with: --against REV", USAGE)
    with no_collection():
        from cli.plan.command import plan as run

        raise typer.Exit(run(stack, as_json=json, out=out))


@app.command(rich_help_panel=WITHOUT_A_LAB)
def airgap(
    stack: Stack,
    listed: Annotated[bool, typer.Option("--list", help="print one thing a line: its kind and its name")] = False,
    json: Annotated[bool, typer.Option("--json", help="print names, sources and checks as JSON")] = False,
) -> None:
    """Show every image, package and file that a lab fetches, from where, and how it is checked."""
    from cli.airgap.command import run

    raise typer.Exit(run(stack, listed=listed, as_json=json))


@app.command("list", rich_help_panel=STACKS)
def list_(json: Annotated[bool, typer.Option("--json", help="print the table as JSON")] = False) -> None:
    """List the stacks: where each lab runs, whether it is up and since when, its sandbox, and its cost."""
    from cli.list.command import run

    raise typer.Exit(run(as_json=json))


@app.command(rich_help_panel=STACKS)
def status(
    stack: Stack,
    json: Annotated[bool, typer.Option("--json", help="print it as JSON")] = False,
) -> None:
    """Show one stack: its machines, its cluster, the last verify, its sandbox, and what comes next."""
    from cli.status.command import run

    raise typer.Exit(run(stack, as_json=json))


@app.command(rich_help_panel=STACKS)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the name of the new stack")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="STACK", help="copy this stack", autocompletion=candidates.stacks)
    ] = None,
) -> None:
    """Write the file of a new stack: a copy of another one, or the answers to a few questions."""
    from cli.new.command import run

    raise typer.Exit(run(name, source))


@app.command(rich_help_panel=STACKS)
def pin(
    part: Annotated[str, typer.Argument(metavar="PART", help="calico, or multus, which needs no pin")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="a release, e.g. 3.33.0")],
    stack: Annotated[
        str | None, typer.Option(help="fetch through the mirrors of this stack", autocompletion=candidates.stacks)
    ] = None,
) -> None:
    """Fetch a release's manifests once, show their checksums, and write them to stacks/pins.yaml for review."""
    from cli.pin.command import pin as run

    raise typer.Exit(run(part, version, stack=stack))


@app.command(rich_help_panel=WITHOUT_A_LAB)
def demo(
    stack: Stack = "cfos-egress",
    fast: Annotated[bool, typer.Option("--fast", help="do not pause between the steps")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="do not remove the sandbox at the end")] = False,
) -> None:
    """Show a live lab on this computer: build it, check it, follow a packet, break it, repair it, remove it."""
    from cli.sandbox.demo import run

    raise typer.Exit(run(stack, fast=fast, keep=keep))


@app.command(rich_help_panel=WITHOUT_A_LAB)
def sandbox(
    stack: OptionalStack = None,
    down: Annotated[bool, typer.Option("--down", help="remove it")] = False,
    listed: Annotated[bool, typer.Option("--list", help="list the sandboxes of this computer")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="remove it and build it as the file is now")] = False,
    json: Annotated[bool, typer.Option("--json", help="with --list: print JSON")] = False,
) -> None:
    """Build a lab in network namespaces of this computer, in seconds, and keep it."""
    from cli.sandbox.command import run

    raise typer.Exit(run(stack, down=down, listed=listed, rebuild=rebuild, as_json=json))


@app.command(rich_help_panel=LIFE)
def doctor(
    stack: OptionalStack = None,
    labs: Annotated[int, typer.Option(min=1, help="on AWS: how many such labs the account must have room for")] = 1,
    json: Annotated[bool, typer.Option("--json", help="print the checks as JSON")] = False,
) -> None:
    """Show at once what would stop or spoil an `up` of a lab, or of every lab; exit 1 if one would fail."""
    from cli.doctor.command import run

    raise typer.Exit(run(stack, as_json=json, labs=labs))


@app.command(context_settings=PASS_ON, rich_help_panel=LIFE)
def preview(
    stack: Stack,
    context: typer.Context,
    skip_doctor: Annotated[bool, SKIP_DOCTOR] = False,
) -> None:
    """Show what `up` would change (pulumi preview; further options are passed on)."""
    from cli.lifecycle.deploy import run

    raise typer.Exit(run("preview", stack, context.args, examined=not skip_doctor))


@app.command(context_settings=PASS_ON, rich_help_panel=LIFE)
def up(
    stack: Stack,
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="also restore what verify finds missing or moved")] = False,
    skip_doctor: Annotated[bool, SKIP_DOCTOR] = False,
) -> None:
    """Create the lab, or change it to what its file says (pulumi up; further options are passed on)."""
    from cli.lifecycle.deploy import run

    raise typer.Exit(run("up", stack, context.args, repaired=repair, examined=not skip_doctor))


@app.command(context_settings=PASS_ON, rich_help_panel=LIFE)
def destroy(stack: Stack, context: typer.Context) -> None:
    """Remove the lab (pulumi destroy; further options are passed on)."""
    from cli.lifecycle.deploy import run

    raise typer.Exit(run("destroy", stack, context.args))


@app.command(rich_help_panel=LIFE)
def env(
    stack: Stack,
    secrets_provider: Annotated[
        str | None, typer.Option(metavar="URL", help="for a stack that does not exist yet, e.g. awskms://alias/lab")
    ] = None,
) -> None:
    """Print what to set so that plain `pulumi up -s STACK` works on a lab: eval "$(./lab env STACK)"."""
    from cli.lifecycle.plain import run

    raise typer.Exit(run(stack, secrets_provider))


@app.command(rich_help_panel=LIFE)
def unlock(stack: Stack) -> None:
    """Remove the lock that a killed `up` or `destroy` left in a shared state. Make sure that none is running."""
    from cli.lifecycle.locks import unlock as run

    raise typer.Exit(run(stack))


@app.command(rich_help_panel=LIFE)
def secret(
    stack: Stack, key: Annotated[str, typer.Argument(metavar="KEY", help="a key that the stack file names")]
) -> None:
    """Encrypt a password that a stack file names, such as a BGP peer's. It is asked for, or read from stdin."""
    from cli.lifecycle.secret import run

    raise typer.Exit(run(stack, key))


@app.command(rich_help_panel=LIFE)
def stop(stack: Stack) -> None:
    """Stop a lab's machines, on EC2 or on this computer. Their disks and the API's address stay."""
    from cli.lifecycle.power import run

    raise typer.Exit(run("stop", stack))


@app.command(rich_help_panel=LIFE)
def start(stack: Stack) -> None:
    """Start a lab's machines again, also after a restart of this computer, and wait until the cluster serves."""
    from cli.lifecycle.power import run

    raise typer.Exit(run("start", stack))


@app.command(rich_help_panel=WITHOUT_A_LAB)
def cost(
    stack: Stack,
    json: Annotated[bool, typer.Option("--json", help="print the sums as JSON")] = False,
) -> None:
    """Show what a lab costs: an hour, an evening, and a whole month."""
    with no_collection():
        from cli.plan.cost import run

        raise typer.Exit(run(stack, as_json=json))


@app.command(rich_help_panel=LIFE)
def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be destroyed; change nothing")] = False,
    json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
    markdown: Annotated[Path | None, typer.Option(help="append the report, as Markdown, to this file")] = None,
    lock_hours: Annotated[float, typer.Option(min=0, help="ignore a lock that is older than this")] = 2,
    stack_minutes: Annotated[float, typer.Option(min=1, help="longest wait for one stack")] = 30,
    region: Annotated[list[str] | None, typer.Option(help="sweep this AWS region; may be repeated")] = None,
) -> None:
    """Destroy every ephemeral stack whose ttlHours are over, and delete from AWS what is left of lost ones."""
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


@app.command(rich_help_panel=RUNNING)
def verify(
    stack: Stack,
    json: Annotated[bool, typer.Option("--json", help="print every check as JSON")] = False,
    junit: Annotated[Path | None, typer.Option(help="write a JUnit report into this file")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="also show the checks that pass")] = False,
    wait: Annotated[
        float,
        typer.Option(min=0, max=86400, metavar="SECONDS", help="wait so long until all pass; show what is missing"),
    ] = 0,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Check every expectation of a lab against its nodes and its API; exit 1 where one fails."""
    from cli.live.verify import verify as run

    raise typer.Exit(run(stack, as_json=json, junit_file=junit, verbose=verbose, sandbox=sandbox, wait_seconds=wait))


@app.command(rich_help_panel=RUNNING)
def walk(
    stack: Stack,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="[NAMESPACE/]POD, the name of a workload, WORKLOAD@NODE, node/NAME, or the address of one of these",
            autocompletion=candidates.pods,
        ),
    ],
    target: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET",
            help="the same, an IPv4 address, or a Service: service/NAME[:PORT], service NAME, or its ClusterIP",
            autocompletion=candidates.pods,
        ),
    ],
    tcp: Annotated[int | None, typer.Option(min=1, max=65535, help="a TCP connection to this port")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the hops as JSON")] = False,
    svg: Annotated[Path | None, typer.Option(help="draw the hops into this SVG file")] = None,
    capture: Annotated[bool, typer.Option(help="capture the same packet at every hop")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Show a packet's route between pods, nodes and Services, hop by hop: the command, what was seen and expected."""
    from cli.live.walk import end_of, run

    end = end_of(target)
    raise typer.Exit(run(stack, source, end, tcp=tcp, as_json=json, svg=svg, captured=capture, sandbox=sandbox))


@app.command(rich_help_panel=RUNNING)
def page(
    stack: Stack,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="the file to write; by default STACK.html")] = None,
    sandbox: Annotated[bool, SANDBOX] = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="from the plan alone, even if the lab is up")] = False,
) -> None:
    """Write one HTML file that shows a lab: its network, a packet's way, addresses, expectations, and its lesson."""
    from cli.page.command import run

    raise typer.Exit(run(stack, out=out, sandbox=sandbox, plan_only=plan_only))


@app.command(rich_help_panel=RUNNING)
def addresses(
    stack: Stack,
    json: Annotated[bool, typer.Option("--json", help="print the table as JSON")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Show which part of each block is assigned by whom, which pod has which address, and collisions."""
    from cli.live.addresses import run

    raise typer.Exit(run(stack, as_json=json, sandbox=sandbox))


@app.command(context_settings={"allow_interspersed_args": False}, rich_help_panel=RUNNING)
def ssh(
    stack: Stack,
    node: Annotated[str, typer.Argument(metavar="NODE", help="the name of a node", autocompletion=candidates.nodes)],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="a command to run there instead of a shell")
    ] = None,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Open a shell on a node with the lab's key, or run a command there; exits as ssh does."""
    from cli.live.ssh import run

    raise typer.Exit(run(stack, node, command or [], sandbox=sandbox))


@app.command(rich_help_panel=RUNNING)
def kubeconfig(
    stack: Stack,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write it into this file (mode 0600)")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite a file that this command did not write")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Print a lab's kubeconfig, or write it into a file."""
    from cli.live.kubeconfig import run

    raise typer.Exit(run(stack, out, force=force, sandbox=sandbox))


fault_commands.add_to(app)


@app.command(rich_help_panel=TOOL)
def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish")]) -> None:
    """Print the script by which your shell completes commands, stacks, nodes, pods and faults."""
    from cli.completion.command import run

    raise typer.Exit(run(shell))


@app.command("help", rich_help_panel=TOOL)
def help_(
    context: typer.Context,
    command: Annotated[
        str | None, typer.Argument(metavar="COMMAND", help="a command", autocompletion=candidates.commands)
    ] = None,
) -> None:
    """Show all commands, or the arguments and options of one."""
    from cli.group import help_of

    typer.echo(help_of(context, command))


@app.command(context_settings=PASS_ON, rich_help_panel=TOOL)
def test(
    context: typer.Context,
    explore: Annotated[bool, typer.Option("--explore", help="draw fresh examples for the property tests")] = False,
) -> None:
    """Run lint, type checks and tests; shows what was skipped and why (options are passed on to pytest)."""
    from cli.test.command import run

    run(context.args, explore=explore)

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
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def plan(
    stack: Stack,
    json: Annotated[bool, typer.Option("--json", help="the whole graph as JSON on stdout")] = False,
    out: Annotated[Path | None, typer.Option(help="write graph, node files and objects into this folder")] = None,
) -> None:
    """Show the whole graph without cloud account, pulumi CLI or network."""
    from cli.plan import plan as run

    raise typer.Exit(run(stack, as_json=json, out=out))


def _pulumi(command: str, stack: str, context: typer.Context) -> None:
    from cli.pulumi_cli import run

    raise typer.Exit(run(command, stack, context.args))


@app.command(context_settings=PASS_ON)
def preview(stack: Stack, context: typer.Context) -> None:
    """What `up` would change (pulumi preview; further options are passed on)."""
    _pulumi("preview", stack, context)


@app.command(context_settings=PASS_ON)
def up(stack: Stack, context: typer.Context) -> None:
    """Make the lab as its file says (pulumi up; further options are passed on)."""
    _pulumi("up", stack, context)


@app.command(context_settings=PASS_ON)
def destroy(stack: Stack, context: typer.Context) -> None:
    """Take the lab away (pulumi destroy; further options are passed on)."""
    _pulumi("destroy", stack, context)


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

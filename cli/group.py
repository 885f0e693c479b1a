"""What all commands share: errors become one line and an exit code, and help lists the commands by their purpose."""

from __future__ import annotations

import errno
from typing import Any

import typer
from typer.core import TyperGroup

from cli import project
from cli.errors import MISSING, USAGE, CommandError
from cli.parameters import add_local
from components.spec.findings import SpecError
from components.system_errors import system_message

WITHOUT_A_LAB = "Without a lab"
STACKS = "Stacks"
LIFE = "A lab's life"
RUNNING = "A running lab or sandbox"
TOOL = "This tool"
_PANELS = (WITHOUT_A_LAB, STACKS, LIFE, RUNNING, TOOL)


class Commands(TyperGroup):
    """Turns the errors that a command may raise into a message on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandError as error:
            typer.echo(f"lab {ctx.invoked_subcommand}: {error}", err=True)
            raise typer.Exit(error.code) from None
        except SpecError as error:
            typer.echo(error, err=True)
            raise typer.Exit(USAGE) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of the output has ended
                raise
            typer.echo(f"lab {ctx.invoked_subcommand}: {system_message(error)}", err=True)
            raise typer.Exit(MISSING) from None
        finally:
            project.give_to_sudo_user()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Every command that takes a stack takes its local variant."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            add_local(command)
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """A section for each purpose. The first sentence of each command is wrapped to the terminal, not cut."""
        sections: dict[str, list[tuple[str, str]]] = {panel: [] for panel in _PANELS}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                # Longer than any first sentence.
                row = (name, command.get_short_help_str(limit=1000))
                sections[panel if panel in sections else TOOL].append(row)
        for panel, rows in sections.items():
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)


def help_of(context: Any, command: str | None) -> str:
    """The help of all commands, or of one. Raises CommandError if there is no such command."""
    root = context.find_root()
    if command is None:
        return str(root.get_help())
    found = root.command.get_command(root, command)
    if found is None:
        known = ", ".join(root.command.list_commands(root))
        raise CommandError(f"there is no command {command!r}. There are: {known}", USAGE)
    # The settings of the whole are inherited, the width of the terminal among them.
    return str(found.make_context(command, [], parent=root, resilient_parsing=True).get_help())

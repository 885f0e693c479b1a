"""The project's folders, and the stacks that have a file under stacks/."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

from cli.errors import USAGE, CommandError
from components.spec.names import LOCAL_SUFFIX, base_name, stack_name

NAME = "cni-lab"
"""Pulumi's name of the project, which its stacks and state files carry."""

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "__main__.py"

_STACK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
"""As in pulumi's sdk/go/common/tokens/stack_name.go."""

HOME = ROOT / ".lab"
"""What `./lab` keeps (mode 0700, ignored by git): state, passphrase, logs, and a pulumi CLI that it installed."""


def version() -> str:
    """The release, and in a git checkout the commit: `0.1.0 (1a2b3c4)`, with `+` where files were changed."""
    release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        described = ""
    return f"{release} ({described})" if described else str(release)


def give_to_sudo_user() -> None:
    """Under sudo, give what root made in .lab to the user who typed sudo, whose next command may be without it."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() != 0 or not (user.isdigit() and group.isdigit()) or not HOME.is_dir():
        return
    # A sandbox's files are its nodes' own, root's among them.
    kept = [path for child in HOME.iterdir() if child.name != "sandbox" for path in (child, *child.rglob("*"))]
    for path in (HOME, *kept):
        with contextlib.suppress(OSError):  # removed meanwhile
            if path.lstat().st_uid == 0:
                os.chown(path, int(user), int(group), follow_symlinks=False)


def stack_files(root: Path | None = None) -> dict[str, Path]:
    """Every stack file of the project, or of another copy of it, by the stack's name."""
    files = ((root or ROOT) / "stacks").glob("Pulumi.*.yaml")
    return {stack_name(path): path for path in sorted(files) if path.is_file()}


def stack_file(stack: str) -> Path:
    """The stack file of a lab, or of the local variant of one, which is written now.

    Raises CommandError, which names the labs that exist. Raises SpecError where a variant cannot be made.
    """
    files = stack_files()
    if stack in files:
        if not _STACK_NAME.fullmatch(stack):
            raise CommandError(
                f"stacks/{files[stack].name}: {stack!r} cannot be the name of a stack: rename the file, with "
                "at most 100 letters, digits, hyphens, underscores and periods",
                USAGE,
            )
        return files[stack]
    if stack.endswith(LOCAL_SUFFIX) and (base := files.get(base_name(stack))):
        return _variant_file(stack, base)
    known = ", ".join(files) or "none"
    raise CommandError(_misnamed(stack) or f"there is no stack {stack!r}; stacks/ has: {known}", USAGE)


def _variant_file(stack: str, base: Path) -> Path:
    """The file of a local variant, which follows the file of its lab at every command."""
    # These load the models, which `--help` and completions do without.
    from components.spec.load import SpecError, load_stack_file
    from components.spec.variant import local_variant

    lab = stack_name(base)
    if load_stack_file(base).lab.machines.in_containers:
        raise CommandError(f"{lab} has local machines itself, and no other variant: name {lab}, without --local", USAGE)
    text = local_variant(base.read_text(encoding="utf-8-sig"))
    path = HOME / "local" / f"Pulumi.{stack}.yaml"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        HOME.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    try:
        load_stack_file(path)
    except SpecError as error:
        # The lines are those of a file that nobody edits.
        found = [replace(finding, line=None) for finding in error.findings]
        raise SpecError(found, f"{base.name}, with local machines,") from None
    return path


def _misnamed(stack: str) -> str | None:
    """The message for a stack that was given as a path, or whose file has a name that Pulumi does not read."""
    folder = ROOT / "stacks"
    places = (
        Path(stack),
        folder / stack,
        folder / f"{stack}.yaml",
        folder / f"{stack}.yml",
        folder / f"Pulumi.{stack}.yml",
    )
    for path in places:
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            continue
        name = path.stem.removeprefix("Pulumi.")
        right = folder / f"Pulumi.{name}.yaml"
        if path.resolve() == right.resolve():
            return f"{stack} is the file of a stack; write the stack's name: {name}"
        return f"{path} is not read as a stack: name it stacks/{right.name}, and its stack is {name}"
    return None


def not_up(stack: str, missing: str | None = None) -> CommandError:
    """The error for a lab that has no state, or whose last `up` did not get as far as the output `missing`."""
    if missing is None:
        fix = f"run `./lab up {stack}`, or `./lab sandbox {stack}` for one without machines"
    else:
        fix = f"its last `up` returned no `{missing}`. Run `./lab up {stack}`"
    return CommandError(f"the lab {stack} is not up: {fix}", USAGE)

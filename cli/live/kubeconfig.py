"""`./lab kubeconfig`: the administrator's kubeconfig of a lab, on stdout or in a file."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from pathlib import Path

from cli.errors import USAGE, CommandError
from cli.project import not_up, stack_file
from cli.sandbox.choice import chosen_outputs


def run(stack: str, out: Path | None, *, force: bool = False, sandbox: bool = False) -> int:
    """Returns 0. Raises CommandError, SpecError."""
    stack_file(stack)
    text = chosen_outputs(stack, sandbox=sandbox).get("kubeconfig")
    if not text:
        raise not_up(stack, "kubeconfig")
    if out is None:
        print(text)
        return 0
    write(out, str(text), stack, force=force)
    print(f"export KUBECONFIG={shlex.quote(str(out.absolute()))}", file=sys.stderr)
    return 0


def write(path: Path, text: str, stack: str, *, force: bool = False) -> None:
    """Write the whole file with mode 0600. Raises CommandError where something else is there, unless `force`."""
    try:
        if not force and (path.is_symlink() or path.exists()) and not is_ours(path):
            raise CommandError(
                f"--out {path}: this file was not written by `lab kubeconfig`, or was changed since. "
                "Choose another name, or overwrite it with --force",
                USAGE,
            )
        body = text.rstrip("\n") + "\n"
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with open(draft, "x", encoding="utf-8", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(f"# cni-lab {stack} {_sum(body)}\n{body}")
        try:
            draft.replace(path)
        except OSError:
            draft.unlink()
            raise
    except OSError as error:
        raise CommandError(f"--out {path}: {error.strerror}", USAGE) from None


def is_ours(path: Path) -> bool:
    """Whether a file is as `write` left it: its first line has the checksum of the rest."""
    if path.is_symlink() or not path.is_file():
        return False
    first, _, body = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    return first.startswith("# cni-lab ") and first.endswith(f" {_sum(body)}")


def _sum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()

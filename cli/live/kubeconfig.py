"""`./lab kubeconfig`: the administrator's kubeconfig of a lab that stands, on stdout or in a file of the caller's."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from pathlib import Path

from cli.lifecycle.pulumi_cli import CannotRun, refuse, stack_file
from cli.live.stack import standing_outputs
from components.spec.load import SpecError


def run(stack: str, out: Path | None, *, force: bool = False, sandbox: bool = False) -> int:
    """Returns 0; 2 and 3 as CannotRun."""
    try:
        stack_file(stack)
        text = standing_outputs(stack, sandbox=sandbox).get("kubeconfig")
        if not text:
            raise CannotRun(
                f"the lab {stack} does not stand: its last `up` gave out no kubeconfig. Run `./lab up {stack}`", code=2
            )
        if out is None:
            print(text)
            return 0
        write(out, str(text), stack, force=force)
    except (CannotRun, SpecError) as error:
        return refuse("kubeconfig", error)
    print(f"export KUBECONFIG={shlex.quote(str(out.absolute()))}", file=sys.stderr)
    return 0


def write(path: Path, text: str, stack: str, *, force: bool = False) -> None:
    """Write the file whole, for its owner alone. Raises CannotRun where something else is there, unless `force`."""
    try:
        if not force and (path.is_symlink() or path.exists()) and not is_ours(path):
            raise CannotRun(
                f"--out {path}: this file was not written by `lab kubeconfig`, or was changed since. "
                "Choose another name, or overwrite it with --force",
                code=2,
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
        raise CannotRun(f"--out {path}: {error.strerror}", code=2) from None


def is_ours(path: Path) -> bool:
    """Whether a file is as `write` left it: its first line has the checksum of the others."""
    if path.is_symlink() or not path.is_file():
        return False
    first, _, body = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    return first.startswith("# cni-lab ") and first.endswith(f" {_sum(body)}")


def _sum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()

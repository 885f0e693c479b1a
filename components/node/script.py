"""Composes the bash program that a Step sends to a machine.

The program is one brace group with stdin closed. If the connection is cut while the text is still on its way, bash gets
an unfinished group and refuses all of it: nothing has run. Values reach the scripts as quoted, unexported shell
variables, never by editing the script's text. Files arrive as quoted here-documents.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from components import slowdown

SCRIPTS = Path(__file__).parent
LIBRARY = "lib.sh"
# The libraries, besides lib.sh, that come before a script in its subshell.
USES: Mapping[str, tuple[str, ...]] = {
    "blocks.sh": ("reasons.sh",),
    "calico.sh": ("reasons.sh",),
    "files.sh": ("reasons.sh",),
    "prepare.sh": ("packages.sh", "modules.sh"),
    "upgrade-kubeadm.sh": ("packages.sh",),
    "upgrade-kubelet.sh": ("packages.sh",),
}
_END = "CNI_LAB_END_OF_FILE"
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True)
class File:
    """A file that a step writes on its node.

    `content`: text, or a mapping or list that becomes JSON (`.conf`, `.conflist`, `.json`) or YAML (any other suffix; a
    list becomes a stream of documents). Its leaves may be Pulumi outputs until the program is composed.
    """

    path: str
    content: Any
    mode: str = "0644"


def text_of(path: str, content: Any) -> str:
    """The text of the file `path` with this content. It always ends with a newline."""
    if isinstance(content, str):
        text = content
    elif PurePosixPath(path).suffix in {".conf", ".conflist", ".json"}:
        text = json.dumps(content, indent=2)
    elif isinstance(content, list):
        text = yaml.safe_dump_all(content, sort_keys=False, explicit_start=True)
    else:
        text = yaml.safe_dump(content, sort_keys=False)
    return text if text.endswith("\n") else text + "\n"


def read_script(name: str) -> str:
    """The text of `components/node/<name>`."""
    return (SCRIPTS / name).read_text(encoding="utf-8")


def installed_script(name: str, variables: Mapping[str, str] | None = None) -> str:
    """The text of a script that is installed on a node and runs without a Step: lib.sh, the variables, the script."""
    return "\n".join([read_script(LIBRARY), *_assignments(variables or {}), read_script(name)])


def script_names(scripts: Sequence[str]) -> list[str]:
    """The names of all texts that `compose` puts into a program of these scripts, each once, in their order."""
    return list(dict.fromkeys([LIBRARY, *(part for script in scripts for part in (*USES.get(script, ()), script))]))


def compose(
    phase: str, variables: Mapping[str, str], files: Sequence[File], scripts: Sequence[str], lock: str | None = None
) -> str:
    """The bash program of one step.

    `lib.sh` comes first, then the variables, then the function `write_files`, which a script calls when it wants the
    files, in the order given. Then comes each script after the libraries that it `USES`, in a subshell, so that its
    traps and exits affect no other script.

    Raises ValueError for a variable whose name is not UPPER_CASE, and for a file that contains the end marker.
    """
    # One lock for each phase: a second run of a step waits for a first one that a cut connection left running, and for
    # no other step.
    taken = f"CNI_LAB_LOCK=/run/lock/cni-lab-{shlex.quote(lock or phase)}"
    lines = ["set -euo pipefail", "{", taken, *_slowdown(), read_script(LIBRARY), f"PHASE={shlex.quote(phase)}"]
    lines += [*_assignments(variables), "write_files() {"]
    for file in files:
        text = text_of(file.path, file.content)
        if _END in text.splitlines():
            raise ValueError(f"{file.path}: the line {_END} would end the file on its way to the node; remove it")
        lines += [f"write_file {shlex.quote(file.path)} {shlex.quote(file.mode)} <<'{_END}'", text + _END]
    lines += [" ".join(["keep_files", shlex.quote(phase), *(shlex.quote(f.path) for f in files)]), "}"]
    for script in scripts:
        lines += [f"log {shlex.quote(script)}", "(", *map(read_script, (*USES.get(script, ()), script)), ")"]
    # Else the step would show the name of its last script while it ends, even if that script had nothing to do.
    lines += [f"log {shlex.quote(f'{phase} is done')}", "} </dev/null", ""]
    return "\n".join(lines)


def _slowdown() -> list[str]:
    """The factor for the waits of the scripts. Without one the program says nothing of it."""
    factor = slowdown.factor()
    return [f"SLOWDOWN={factor}"] if factor > 1 else []


def _assignments(variables: Mapping[str, str]) -> list[str]:
    for key in variables:
        if not _NAME.fullmatch(key):
            raise ValueError(f"shell variable {key!r}: use UPPER_CASE letters, digits and underscores")
    return [f"{key}={shlex.quote(value)}" for key, value in variables.items()]

"""Compose what one Step sends to a machine: one bash program, parsed whole before any of it runs.

The program is one brace group with stdin closed, so a connection that is cut while the text is still on its way
leaves an unfinished group, which bash refuses as a whole: nothing has run. Values reach the scripts as quoted,
unexported shell variables, never by editing the script's text; files arrive as quoted here-documents.
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

SCRIPTS = Path(__file__).parent
LIBRARY = "lib.sh"
# What comes before a script in its subshell.
USES = dict.fromkeys(("prepare.sh", "upgrade-kubeadm.sh", "upgrade-kubelet.sh"), ("packages.sh",))
_END = "CNI_LAB_END_OF_FILE"
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True)
class File:
    """A file that a step writes on its node.

    `content` is text, or a mapping or list that is written as JSON (`.conf`, `.conflist`, `.json`) or YAML (any
    other suffix; a list in a YAML file is a stream of documents). Leaves may be Pulumi outputs until rendered.
    """

    path: str
    content: Any
    mode: str = "0644"


def text_of(path: str, content: Any) -> str:
    """The text of a file whose content is `content`; always ends with a newline."""
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


def parts(scripts: Sequence[str]) -> list[str]:
    """The names of all texts that `compose` puts into a program of these scripts, each once, in their order."""
    return list(dict.fromkeys([LIBRARY, *(part for script in scripts for part in (*USES.get(script, ()), script))]))


def compose(
    phase: str, variables: Mapping[str, str], files: Sequence[File], scripts: Sequence[str], lock: str | None = None
) -> str:
    """The bash program of one step.

    `lib.sh` comes first, then the variables, then `write_files` (which the scripts call at the moment they want the
    files, in the order given), then each script in a subshell of its own, so that its traps and exits stay its own,
    after what it `USES`.

    Raises ValueError for a variable whose name is not UPPER_CASE and for a file that holds the end marker.
    """
    # One lock a phase: a second run of a step waits for a first that a cut connection left behind, and no other step.
    taken = f"CNI_LAB_LOCK=/run/lock/cni-lab-{shlex.quote(lock or phase)}"
    lines = ["set -euo pipefail", "{", taken, read_script(LIBRARY), f"PHASE={shlex.quote(phase)}"]
    for key, value in variables.items():
        if not _NAME.fullmatch(key):
            raise ValueError(f"shell variable {key!r}: use UPPER_CASE letters, digits and underscores")
        lines.append(f"{key}={shlex.quote(value)}")
    lines.append("write_files() {")
    for file in files:
        text = text_of(file.path, file.content)
        if _END in text.splitlines():
            raise ValueError(f"{file.path}: the line {_END} ends a file on its way to the node; remove it")
        lines += [f"write_file {shlex.quote(file.path)} {shlex.quote(file.mode)} <<'{_END}'", text + _END]
    lines += [" ".join(["keep_files", shlex.quote(phase), *(shlex.quote(f.path) for f in files)]), "}"]
    for script in scripts:
        lines += [f"log {shlex.quote(script)}", "(", *map(read_script, (*USES.get(script, ()), script)), ")"]
    lines += ["} </dev/null", ""]
    return "\n".join(lines)

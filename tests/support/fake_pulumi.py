"""A pulumi CLI that answers from a file: what `stack ls`, `stack export` and `stack output` print."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cli import project
from cli.lifecycle.pulumi_cli import VERSION

_PROGRAM = """\
#!{python}
import json, sys
answers = json.load(open({answers!r}))
words = sys.argv[1:]
stack = words[words.index("--stack") + 1] if "--stack" in words else ""
if words[:1] == ["version"]:
    print("v{version}")
elif words[:2] == ["stack", "ls"]:
    print(json.dumps(answers["list"]))
elif words[:2] == ["stack", "export"]:
    print(json.dumps({{"deployment": {{"resources": answers["resources"][stack]}}}}))
elif words[:2] == ["stack", "output"]:
    print(json.dumps(answers["outputs"].get(stack, {{}})))
else:
    sys.exit("error: " + answers.get("error", "not asked for in this test"))
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
    """Put it first on PATH, with a home of its own. `answers`: `list`, and by stack `resources` and `outputs`."""
    home = folder / "home"
    for stack in {entry["name"] for entry in answers.get("list", [])}:
        file = home / "state/.pulumi/stacks" / project.NAME / f"{stack}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    home.mkdir(exist_ok=True)
    given: Mapping[str, Any] = {"list": [], "resources": {}, "outputs": {}} | answers
    (folder / "answers.json").write_text(json.dumps(given))
    program = folder / "bin/pulumi"
    program.parent.mkdir()
    program.write_text(
        _PROGRAM.format(python=sys.executable, answers=str(folder / "answers.json"), version=VERSION), encoding="utf-8"
    )
    program.chmod(0o755)
    monkeypatch.setattr(project, "HOME", home)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)

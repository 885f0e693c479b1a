"""What every command needs on this computer: Python, the pulumi CLI, and its provider plugins."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from cli import project
from cli.doctor.model import Answer, Check
from cli.lifecycle.pulumi_cli import VERSION, is_older, version_of
from components.spec.models import Lab

PYTHON = (3, 11)


def checks(lab: Lab) -> list[Check]:
    return [
        Check("python", f"Is Python {_dotted(PYTHON)} or later running?", python, for_preview=True),
        Check("pulumi", f"Is a pulumi CLI of {VERSION} or later installed?", pulumi, for_preview=True),
        Check("plugins", "Are pulumi's provider plugins installed?", lambda: plugins(lab), for_preview=True),
    ]


def python() -> Answer:
    seen = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] < PYTHON:
        return Answer("stop", seen, f"install Python {_dotted(PYTHON)}, remove .venv, and run ./lab again")
    return Answer("ok", seen)


def pulumi() -> Answer:
    """As find_pulumi chooses: the CLI on PATH, unless it is older; else the one in .lab, which `up` installs."""
    ours = project.HOME / "pulumi" / "bin"
    on_path, own = shutil.which("pulumi"), shutil.which("pulumi", path=str(ours))
    notes: list[str] = []
    for found in (on_path, own):
        version = version_of(found) if found else None
        if found and version is None:
            fix = f"repair it or take it off PATH: `{found} version` must print a version"
            return Answer("warn", f"{found} does not say which version it is", fix)
        if found and version is not None and not is_older(version):
            return Answer("ok", "; ".join([*notes, f"{found} is {version}"]))
        if found:
            notes.append(f"{found} is {version}, too old, and is not used")
    return Answer("ok", "; ".join([*notes, f"up installs {VERSION} into .lab/pulumi"]))


def plugins(lab: Lab) -> Answer:
    """pulumi downloads a plugin that is missing, unless the environment forbids it."""
    missing = [f"{name} {version}" for name, version in _wanted(lab) if not _has_plugin(name, version)]
    if not missing:
        return Answer("ok", ", ".join(f"{name} {version}" for name, version in _wanted(lab)))
    listed = ", ".join(missing)
    if os.environ.get("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "").lower() in ("1", "true"):
        commands = "; ".join(f"pulumi plugin install resource {each}" for each in missing)
        return Answer("stop", f"missing: {listed}, and PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION is set", commands)
    return Answer("ok", f"pulumi downloads {listed} on first use")


def _wanted(lab: Lab) -> Iterator[tuple[str, str]]:
    """The plugins of the lab's graph: each has the version of its Python package."""
    names = ["command", "kubernetes", "random", "tls"]
    for name in [*(["aws"] if lab.machines.provider == "aws" else []), *names]:
        yield name, importlib.metadata.version(f"pulumi-{name}")


def _has_plugin(name: str, version: str) -> bool:
    """In pulumi's own folder, or on PATH, where pulumi takes it whatever its version (pulumi's plugins.go)."""
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    folder = home / "plugins" / f"resource-{name}-v{version}"
    return folder.is_dir() or shutil.which(f"pulumi-resource-{name}") is not None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

"""The pulumi CLI and the state it works on, both in `.lab/` unless the caller's environment says otherwise."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cli import project
from cli.errors import MISSING, CommandError
from components.slowdown import scaled
from components.spec.document import read_document

VERSION = "3.272.0"
_VERSION_TIMEOUT_SECONDS = 30

PARALLEL = "64"
"""Resources that Pulumi works on at once. Its default follows this computer's cores, but the machines do the work."""


def find_pulumi() -> str:
    """The pulumi CLI: the one on PATH, else the one in .lab, else Pulumi's own installer installs it there now.

    One that is older than VERSION is passed over: an older engine ignores options of resources that it does not know.
    """
    ours = project.HOME / "pulumi"
    for found in (shutil.which("pulumi"), shutil.which("pulumi", path=str(ours / "bin"))):
        if found and not _is_too_old(found):
            return found
    from pulumi.automation import PulumiCommand
    from semver import VersionInfo

    print(f"lab: installing the pulumi CLI {VERSION} into .lab/pulumi", file=sys.stderr)
    try:
        return PulumiCommand.install(root=str(ours), version=VersionInfo.parse(VERSION)).command
    except Exception as error:  # the installer raises whatever its download raises
        cause = getattr(error, "reason", error)  # urllib wraps what the network said
        said = getattr(cause, "strerror", None) or str(cause)
        reason = said.splitlines()[0] if said else type(error).__name__
        raise CommandError(
            f"no pulumi CLI of version {VERSION} or later is on PATH, and its installer could not be run ({reason}); "
            f"install pulumi {VERSION} from https://www.pulumi.com/docs/install/ and run the same command again",
            MISSING,
        ) from None


@cache
def _is_too_old(pulumi: str) -> bool:
    """Whether the CLI says that it is older than VERSION. One that cannot be asked fails later, with its own words."""
    version = version_of(pulumi)
    if version is None or not is_older(version):
        return False
    print(f"lab: {pulumi} is {version}, older than {VERSION}, and is not used", file=sys.stderr)
    return True


def version_of(pulumi: str) -> str | None:
    """The version that a CLI says it has, such as 3.272.0. None where it cannot be asked."""
    try:
        done = subprocess.run(
            [pulumi, "version"],
            env=os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=scaled(_VERSION_TIMEOUT_SECONDS),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"v?(\d+\.\d+\.\d+)", done.stdout)
    return found[1] if found else None


def is_older(version: str) -> bool:
    """Whether it is older than VERSION, the oldest that has every option that the program uses."""
    return _numbers(version) < _numbers(VERSION)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def environment_for_state() -> dict[str, str]:
    """The CLI's environment. What the caller set stays; the rest is a file backend and a passphrase in .lab."""
    environment = dict(os.environ)
    environment.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
    # For what `up` runs on this computer (components/verify/component.py).
    environment.setdefault("CNI_LAB_PYTHON", sys.executable)
    environment.setdefault("PULUMI_PARALLEL", PARALLEL)
    project.HOME.mkdir(mode=0o700, exist_ok=True)
    project.HOME.chmod(0o700)
    if "PULUMI_BACKEND_URL" not in environment:
        (project.HOME / "state").mkdir(mode=0o700, exist_ok=True)
        environment["PULUMI_BACKEND_URL"] = (project.HOME / "state").as_uri()
        # The whole state is written before and after every resource.
        environment.setdefault("PULUMI_DIY_BACKEND_ZSTD", "true")
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & environment.keys():
        environment["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase())
    return environment


def config_folder() -> Path:
    """A project folder for the CLI to run in, apart from the project itself.

    The CLI writes the encryption salt into the stack file of its folder, and the files under stacks/ must stay as their
    author wrote them.
    """
    folder = project.HOME / "config"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "Pulumi.yaml").write_text(f"name: {project.NAME}\nruntime: python\n", encoding="utf-8")
    return folder


def select(
    pulumi: str, stack: str, path: Path, environment: dict[str, str], *, secrets_provider: str | None = None
) -> Path:
    """Make sure that the stack exists; returns the copy of its stack file at `path` that the CLI may write to.

    `secrets_provider`: who encrypts the secrets of a stack that does not exist yet; by default the passphrase, or
    Pulumi Cloud where the state is there. The copy also keeps what `./lab secret` has encrypted.
    """
    folder = config_folder()
    provider = [] if secrets_provider is None else ["--secrets-provider", secrets_provider]
    result = subprocess.run(
        [pulumi, "stack", "select", "--create", "--stack", stack, "--non-interactive", *provider],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        reason = " ".join(result.stderr.split()).removeprefix("error: ") or f"exit code {result.returncode}"
        raise CommandError(f"the stack cannot be selected: {reason}", MISSING)
    copy = folder / path.name
    kept = (yaml.safe_load(copy.read_text(encoding="utf-8")) or {}) if copy.exists() else {}
    given = _as_planned(path)
    merged = kept | given | {"config": _secrets(kept) | given["config"]}
    draft = copy.with_suffix(".tmp")
    draft.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
    draft.replace(copy)
    return copy


def _as_planned(path: Path) -> dict[str, Any]:
    """The stack file with the values that `plan` sees. PyYAML's own loader reads words as YAML 1.1 does: `on` would
    become true, 010 eight, and 1:30 ninety. The copy has such words in quotes, so that pulumi reads them as text."""
    document, _, _ = read_document(path)
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


def _secrets(document: dict[str, Any]) -> dict[str, Any]:
    """The encrypted values of a stack file, by key."""
    config = document.get("config") or {}
    return {key: value for key, value in config.items() if isinstance(value, dict) and list(value) == ["secure"]}


def missing_secrets(copy: Path, keys: Iterable[str]) -> list[str]:
    """Those of the full keys (cni-lab:KEY) that have no value in a stack's file."""
    config = yaml.safe_load(copy.read_text(encoding="utf-8"))["config"]
    return [key for key in keys if key not in config]


def _passphrase() -> Path:
    path = project.HOME / "passphrase"
    if not path.exists():
        draft = project.HOME / f"passphrase.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        try:
            # A link fails where another process was first; then its passphrase stays.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path

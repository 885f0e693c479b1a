"""The distributions that prepare.sh lets through: check_system by itself, without a machine of each."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("system", "warned"),
    [("debian 12", False), ("debian 13", False), ("debian 14", True), ("ubuntu 26.04", False), ("ubuntu 28.10", True)],
)
def test_which_systems_are_let_through(system: str, warned: bool) -> None:
    """The function alone, in this computer's bash: what it takes /etc/os-release for is a file of the test."""
    done = check_system(*system.split())
    assert done.returncode == 0, done.stderr
    assert ("a later release than this program knows" in done.stderr) == warned


def test_debians_next_release_has_no_number() -> None:
    assert "a later release" in check_system("debian", "").stderr


@pytest.mark.parametrize("system", ["debian 11", "ubuntu 25.10", "ubuntu 9", "fedora 42", "debian sid"])
def test_which_systems_are_refused(system: str) -> None:
    done = check_system(*system.split())
    assert done.returncode == 1 and "use Ubuntu 22.04" in done.stderr


def check_system(name: str, version: str) -> subprocess.CompletedProcess[str]:
    """Run check_system of prepare.sh on a system of this name and version."""
    scripts = Path(__file__).parents[2] / "components" / "node"
    functions = []
    for script, function in (("packages.sh", "newer"), ("prepare.sh", "later_release"), ("prepare.sh", "check_system")):
        found = re.search(
            rf"^{function}\(\) {{.*?(?:^}}| }})$", (scripts / script).read_text(), re.DOTALL | re.MULTILINE
        )
        assert found, function
        functions.append(found[0])
    program = "\n".join(functions).replace(". /etc/os-release", f"ID={name} VERSION_ID={version!r}")
    # What the test is not about: the process with the number 1.
    program = program.replace("$(</proc/1/comm)", "systemd")
    words = f'NODE_NAME=n; log() {{ echo "$*" >&2; }}; fail() {{ echo "$*" >&2; exit 1; }}\n{program}\ncheck_system'
    return subprocess.run(["bash", "-euo", "pipefail", "-c", words], capture_output=True, text=True, timeout=30)

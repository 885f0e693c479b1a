"""calicoctl.sh on this computer, with other paths and a file in place of the release; and which nodes get it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.spec import versions
from tests.support.graphs import COMMAND, STEP, Graph, run_lab
from tests.support.steps import run_step

SUMS = {"amd64": "a" * 64, "arm64": "b" * 64}


class Place:
    """Where calicoctl comes from and goes to in one test."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("dpkg") is None:
            pytest.skip("dpkg is not installed")
        self.folder = folder
        self.architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
        self.target, self.config = folder / "bin" / "calicoctl", folder / "calicoctl.cfg"
        self.release("one")

    def release(self, content: str) -> None:
        release = self.folder / "release" / f"calicoctl-linux-{self.architecture}"
        release.parent.mkdir(exist_ok=True)
        release.write_text(f"#!/bin/sh\necho {content}\n")
        self.sum = hashlib.sha256(release.read_bytes()).hexdigest()

    def run(self, sums: str | None = None) -> subprocess.CompletedProcess[str]:
        variables = {
            "CALICOCTL_BASE": f"file://{self.folder}/release",
            "CALICOCTL_SHA256": sums if sums is not None else f"s390x {'0' * 64}\n{self.architecture} {self.sum}\n",
        }
        env = {"CNI_LAB_CALICOCTL": str(self.target), "CNI_LAB_CALICOCTL_CONFIG": str(self.config)}
        return run_step(self.folder, "calicoctl", variables, env=env)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_is_installed_configured_and_upgraded(place: Place) -> None:
    for content in ("one", "one", "two"):
        place.release(content)
        done = place.run()
        assert done.returncode == 0, done.stderr
        assert subprocess.check_output([str(place.target)], text=True) == f"{content}\n"
    assert "kubeconfig: /etc/kubernetes/admin.conf" in place.config.read_text()
    assert (place.folder / "state" / "files" / "calicoctl").read_text().split() == [
        str(place.target),
        str(place.config),
    ]


def test_a_file_with_another_checksum_is_refused_and_the_old_one_stays(place: Place) -> None:
    assert place.run().returncode == 0
    pinned = f"{place.architecture} {'0' * 64}\n"
    done = place.run(pinned)
    assert done.returncode == 1
    assert f"calicoctl-linux-{place.architecture} has SHA-256 {place.sum}, wanted {'0' * 64}" in done.stderr
    assert subprocess.check_output([str(place.target)], text=True) == "one\n"


def test_without_a_checksum_for_this_architecture_ours_is_removed(place: Place) -> None:
    other = f"s390x {'0' * 64}\n"
    done = place.run(other)
    assert done.returncode == 0 and "not installed" in done.stderr
    assert not place.target.exists()
    assert place.run().returncode == 0 and place.target.exists()
    assert place.run(other).returncode == 0
    assert not place.target.exists() and not place.config.exists()


def test_a_calicoctl_that_was_there_before_stays(place: Place) -> None:
    place.target.parent.mkdir()
    place.target.write_text("mine\n")
    done = place.run()
    assert done.returncode == 0 and "was there before this lab" in done.stderr
    assert place.target.read_text() == "mine\n"
    assert not (place.folder / "state" / "files" / "calicoctl").exists()


# --- which nodes get it------------------------------------------------------------------------------------------------


def lab(**mirrors: Any) -> dict[str, Any]:
    roles = ["control-plane"] * 3 + ["worker"]
    nodes = [
        {"name": f"n{i}", "role": role, "subnet": "workers", "address": f"10.0.2.{i + 9}"}
        for i, role in enumerate(roles)
    ]
    return {"machines": {"provider": "local"}, "nodes": nodes, "mirrors": mirrors}


def with_calicoctl(graph: Graph) -> dict[str, dict[str, Any]]:
    return {s.inputs["node"]: s.inputs for s in graph.of_type(STEP) if "calicoctl.sh" in s.inputs["scripts"]}


def test_control_planes_get_it_without_another_connection() -> None:
    without, having = run_lab(lab()), run_lab(lab(calicoctlSha256=SUMS, calicoctl="https://mirror.example/calico"))
    assert with_calicoctl(without) == {}
    found = with_calicoctl(having)
    assert sorted(found) == ["n0", "n1", "n2"]
    for step in found.values():
        assert step["variables"]["CALICOCTL_BASE"] == f"https://mirror.example/calico/v{versions.DEFAULT_CALICO}"
        assert step["variables"]["CALICOCTL_SHA256"] == f"amd64 {'a' * 64}\narm64 {'b' * 64}\n"
        assert "prepare.sh" in step["scripts"]
    assert len(having.of_type(COMMAND)) == len(without.of_type(COMMAND)) <= 4 * 4


def test_a_plan_without_calicoctl_says_nothing_about_it() -> None:
    """The description of mirrors.calicoctlSha256 and `./lab pin` do."""
    assert not [m for m in run_lab(lab()).deployment.messages if "calicoctl" in m.text]


def test_checksums_of_a_shipped_release_may_be_pinned_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shipped = versions.CALICO[versions.DEFAULT_CALICO]
    entry = shipped.model_dump(mode="json") | {"calicoctl": SUMS}
    pins = tmp_path / "pins.yaml"
    pins.write_text(json.dumps({"calico": {versions.DEFAULT_CALICO: entry}}))
    monkeypatch.setattr(versions, "PINS", pins)
    found = versions.calico_release(versions.DEFAULT_CALICO)
    assert found is not None and found.calicoctl == SUMS and found.sha256 == shipped.sha256
    # The plan of this lab is in no cache.
    assert sorted(with_calicoctl(run_lab(lab(calicoctl="https://pinned.example/calico")))) == ["n0", "n1", "n2"]

"""files.sh on a node without a plugin: it names the plugin and its source, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.multus import delegates
from components.node.script import File
from tests.calico.labs import lab
from tests.support.steps import run_step

HERE = ("bridge", "calico", "host-local", "multus")


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("whereabouts", "its DaemonSet installs it; look: kubectl -n kube-system get pods -l app=whereabouts"),
        ("multus", "its DaemonSet installs it"),
        ("calico", "calico-node installs it"),
        ("macvlan", "the package kubernetes-cni contains it"),
        ("sriov", "a network of the stack file names it"),
    ],
)
def test_a_missing_plugin_is_named_with_its_source(tmp_path: Path, plugin: str, words: str) -> None:
    for name in HERE:
        if name != plugin:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
    variables = {
        "DEFAULT_NETWORK": delegates.DEFAULT_NETWORK,
        "PLUGINS": " ".join(sorted({*HERE, plugin})),
        "TIMEOUT_SECONDS": "1",
    }
    wanted = tmp_path / "00-multus.conf"
    place = {"CNI_LAB_CNI_BIN": str(tmp_path)}
    done = run_step(tmp_path, "files", variables, files=[File(str(wanted), "{}")], env=place)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"{tmp_path}/{plugin} is missing on " in last and words in last
    assert not wanted.exists(), "nothing is half-written"


def test_a_network_with_whereabouts_needs_the_plugin() -> None:
    network = {"name": "w", "type": "bridge", "bridge": "br9", "subnet": "10.9.0.0/24", "ipam": {"type": "whereabouts"}}
    spec = lab(machines={"provider": "local"}, networks=[network], workloads=[])
    assert "whereabouts" in delegates.plugins(spec)

"""CNI configurations that the runtime and the plugins accept or refuse."""

from __future__ import annotations

from typing import Any

import pytest

from components.spec.grammar.cni import problems, supported_versions


@pytest.mark.parametrize(
    "config",
    [
        {"cniVersion": "0.3.1", "type": "bridge"},
        {"cniVersion": "1.1.0", "type": "bridge", "ipam": {"type": "host-local"}},
        {"cniVersion": "1.0.0", "type": "calico", "ipam": {"type": "calico-ipam"}},
        {"cniVersion": "0.4.0", "plugins": [{"type": "bridge"}, {"type": "firewall"}, {"type": "tuning"}]},
        # The configuration may have another name than the network: Multus keeps it.
        {"cniVersion": "0.3.1", "name": "sriov-network", "type": "sriov", "ipam": {}},
        {"cniVersion": "0.3.0", "type": "a-plugin-of-my-own"},
    ],
)
def test_a_good_configuration(config: dict[str, Any]) -> None:
    assert not list(problems(config))


@pytest.mark.parametrize(
    ("config", "key", "problem", "fix"),
    [
        ({"type": "bridge"}, "cniVersion", "needs it", "add cniVersion: 0.3.1"),
        ({"cniVersion": "2.0.0", "type": "bridge"}, "cniVersion", "not a known version", "write 0.3.1"),
        ({"cniVersion": 1.0, "type": "bridge"}, "cniVersion", "not a known version", "1.0.0"),
        ({"cniVersion": ["0.3.1"], "type": "bridge"}, "cniVersion", "not a known version", "0.3.1"),
        ({"cniVersion": "0.2.0", "type": "bridge"}, "cniVersion", "not a known version", "0.3.0"),
        ({"cniVersion": "1.1.0", "type": "calico"}, "cniVersion", "calico supports 0.3.0 to 1.0.0", "write 0.3.1"),
        (
            {"cniVersion": "1.1.0", "type": "bridge", "ipam": {"type": "calico-ipam"}},
            *("cniVersion", "calico-ipam supports", "write 0.3.1"),
        ),
        (
            {"cniVersion": "0.3.1", "plugins": [{"type": "bridge"}, {"type": "firewall"}]},
            *("cniVersion", "firewall supports 0.4.0 to 1.1.0", "write 0.4.0"),
        ),
        ({"cniVersion": "0.3.1"}, "type", "must name its plugin", "add type"),
        ({"cniVersion": "0.3.1", "type": "/opt/cni/bin/bridge"}, "type", "must name its plugin", "add type"),
        ({"cniVersion": "0.3.1", "plugins": []}, "plugins", "must be a list", "plugins: ["),
        ({"cniVersion": "0.3.1", "plugins": [1]}, "plugins", "must be a list", "plugins: ["),
        ({"cniVersion": "0.3.1", "type": "bridge", "name": "a b"}, "name", "not the name", "leave it out"),
        ({"cniVersion": "0.3.1", "type": "bridge", "name": 1}, "name", "not the name", "leave it out"),
    ],
)
def test_a_bad_configuration(config: dict[str, Any], key: str, problem: str, fix: str) -> None:
    (found,) = problems(config)
    assert found.key == key
    assert problem in found.problem
    assert fix in found.fix


def test_the_versions_of_a_plugin() -> None:
    assert supported_versions("firewall") == ("0.4.0", "1.0.0", "1.1.0")
    assert supported_versions("calico")[-1] == "1.0.0"
    assert supported_versions("of my own") == ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

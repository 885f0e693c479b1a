"""The table of modes agrees with the names of Calico's encapsulations, and a lab reads it."""

from __future__ import annotations

from typing import get_args

import pytest

from components.spec.models import Pool
from components.spec.modes import IPIP, MODES, TUNNELS, VXLAN, WIREGUARD, Encapsulation, Mode
from tests.spec.test_addresses import with_pools


@pytest.mark.parametrize(
    ("encapsulations", "names", "plain"),
    [
        (["None"], [], True),
        (["IPIP"], ["IPIP"], False),
        (["IPIPCrossSubnet"], ["IPIP"], True),
        (["VXLAN"], ["VXLAN"], False),
        (["VXLANCrossSubnet"], ["VXLAN"], True),
        (["IPIP", "VXLAN"], ["VXLAN", "IPIP"], False),
    ],
)
def test_the_tunnels_of_a_lab(encapsulations: list[str], names: list[str], plain: bool) -> None:
    lab = with_pools(*encapsulations)
    assert [tunnel.name for tunnel in lab.tunnels] == names
    assert lab.sends_plain is plain
    assert [tunnel.name for tunnel in with_pools(*encapsulations, wireguard=True).tunnels] == [*names, "WireGuard"]


def test_every_encapsulation_has_a_mode() -> None:
    assert set(MODES) == set(get_args(Encapsulation))


@pytest.mark.parametrize(("word", "mode"), MODES.items())
def test_a_mode_agrees_with_its_name(word: str, mode: Mode) -> None:
    """Calico's names say which tunnel is used and when. BIRD routes all but VXLAN (Felix, vxlan_mgr.go)."""
    assert Pool.model_validate({"name": "p", "cidr": "10.0.0.0/16", "encapsulation": word}).mode is mode
    assert (mode.tunnel.name if mode.tunnel else "None") == word.removesuffix("CrossSubnet")
    assert mode.across_subnets_only is word.endswith("CrossSubnet")
    assert mode.routes_by == ("Felix" if word.startswith("VXLAN") else "BIRD")
    always = "CrossSubnet" if word.endswith("CrossSubnet") else "Always"
    assert mode.ipip_mode == (always if word.startswith("IPIP") else "Never")
    assert mode.vxlan_mode == (always if word.startswith("VXLAN") else "Never")
    assert mode.tunnel_between(same_subnet=False) is mode.tunnel
    assert mode.tunnel_between(same_subnet=True) is (None if word.endswith("CrossSubnet") else mode.tunnel)


def test_every_fact_about_a_tunnel_is_unique() -> None:
    assert [tunnel.packet for tunnel in (VXLAN, IPIP, WIREGUARD)] == ["udp 4789", "4", "udp 51820"]
    for fact in ("name", "device", "kind", "annotation", "packet"):
        assert len({getattr(tunnel, fact) for tunnel in TUNNELS}) == len(TUNNELS)

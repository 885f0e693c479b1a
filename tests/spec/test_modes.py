"""The table of modes against Calico's own words, and what a lab makes of it."""

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
def test_tunnels_of_a_lab(encapsulations: list[str], names: list[str], plain: bool) -> None:
    lab = with_pools(*encapsulations)
    assert [tunnel.name for tunnel in lab.tunnels] == names
    assert lab.sends_plain is plain
    assert [tunnel.name for tunnel in with_pools(*encapsulations, wireguard=True).tunnels] == [*names, "WireGuard"]


def test_every_word_has_a_mode() -> None:
    assert set(MODES) == set(get_args(Encapsulation))


@pytest.mark.parametrize(("word", "mode"), MODES.items())
def test_a_mode_agrees_with_its_word(word: str, mode: Mode) -> None:
    """Calico's words name their tunnel and when it is used; BIRD routes all but VXLAN (Felix, vxlan_mgr.go)."""
    assert Pool.model_validate({"name": "p", "cidr": "10.0.0.0/16", "encapsulation": word}).mode is mode
    assert (mode.tunnel.name if mode.tunnel else "None") == word.removesuffix("CrossSubnet")
    assert mode.across_subnets_only is word.endswith("CrossSubnet")
    assert mode.routes_by == ("Felix" if word.startswith("VXLAN") else "BIRD")
    always = "CrossSubnet" if word.endswith("CrossSubnet") else "Always"
    assert mode.ipip_mode == (always if word.startswith("IPIP") else "Never")
    assert mode.vxlan_mode == (always if word.startswith("VXLAN") else "Never")
    assert mode.tunnel_between(same_subnet=False) is mode.tunnel
    assert mode.tunnel_between(same_subnet=True) is (None if word.endswith("CrossSubnet") else mode.tunnel)


def test_tunnels_are_told_apart_by_what_travels() -> None:
    assert [tunnel.packet for tunnel in (VXLAN, IPIP, WIREGUARD)] == ["udp 4789", "4", "udp 51820"]
    for fact in ("name", "device", "kind", "annotation", "packet"):
        assert len({getattr(tunnel, fact) for tunnel in TUNNELS}) == len(TUNNELS)

"""iproute2's output, recorded on a node of a live lab: its JSON and its text must say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.verify import iproute
from components.verify.iproute import Table, Unreadable

DATA = Path(__file__).parent / "data"
RECORDED = sorted(DATA.glob("iproute2-*"))
PARSERS: dict[str, Callable[[str], Table]] = {
    "addr": iproute.links,
    "route": iproute.routes,
    "neigh": iproute.neighbours,
    "fdb": iproute.fdb,
}
each = pytest.mark.parametrize("command", PARSERS)


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: path.name)
def test_a_links_json_and_text_say_the_same(folder: Path) -> None:
    as_json = iproute.links((folder / "addr.json").read_text())
    assert as_json == iproute.links((folder / "addr.txt").read_text())
    assert {"lo", "eth0", "vxlan.calico", "cni5"} <= as_json.keys()


@each
def test_versions_say_the_same_of_one_node(command: str) -> None:
    """4.20, 5.15 and 7.1 were run on one node at one time."""
    one, *others = ["iproute2-4.20", "iproute2-5.15", "iproute2-7.1"]
    tables = [PARSERS[command]((DATA / folder / f"{command}.txt").read_text()) for folder in (one, *others)]
    tables = [_steady(table) for table in tables]
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) > 1


def _steady(table: Table) -> dict[str, list[dict[str, str]]]:
    """Without what changed between two commands: whether an ordinary neighbour was heard of lately."""
    return {
        key: [dict(seen.fields) for seen in entries]
        for key, entries in table.items()
        if not any(seen.fields.get("state") in ("REACHABLE", "STALE", "DELAY") for seen in entries)
    }


def test_broken_json_of_old_versions_is_not_asked_for() -> None:
    """iproute2 4.20 prints {"blackhole","dst":…}: why routes are read as text."""
    with pytest.raises(ValueError):
        json.loads((DATA / "iproute2-4.20" / "route.json").read_text())


def test_a_routes_fields() -> None:
    found = iproute.routes(
        "10.244.93.0/24 via 10.244.93.0 dev vxlan.calico onlink mtu 8951\n"
        "blackhole 10.244.97.0/24 proto 80\n"
        "10.48.0.0/26 via 10.0.1.30 dev ens5 proto 12\n"
        "default via 10.0.2.1 dev eth0 proto dhcp src 10.0.2.200 metric 100\n"
        "default via 10.1.128.1 dev net1 metric 50\n"
    )
    assert found["10.244.93.0/24"][0].fields == {
        "via": "10.244.93.0",
        "dev": "vxlan.calico",
        "onlink": "yes",
        "mtu": "8951",
    }
    assert found["10.244.97.0/24"][0].fields == {"type": "blackhole", "proto": "80"}
    assert found["10.48.0.0/26"][0].fields["proto"] == "bird", "a host without rt_protos prints BIRD's number"
    assert [seen.fields["metric"] for seen in found["default"]] == ["100", "50"]


def test_a_vxlan_of_json_and_text() -> None:
    vxlan = iproute.links((DATA / "iproute2-6.1" / "addr.txt").read_text())["vxlan.calico"][0].fields
    assert vxlan == {
        "index": "3",
        "kind": "vxlan",
        "mtu": "8951",
        "address": "66:55:b7:b7:f8:dc",
        "up": "yes",
        "addresses": "10.244.97.0/32",
        "id": "4096",
        "local": "10.0.2.200",
        "dev": "eth0",
        "port": "4789",
        "learning": "off",
    }


def test_unknown_fields_are_passed_over() -> None:
    plain = "10.0.0.0/8 via 169.254.1.1 dev eth0"
    assert (
        iproute.routes(plain)["10.0.0.0/8"][0].fields
        == iproute.routes(f"{plain} nhid 7 pref medium")["10.0.0.0/8"][0].fields
    )
    link = {"ifname": "lo", "ifindex": 1, "mtu": 65536, "flags": ["UP"]}
    assert iproute.links(json.dumps([link])) == iproute.links(json.dumps([link | {"new": {"a": [1]}}]))
    assert iproute.links("[{},{}]") == {}


@each
@pytest.mark.parametrize("garbage", ["[{", "Segmentation fault", "\x00\x01"])
def test_garbage_is_named(command: str, garbage: str) -> None:
    with pytest.raises(Unreadable) as caught:
        PARSERS[command](garbage)
    assert repr(garbage)[1:5] in str(caught.value)


@given(
    st.sampled_from(sorted(PARSERS)), st.text() | st.lists(st.dictionaries(st.text(), st.integers())).map(json.dumps)
)
def test_whatever_comes_is_read_or_named(command: str, output: str) -> None:
    try:
        PARSERS[command](output)
    except ValueError as error:
        assert str(error)

"""iproute2's output, recorded on a node of a live lab with several versions: they must all be read alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.verify.model import Table
from components.verify.read import iproute
from components.verify.read.iproute import Unreadable

DATA = Path(__file__).parent / "data"
RECORDED = sorted(DATA.glob("iproute2-*"))
PARSERS: dict[str, Callable[[str], Table]] = {
    "addr.json": iproute.links,
    "route.txt": iproute.routes,
    "neigh.txt": iproute.neighbours,
    "fdb.txt": iproute.fdb,
}
each = pytest.mark.parametrize("recorded", PARSERS)


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: path.name)
def test_the_links_of_a_node(folder: Path) -> None:
    assert {"lo", "eth0", "vxlan.calico", "cni5"} <= iproute.links((folder / "addr.json").read_text()).keys()


@each
def test_all_versions_read_alike_on_one_node(recorded: str) -> None:
    """4.20, 5.15 and 7.1 were run on one node at one time."""
    versions = ["iproute2-4.20", "iproute2-5.15", "iproute2-7.1"]
    tables = [steady(PARSERS[recorded]((DATA / version / recorded).read_text())) for version in versions]
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) > 1


def steady(table: Table) -> dict[str, list[dict[str, str]]]:
    """Without what changes from one command to the next: ordinary neighbours, which become stale."""
    return {
        key: [dict(entry.fields) for entry in entries]
        for key, entries in table.items()
        if not any(entry.fields.get("state") in ("REACHABLE", "STALE", "DELAY") for entry in entries)
    }


def test_old_versions_print_broken_json_of_routes() -> None:
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
    assert [entry.fields["metric"] for entry in found["default"]] == ["100", "50"]


def test_the_fields_of_a_vxlan() -> None:
    vxlan = iproute.links((DATA / "iproute2-6.1" / "addr.json").read_text())["vxlan.calico"][0].fields
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
        "qdisc": "noqueue",
    }


def test_unknown_fields_are_ignored() -> None:
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
def test_garbage_is_named(recorded: str, garbage: str) -> None:
    with pytest.raises(Unreadable) as caught:
        PARSERS[recorded](garbage)
    assert repr(garbage)[1:5] in str(caught.value)


@given(
    st.sampled_from(sorted(PARSERS)), st.text() | st.lists(st.dictionaries(st.text(), st.integers())).map(json.dumps)
)
def test_any_output_is_read_or_named(recorded: str, output: str) -> None:
    try:
        PARSERS[recorded](output)
    except ValueError as error:
        assert str(error)

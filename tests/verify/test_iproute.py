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

RECORDED = sorted((Path(__file__).parent / "data").glob("iproute2-*"))
PARSERS: dict[str, Callable[[str], Table]] = {
    "addr": iproute.links,
    "route": iproute.routes,
    "neigh": iproute.neighbours,
    "fdb": iproute.fdb,
}
each = pytest.mark.parametrize("command", PARSERS)


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: path.name)
@each
def test_json_and_text_say_the_same(folder: Path, command: str) -> None:
    parse = PARSERS[command]
    as_json = parse((folder / f"{command}.json").read_text())
    as_text = parse((folder / f"{command}.txt").read_text())
    assert as_json == as_text
    assert len(as_json) > 3


@pytest.mark.parametrize("folder", RECORDED, ids=lambda path: path.name)
@pytest.mark.parametrize("command", ["route", "neigh", "fdb"])
def test_the_line_of_json_is_the_line_a_person_sees(folder: Path, command: str) -> None:
    table = PARSERS[command]((folder / f"{command}.json").read_text())
    lines = [line.split() for line in (folder / f"{command}.txt").read_text().splitlines()]
    assert sorted(seen.line.split() for entries in table.values() for seen in entries) == sorted(lines)


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
    vxlan = iproute.links((RECORDED[0] / "addr.txt").read_text())["vxlan.calico"][0].fields
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
    plain = {"dst": "10.0.0.0/8", "gateway": "169.254.1.1", "dev": "eth0", "flags": []}
    later = plain | {"nhid": 7, "pref": "medium", "uid": {"a": 1}, "metrics": [{"hoplimit": 3}]}
    assert iproute.routes(json.dumps([plain])) == iproute.routes(json.dumps([later]))
    assert iproute.routes("[{},{}]") == {}


@each
@pytest.mark.parametrize("garbage", ["[{", '{"a": 1}', "[1, 2", "Segmentation fault"])
def test_garbage_is_named(command: str, garbage: str) -> None:
    with pytest.raises(Unreadable) as caught:
        PARSERS[command](garbage)
    assert garbage[:4] in str(caught.value)


@given(
    st.sampled_from(sorted(PARSERS)), st.text() | st.lists(st.dictionaries(st.text(), st.integers())).map(json.dumps)
)
def test_whatever_comes_is_read_or_named(command: str, output: str) -> None:
    try:
        PARSERS[command](output)
    except ValueError as error:
        assert str(error)

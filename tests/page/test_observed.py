"""The page of a lab that stands: what was read, and what of it is wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cli.page.command import read_source
from components.verify.model import tunnel_mac
from components.verify.read.reading import LiveLab
from page.document import Page, html
from tests.page.pages import graph_of
from tests.page.test_document import parts
from tests.verify import replica_labs as labs
from tests.verify.replica import Replica, standing


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    with standing(labs.VXLAN) as it:
        yield it


def live_of(replica: Replica) -> LiveLab:
    return LiveLab.of(replica.lab, replica.outputs, None)


def page(live: LiveLab) -> str:
    # Any graph will do: what was read is the matter here.
    return html(Page(read_source("test", live), live.spec, graph_of("cross-node"), Path("no lesson")))


def test_what_was_read_is_shown_as_passed(replica: Replica) -> None:
    text = page(live_of(replica))
    found = parts(text)
    assert "Read from the deployed lab" in text and "nothing was read" not in text
    states = {row[3] for row in found["checks"]}
    assert "passed" in states and "failed" not in states and "foreseen" not in states
    # Nothing outside of a replica answers.
    inside = [walk for walk in found["walks"] if walk["title"] != "Out of the lab"]
    assert {walk["state"] for walk in inside} == {"passed"} and len(inside) > 3
    assert all("ttl=" in walk["ping"] or "connected" in walk["ping"] for walk in inside)
    routes = [line for line, _ in found["things"]["nodes"][0]["routes"]]
    assert any("dev vxlan.calico onlink" in line for line in routes)
    assert not [line for line, _ in found["things"]["nodes"][0]["fdb"] if line.startswith("33:33:")]


def test_a_fault_is_shown_where_it_is(replica: Replica) -> None:
    entry = [tunnel_mac("worker1"), "dev", "vxlan.calico", "dst", "10.0.2.30", "self"]
    assert replica.exec("control1", ["bridge", "fdb", "del", *entry]).returncode == 0
    try:
        text = page(live_of(replica))
    finally:
        assert replica.exec("control1", ["bridge", "fdb", "add", *entry, "permanent"]).returncode == 0
    found = parts(text)
    failed = [row for row in found["checks"] if row[3] == "failed"]
    assert ("forwarding entries", "control1") in {(row[0], row[1]) for row in failed}
    assert all(row[9] and row[10] for row in failed), "each with a cause and a fix"
    marked = re.findall(
        r'class="node full [\w-]+ failed" [^>]*aria-label="Node (\w+), [^"]*, (\d+) expectations? failed"', text
    )
    of_nodes = Counter(row[1] for row in failed)
    assert dict(marked) == {node: str(count) for node, count in of_nodes.items()} and "control1" in of_nodes
    stopped = {walk["title"]: walk["stopped"] for walk in found["walks"] if walk["state"] == "failed"}
    assert "tunnel of control1" in stopped.values()


def test_a_node_that_does_not_answer_is_named(replica: Replica) -> None:
    live = live_of(replica)
    access = {node: way for node, way in live.access.items() if node != "worker2"}
    text = page(replace(live, access=access))
    found = parts(text)
    [node] = [node for node in found["things"]["nodes"] if node["name"] == "worker2"]
    assert "does not name it" in node["problem"] and node["routes"] == []
    assert "could not be read" in text
    assert "unknown" in {row[3] for row in found["checks"] if row[1] == "worker2"}

"""The graph of a plan: waves, chain, tree, and its drawings."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from typing import Any

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.boxes import ROOM_COLOURS, Box, boxes_of, room_colours
from engine.graph import Graph, GraphError, Node
from engine.mermaid import mermaid
from engine.run import run_program
from engine.svg import svg
from tests.engine.lab_program import program

STACK = "urn:pulumi:dev::p::pulumi:pulumi:Stack::p-dev"
SVG = "{http://www.w3.org/2000/svg}"


def resource(name: str, *after: str, **keys: Any) -> dict[str, Any]:
    """A resource of `plan --json` whose URN is its name."""
    defaults = {"type": "t:index:T", "parent": STACK, "custom": True, "inputs": {}, "provider": None}
    return {"urn": name, "name": name, "dependencies": list(after), **defaults, **keys}


def component(name: str, *after: str, **keys: Any) -> dict[str, Any]:
    return resource(name, *after, **{"custom": False, "type": "cnilab:room:Room", **keys})


def names(nodes: list[Node]) -> list[str]:
    return [node.name for node in nodes]


@pytest.fixture(scope="module")
def lab() -> Graph:
    return Graph.of(run_program(program).to_json()["resources"])


# --- waves and chain


def test_waves_and_the_longest_chain() -> None:
    graph = Graph.of(
        [
            {"urn": STACK, "type": "pulumi:pulumi:Stack", "name": "p-dev"},
            resource("a"),
            resource("b", "a"),
            resource("c", "a"),
            resource("d", "c"),
            resource("e", "d", "a", "b"),
            resource("f"),
        ]
    )
    assert {node.name: node.wave for node in graph.custom} == {"a": 1, "b": 2, "c": 2, "d": 3, "e": 4, "f": 1}
    assert names(graph.longest_chain()) == ["a", "c", "d", "e"]
    assert graph.wave_count == 4


def test_of_equally_long_chains_the_one_made_first_is_shown() -> None:
    graph = Graph.of([resource("z"), resource("a"), resource("y", "a", "z"), resource("x", "z")])
    assert names(graph.longest_chain())[-1] == "y"


def test_a_dependency_on_a_component_is_one_on_its_resources() -> None:
    graph = Graph.of(
        [
            component("room"),
            resource("one", parent="room"),
            component("inner", parent="room"),
            resource("two", "one", parent="inner"),
            resource("below-two", parent="two"),
            component("empty"),
            resource("after", "room", "empty"),
            resource("in-room-too", "room", parent="room"),
        ]
    )
    assert set(graph.nodes["after"].waits_for) == {"one", "two", "in-room-too"}
    assert set(graph.nodes["in-room-too"].waits_for) == {"one", "two"}
    assert graph.nodes["after"].wave == 4


def test_resources_wait_for_the_inputs_of_their_component_and_for_their_provider() -> None:
    graph = Graph.of(
        [
            resource("value"),
            component("room", "value"),
            resource("inside", parent="room"),
            resource("provider", "value", type="pulumi:providers:t"),
            resource("served", provider="provider"),
        ]
    )
    assert graph.nodes["inside"].waits_for == ("value",)
    assert (graph.nodes["served"].wave, graph.nodes["room"].wave) == (3, 0)


def test_no_resources() -> None:
    graph = Graph.of([])
    assert graph.longest_chain() == [] and graph.wave_count == 0 and list(graph.tree()) == []
    assert ElementTree.fromstring(svg(graph, "nothing")).tag == f"{SVG}svg"
    assert mermaid(graph) == "flowchart LR\n"


def test_a_cycle_is_named() -> None:
    with pytest.raises(GraphError, match=r"these resources wait for each other: a -> c -> b -> a$"):
        Graph.of([resource("start"), resource("a", "c", "start"), resource("b", "a"), resource("c", "b")])


def test_an_unknown_dependency_is_named() -> None:
    with pytest.raises(GraphError, match="a depends on b, which is not in the graph"):
        Graph.of([resource("a", "b")])


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=30))
def test_waves_are_the_longest_paths(waits: list[list[int]]) -> None:
    edges = {(dependency, index) for index, found in enumerate(waits) for dependency in found if dependency < index}
    graph = Graph.of([resource(str(i), *sorted(str(a) for a, b in edges if b == i)) for i in range(len(waits))])
    reference = networkx.DiGraph(edges)
    reference.add_nodes_from(range(len(waits)))
    assert graph.wave_count == (networkx.dag_longest_path_length(reference) + 1 if waits else 0)
    chain = graph.longest_chain()
    assert [node.wave for node in chain] == list(range(1, graph.wave_count + 1))
    assert all(before.urn in after.waits_for for before, after in pairwise(chain))


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=30))
def test_drawn_edges_are_the_transitive_reduction(waits: list[list[int]]) -> None:
    edges = {(dependency, index) for index, found in enumerate(waits) for dependency in found if dependency < index}
    graph = Graph.of([resource(str(i), *sorted(str(a) for a, b in edges if b == i)) for i in range(len(waits))])
    boxes = boxes_of(graph)
    drawn = {(int(boxes[source].urns[0]), int(box.urns[0])) for box in boxes for source in box.waits_for}
    assert drawn == set(networkx.transitive_reduction(networkx.DiGraph(edges)).edges)


# --- the tree


def test_the_tree_shows_a_step_on_one_line_and_the_work_in_order(lab: Graph) -> None:
    assert [(row.waves, row.label, row.kind) for row in lab.tree()] == [
        ("1-4", "├─ net", "cnilab:network:Network"),
        ("1", "│  ├─ key", "tls:PrivateKey"),
        ("1", "│  ├─ token", "random:RandomPassword"),
        ("2", "│  ├─ prepare-one", "Step on one"),
        ("2", "│  ├─ prepare-two", "Step on two"),
        ("3", "│  ├─ init", "Step on one"),
        ("4", "│  └─ join", "Step on two"),
        ("2", "├─ api", "pulumi:providers:kubernetes"),
        ("4-5", "└─ calico", "cnilab:calico:Calico"),
        ("4", "   ├─ config", "ConfigMap v1"),
        ("4", "   ├─ account", "ServiceAccount v1"),
        ("5", "   └─ installation", "Installation operator.tigera.io/v1"),
    ]


def test_a_step_with_two_commands_is_not_folded() -> None:
    graph = Graph.of(
        [
            component("step", type="cnilab:node:Step", inputs={"node": "n", "phase": "p"}),
            resource("one", parent="step"),
            resource("two", parent="step"),
        ]
    )
    assert [row.node.name for row in graph.tree()] == ["step", "one", "two"]


def test_names_are_shown_without_the_name_of_a_component_around_them() -> None:
    graph = Graph.of(
        [
            component("lab"),
            component("lab-pki", parent="lab"),
            resource("lab-pki-ca", parent="lab-pki"),
            resource("lab-pki", parent="lab-pki", urn="same-name"),
            resource("labour", parent="lab"),
            resource("other", parent="lab-pki"),
        ]
    )
    assert [row.name for row in graph.tree()] == ["lab", "pki", "ca", "pki", "other", "labour"]


def test_a_step_that_does_nothing_when_it_is_created_is_in_no_order() -> None:
    late = {"node": "one", "phase": "drain", "subject": "two", "forChanges": True}
    graph = Graph.of(
        [
            resource("init"),
            component("drain", type="cnilab:node:Step", inputs=late),
            resource("drain-command", "init", parent="drain"),
            component("upgrade", type="cnilab:node:Step", inputs=late | {"phase": "upgrade"}),
            resource("upgrade-command", "drain-command", parent="upgrade"),
            resource("join", "upgrade-command"),
        ]
    )
    assert graph.nodes["join"].waits_for == ("init",) and graph.nodes["join"].wave == 2
    assert names(graph.longest_chain()) == ["init", "join"]
    assert names(list(graph.idle)) == ["drain-command", "upgrade-command"]
    assert [row.node.name for row in graph.tree()] == ["init", "join"]
    assert {urn for box in boxes_of(graph) for urn in box.urns} == {"init", "join"}
    # Its place among the steps of its node is still known.
    assert graph.nodes["drain-command"].wave == 1
    assert graph.title(graph.nodes["drain"]) == "drain two (on one, when changed)"


def test_a_step_about_another_node_names_both() -> None:
    step = component("admit", type="cnilab:node:Step", inputs={"node": "one", "phase": "admit", "subject": "two"})
    graph = Graph.of([step])
    assert graph.title(graph.nodes["admit"]) == "admit two (on one)"


def test_a_room_has_the_same_colour_in_every_picture() -> None:
    some = [component("a", type="cnilab:calico:Calico"), resource("one", parent="a")]
    more = [component("b", type="cnilab:multus:Multus"), resource("two", parent="b"), resource("other", type="x:y:Z")]
    alone, together = (room_colours(boxes_of(Graph.of(found))) for found in (some, [*more, *some]))
    assert alone["calico"] == together["calico"] == ROOM_COLOURS["calico"]
    assert len({together[room] for room in ("calico", "multus", "x")}) == 3


def test_the_longest_chain_of_the_lab(lab: Graph) -> None:
    chain = [lab.title(node) for node in lab.longest_chain()]
    assert chain == ["PrivateKey key", "prepare on one", "init on one", "ConfigMap lab", "Installation default"]


def test_counts_are_sorted(lab: Graph) -> None:
    assert lab.counts()[:3] == [("cnilab:node:Step", 4), ("command:remote:Command", 4), ("ConfigMap v1", 1)]


@pytest.mark.parametrize(
    ("token", "short"),
    [
        ("aws:ec2/vpc:Vpc", "aws:ec2:Vpc"),
        ("tls:index/privateKey:PrivateKey", "tls:PrivateKey"),
        ("cnilab:network:Network", "cnilab:network:Network"),
        ("cnilab:index:Lab", "cnilab:Lab"),
        ("kubernetes:core/v1:ConfigMap", "ConfigMap v1"),
        ("kubernetes:operator.tigera.io/v1:APIServer", "APIServer operator.tigera.io/v1"),
        ("pulumi:providers:aws", "pulumi:providers:aws"),
        ("odd", "odd"),
    ],
)
def test_short_types(token: str, short: str) -> None:
    assert Node("u", token, "n", None, True, {}).short_type == short


# --- drawings


def group_of(graph: Graph, title: str) -> Box:
    return next(box for box in boxes_of(graph) if box.title == title)


def objects(count: int) -> list[dict[str, Any]]:
    room = component("room", type="cnilab:multus:Multus")
    kind = "kubernetes:core/v1:ConfigMap"
    return [
        room,
        *(resource(f"o{i}", type=kind, parent="room", inputs={"metadata": {"name": f"c{i}"}}) for i in range(count)),
    ]


def test_kubernetes_objects_of_one_room_and_wave_share_a_box() -> None:
    graph = Graph.of([*objects(7), resource("after", "o0", "o3")])
    box = group_of(graph, "7 × ConfigMap v1")
    assert box.lines == (*(f"ConfigMap c{i}" for i in range(5)), "and 2 more")
    assert (box.room, box.wave, len(box.urns)) == ("multus", 1, 7)
    assert len(boxes_of(graph)) == 2


def test_two_objects_keep_their_own_boxes() -> None:
    assert [box.title for box in boxes_of(Graph.of(objects(2)))] == ["o0", "o1"]


def test_in_a_large_graph_similar_resources_share_a_box() -> None:
    def step(i: int) -> list[dict[str, Any]]:
        face = {"node": f"n{i}", "phase": "join"}
        return [
            component(f"s{i}", type="cnilab:node:Step", parent="room", inputs=face),
            resource(f"c{i}", parent=f"s{i}", type="command:remote:Command"),
        ]

    graph = Graph.of([component("room"), *(r for i in range(200) for r in step(i))])
    (box,) = boxes_of(graph)
    assert box.title == "200 × join" and box.lines[:2] == ("join on n0", "join on n1") and box.room == "room"


def test_svg_is_well_formed_and_boxes_do_not_overlap(lab: Graph) -> None:
    root = ElementTree.fromstring(svg(lab, "a <lab> & more"))
    assert root.findtext(f"{SVG}title") == "a <lab> & more"
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    places = []
    for group in root.findall(f"{SVG}g"):
        (box,) = group.findall(f"{SVG}rect")
        x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        places.append((x, y, w, h))
        for line in group.findall(f"{SVG}text"):
            assert x < float(line.attrib["x"]) and y < float(line.attrib["y"]) <= y + h
    assert len(places) == len(boxes_of(lab))
    for index, (x, y, w, h) in enumerate(places):
        for x2, y2, w2, h2 in places[index + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    # Two more are in the legend.
    edges = [edge for edge in root.findall(f"{SVG}path") if "marker-end" in edge.attrib]
    assert len(edges) == sum(len(box.waits_for) for box in boxes_of(lab))
    assert sum(edge.attrib["stroke-width"] == "1.8" for edge in edges) == lab.wave_count - 1


def test_drawings_are_reproducible(lab: Graph) -> None:
    again = Graph.of(run_program(program).to_json()["resources"])
    assert svg(lab, "t") == svg(again, "t") and mermaid(lab) == mermaid(again)


def test_mermaid_has_each_box_once_and_the_reduced_edges(lab: Graph) -> None:
    text = mermaid(lab)
    assert len(re.findall(r"^    n\d+\[", text, re.MULTILINE)) == len(boxes_of(lab))
    assert len(re.findall(r"^  n\d+ [-=]+> n\d+$", text, re.MULTILINE)) == sum(len(b.waits_for) for b in boxes_of(lab))
    assert len(re.findall(r"^  n\d+ ==> ", text, re.MULTILINE)) == lab.wave_count - 1
    assert "legend_c[" in text
    assert 'subgraph room_calico["calico"]' in text
    assert '["prepare on one<br/>prepare-one<br/>wave 2"]' in text


def test_names_cannot_break_the_drawings() -> None:
    graph = Graph.of([resource('a"]<script>&x', type="we-ird.pkg:index:T")])
    assert '["a#quot;]#lt;script>#amp;x<br/>' in mermaid(graph)
    assert "subgraph room_we_ird_pkg[" in mermaid(graph)
    assert "<script>" not in svg(graph, "t")
    ElementTree.fromstring(svg(graph, "t"))

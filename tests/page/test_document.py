"""The page as a file: complete, the same each time, without secrets, and small."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from components.spec.models import Lab
from components.verify.model import Entry, Topic
from page.document import MARKER, html, unpacked
from page.foreseen.lab import foresee
from page.picture.topology import bands
from tests.page.pages import HUNDRED_NODES, hundred_nodes, planned, planned_html
from tests.support.cli import lab as run
from tests.support.graphs import STACKS
from tests.verify import replica_labs as labs

_DATA = re.compile(r'<script type="application/octet-stream" id="data-(\w+)">([^<]*)</script>')


def parts(text: str) -> dict[str, Any]:
    """What the scripts of a page read."""
    return {name: unpacked(packed) for name, packed in _DATA.findall(text)}


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("stack", STACKS)
def test_no_request_leaves_the_page(stack: str) -> None:
    for tag, attributes in Elements(planned_html(stack)).found:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "audio", "video") or (
            tag == "form" and "action" not in attributes
        )
        assert not {"src", "srcset", "style", "background", "poster", "ping"} & attributes.keys(), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        target = attributes.get("href") or ""
        assert not target or target.startswith("#") or (tag == "a" and target.startswith("https://")), (tag, attributes)
    assert not re.search(r"url\((?!#)|@import", planned_html(stack))


@pytest.mark.parametrize("stack", STACKS)
def test_links_inside_the_page_lead_somewhere(stack: str) -> None:
    elements = Elements(planned_html(stack)).found
    ids = [attributes["id"] for _, attributes in elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        target = attributes.get("href") or ""
        assert not target.startswith("#") or target[1:] in ids, target


def test_the_same_lab_gives_the_same_bytes() -> None:
    assert html(planned("cfos-egress")) == html(planned("cfos-egress"))


@pytest.mark.parametrize("stack", STACKS)
def test_a_shipped_lab_takes_a_few_hundred_kilobytes(stack: str) -> None:
    assert 100_000 < len(planned_html(stack).encode()) < 500_000


@HUNDRED_NODES
@pytest.mark.timeout(600)
def test_a_hundred_nodes_take_less_than_five_megabytes() -> None:
    page, text = hundred_nodes()
    assert len(text.encode()) < 5_000_000
    found = parts(text)
    assert len(found["things"]["nodes"]) == 100
    assert len(found["checks"]) == len(page.source.expectations) > 20_000


SECRETS = re.compile(
    r"BEGIN [A-Z ]*PRIVATE KEY|(?:client-key|client-certificate|certificate-authority)-data[\"': \\]+(?!<)\w.{9}|"
    r"eyJ[A-Za-z0-9_-]{20,}|\b[a-z0-9]{6}\.[a-z0-9]{16}\b"
)


@pytest.mark.parametrize("stack", STACKS)
def test_no_secret_is_in_the_page(stack: str) -> None:
    text = planned_html(stack)
    everything = _DATA.sub("", text) + json.dumps(parts(text))
    # A lesson shows an SSH host key's path and the like; these are what a key, a token or a kubeconfig is made of.
    assert SECRETS.findall(everything) == []


def test_a_secret_in_a_file_of_a_node_is_left_out() -> None:
    page = planned("cross-node")
    live, reading = foresee(page.lab, "cross-node")
    files = next(facts.topics for facts in reading.nodes.values())
    token = "eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.e30.c2lnbmF0dXJl"
    leaky = {
        "name": "net",
        "kubernetes": {"k8s_auth_token": token},
        "plugins": [{"client-key-data": "LS0tLS1CRUdJTg=="}],
    }
    files[Topic.FILE]["/etc/cni/net.d/05-leaky.conf"] = (Entry({}, json.dumps(leaky)),)
    text = html(replace(page, source=replace(page.source, live=live, reading=reading)))
    shown = json.dumps(parts(text)["things"])
    assert "05-leaky.conf" in shown and "k8s_auth_token" in shown
    assert token not in shown and "LS0tLS1CRUdJTg" not in shown


def test_every_walk_and_mode_of_the_lab_is_there() -> None:
    found = parts(planned_html("cfos-egress"))["walks"]
    assert [walk["title"] for walk in found] == [
        "To another node of the same subnet",
        "To a node in another subnet",
        "To a pod on the same node",
        "To a Service",
        "Out of the lab",
        "Out through a firewall pod",
    ]
    assert {walk["state"] for walk in found} == {"foreseen"}
    tunnel = next(hop for hop in found[0]["hops"] if hop["kind"] == "tunnel")
    assert tunnel["packet"]["outerSource"] == "10.0.2.200" and tunnel["packet"]["destinationMac"].startswith("66:")
    assert len(tunnel["checks"]) == 3 and all(check["seen"] for check in tunnel["checks"])
    service = next(hop for hop in found[3]["hops"] if hop["kind"] == "service")
    assert "kube-proxy translates 10.96.0.10:53" in service["sentence"]
    assert found[3]["targetAddress"] == "10.96.0.10" and found[3]["endpoint"].startswith("10.244.")
    masquerade = next(hop for hop in found[4]["hops"] if hop["kind"] == "masquerade")
    assert masquerade["packet"]["source"] == "10.0.1.100"
    modes = planned_html("cross-node")
    for mode in ("None", "IPIP", "VXLAN", "IPIPCrossSubnet", "VXLANCrossSubnet"):
        assert f">{mode}" in modes
    assert "needs calico.bgp: Enabled" in planned_html("cfos-egress")


def test_a_mode_that_the_lab_cannot_have_is_refused_with_the_rules_reason() -> None:
    text = planned_html("cfos-egress")
    refused = text[text.index("that this lab cannot have") :][:600]
    assert "<dt>None</dt>" in refused and "subnet" in refused


@pytest.mark.parametrize(
    ("calico", "words"),
    [
        ({}, ["every node with every node"]),
        ({"routeReflectors": ["worker1"]}, ["every node with worker1"]),
        (
            {"nodeToNodeMesh": False, "peers": [{"name": "tor", "peerIP": "10.0.1.1", "asNumber": 64999}]},
            ["nodes with tor 10.0.1.1 in AS 64999"],
        ),
    ],
    ids=["mesh", "reflector", "peer"],
)
def test_the_drawing_says_who_is_whose_bgp_peer(calico: dict[str, Any], words: list[str]) -> None:
    document = labs.NONE.model_dump(mode="json", by_alias=True)
    document["calico"] |= {"nodeToNodeMesh": None} | calico
    [band] = [band for band in bands(Lab.model_validate(document), []) if band.kind == "bgp"]
    assert band.words == f"AS 64512: {', '.join(words)}"


def test_a_band_of_a_narrow_drawing_loses_whole_clauses() -> None:
    text = planned_html("cfos-egress")
    words = re.findall(r'class="band-words"[^>]*>([^<]*)<', text)
    assert words == ["vxlan.calico, UDP 4789, VNI 4096: every node to every node", "vxlan.calico, UDP 4789, VNI 4096"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "folder" / "page.html"
    assert run("page", "cross-node", "--plan", "--out", target) == 0
    first = target.read_text(encoding="utf-8")
    assert MARKER in first.splitlines()[1] and "made from the plan" in capsys.readouterr().out
    assert run("page", "cross-node", "--plan", "--out", target) == 0
    assert target.read_text(encoding="utf-8") == first
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]


def test_a_file_that_is_no_page_is_not_overwritten(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "notes.html"
    target.write_text("mine")
    assert run("page", "cross-node", "--plan", "--out", target) == 2
    assert run("page", "cross-node", "--plan", "--out", tmp_path) == 2
    assert target.read_text() == "mine" and "name another one" in capsys.readouterr().err


def test_two_sources_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("page", "cross-node", "--plan", "--sandbox") == 2
    assert "exclude each other" in capsys.readouterr().err

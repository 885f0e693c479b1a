"""What passes, what fails and what is not known; and the same as JUnit and JSON."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from ipaddress import IPv4Address

import pytest

from components.verify.expectations import Expectation, OneOf, Value, Within
from components.verify.facts import NodeFacts, Scope, node_facts
from components.verify.iproute import Seen
from components.verify.report import Result, compare, count, judge, junit


def expectation(expected: dict[str, Value] | None, **where: str) -> Expectation:
    words = {"topic": "route", "key": "10.0.0.0/8"} | where
    return Expectation(
        **words,  # type: ignore[arg-type]
        expected=expected,
        sentence="a route",
        command="ip route",
        because="the file",
        cause="a hand",
        mend="do it again",
    )


def seen(**fields: str) -> Seen:
    return Seen(fields, " ".join(fields.values()))


@pytest.mark.parametrize(
    ("expected", "entries", "status", "difference"),
    [
        ({"dev": "eth0"}, [seen(dev="eth0", more="x")], "passed", ""),
        ({"dev": "eth0"}, [seen(dev="eth1")], "failed", "dev is eth1, expected eth0"),
        ({"via": "1.1.1.1"}, [seen(dev="eth1")], "failed", "via is (nothing), expected 1.1.1.1"),
        ({"dev": "eth0"}, [], "failed", "it is not there"),
        ({"dev": "eth0"}, [seen(dev="net1"), seen(dev="eth0")], "passed", ""),
        (None, [], "passed", ""),
        (None, [seen(dev="eth0")], "failed", "there must be none"),
        ({"proto": OneOf(("bird", "80"))}, [seen(proto="80")], "passed", ""),
        ({"proto": OneOf(("bird", "80"))}, [seen(proto="boot")], "failed", "proto is boot, expected bird or 80"),
        ({"ip": Within(IPv4Address("10.0.0.5"), IPv4Address("10.0.0.9"))}, [seen(ip="10.0.0.9")], "passed", ""),
        (
            {"ip": Within(IPv4Address("10.0.0.5"), IPv4Address("10.0.0.9"))},
            [seen(ip="10.0.0.10")],
            "failed",
            "ip is 10.0.0.10, expected 10.0.0.5-10.0.0.9",
        ),
        (
            {"ip": Within(IPv4Address("10.0.0.5"), IPv4Address("10.0.0.9"))},
            [seen(ip="none")],
            "failed",
            "ip is none, expected 10.0.0.5-10.0.0.9",
        ),
    ],
)
def test_a_judgement(expected: dict[str, Value] | None, entries: list[Seen], status: str, difference: str) -> None:
    result = judge(expectation(expected), entries)
    assert (result.status, result.difference) == (status, difference)


def test_what_was_not_read_is_unknown_and_says_why() -> None:
    nodes = {
        "read": NodeFacts(topics={"route": {}, "link": {}}),
        "half": NodeFacts(unread={"route": "ip: command not found"}),
    }
    found = [
        expectation({}, node="read"),
        expectation({}, node="half"),
        expectation({}, node="gone"),
        expectation({}, node="read", pod="cali1"),
        expectation({}),
    ]
    results = compare(found, Scope(unread={"route": "the API does not answer"}), nodes, {"gone": "no answer on 22"})
    assert [(r.status, r.difference) for r in results] == [
        ("failed", "it is not there"),
        ("unknown", "ip: command not found"),
        ("unknown", "no answer on 22"),
        ("failed", "no namespace behind cali1: the pod's sandbox is not there"),
        ("unknown", "the API does not answer"),
    ]
    assert count(results) == {"passed": 0, "failed": 2, "unknown": 3}


def test_junit_has_a_case_for_every_check_and_a_suite_for_every_node() -> None:
    results = [
        Result(expectation({}, node="a"), "passed", "line"),
        Result(expectation({}, node="a", key="<&>"), "failed", "line", "dev is <b>"),
        Result(expectation({}), "unknown", "", "no API"),
    ]
    root = ET.fromstring(junit("lab", results, 1.25))
    suites = {s.get("name"): (s.get("tests"), s.get("failures"), s.get("errors")) for s in root}
    assert suites == {"lab.a": ("2", "1", "0"), "lab.cluster": ("1", "0", "1")}
    failure = root.find(".//failure")
    assert failure is not None and failure.get("message") == "dev is <b>"
    assert "mend: do it again" in (failure.text or "")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "garbage",
        "\x1elinks\n[{",
        "\x1elinks\n[{\n\x1f0\n",
        "\x1elinks\n[1]\n\x1f0\n",
        "\x1eroutes\nx y\n\x1f0\n",
        "\x1e\x1f",
    ],
)
def test_an_answer_that_is_garbage_or_cut_leaves_reasons_and_no_traceback(answer: str) -> None:
    facts = node_facts(answer)
    assert set(facts.unread) >= {"route", "file", "crio"}
    assert all(facts.unread.values())


def test_the_packet_filter_of_a_node() -> None:
    rules = (
        "*filter\n"
        "-A INPUT -p udp -m udp --dport 4789 -m comment --comment x -j DROP\n"
        "-A INPUT -p ipencap -j REJECT --reject-with icmp-port-unreachable\n"
        "-A cali-INPUT -p udp -m multiport --dports 4789 -j DROP\n"
        "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -j DROP\n"
        "-A INPUT -p udp -m udp --dport 4789 -j ACCEPT\n"
    )
    facts = node_facts(f"\x1efilter\n{rules}\n\x1f0\n")
    assert sorted(facts.topics["filter"]) == ["4", "udp 4789"], "Calico's and kube-proxy's own chains are no fault"

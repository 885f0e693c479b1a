"""What passes, fails and is unknown; and the reports of it as JUnit and JSON."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from components.verify.expect import expectations
from components.verify.model import (
    Entry,
    Expectation,
    NodeFacts,
    ObservedLab,
    OneOf,
    Repair,
    Result,
    Scope,
    Topic,
    Value,
    Within,
)
from components.verify.read.api import Objects
from components.verify.read.facts import node_facts, pods
from components.verify.read.reading import Reading
from components.verify.report import compare, count, judge, junit
from tests.verify import replica_labs as labs


def expectation(expected: dict[str, Value] | None, **where: str) -> Expectation:
    return Expectation(
        topic=Topic.ROUTE,
        key=where.pop("key", "10.0.0.0/8"),
        expected=expected,
        sentence="a route",
        command="ip route",
        because="the file",
        cause="a hand",
        advice="do it again",
        **where,  # type: ignore[arg-type]
    )


def seen(**fields: str) -> Entry:
    return Entry(fields, " ".join(fields.values()))


@pytest.mark.parametrize(
    ("expected", "entries", "status", "difference"),
    [
        ({"dev": "eth0"}, [seen(dev="eth0", more="x")], "passed", ""),
        ({"dev": "eth0"}, [seen(dev="eth1")], "failed", "dev is eth1, expected eth0"),
        ({"via": "1.1.1.1"}, [seen(dev="eth1")], "failed", "via is (nothing), expected 1.1.1.1"),
        ({"dev": "eth0"}, [], "failed", "it is not there"),
        (None, [], "passed", ""),
        (None, [seen(dev="eth0")], "failed", "there must be none"),
        ({"received": "yes", "ttl": "62"}, [seen(received="no")], "failed", "no answer came"),
        ({"type": "multus"}, [Entry({}, "(empty)")], "failed", "none of the expected fields is there"),
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
def test_an_expectation_against_the_entries_of_its_key(
    expected: dict[str, Value] | None, entries: list[Entry], status: str, difference: str
) -> None:
    result = judge(expectation(expected), entries)
    assert (result.status, result.difference) == (status, difference)


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (seen(type="blackhole"), "failed"),
        (seen(dev="eth1", metric="10"), "failed"),
        (seen(dev="eth1", metric="200"), "passed"),
    ],
)
def test_a_node_takes_one_of_two_routes_to_a_destination(first: Entry, status: str) -> None:
    entries = [first, seen(dev="eth0", metric="100")]
    assert judge(expectation({"dev": "eth0"}, node="a"), entries).status == status
    # A pod may have one by each of two networks, and both must be there.
    assert judge(expectation({"dev": "eth0"}, node="a", pod="cali1"), entries).status == "passed"


def test_a_packet_filter_without_the_rule_may_have_others() -> None:
    """The command beside it lists all rules, so "(nothing)" would be wrong."""
    absent = expectation(None)
    assert judge(absent, []).seen == "(nothing)"
    assert judge(replace(absent, topic=Topic.FILTER), []).seen == "(no such rule)"


def test_what_was_not_read_is_unknown_and_says_why() -> None:
    nodes = {
        "read": NodeFacts(topics={Topic.ROUTE: {}, Topic.LINK: {}}),
        "half": NodeFacts(unread={Topic.ROUTE: "ip: command not found"}),
    }
    found = [
        expectation({}, node="read"),
        expectation({}, node="half"),
        expectation({}, node="gone"),
        expectation({}, node="read", pod="cali1"),
        expectation({}),
    ]
    cluster = Scope(unread={Topic.ROUTE: "the API does not answer"})
    results = compare(found, Reading(cluster, [], nodes, {"gone": "no answer on 22"}))
    assert [(r.status, r.difference) for r in results] == [
        ("failed", "it is not there"),
        ("unknown", "ip: command not found"),
        ("unknown", "no answer on 22"),
        ("failed", "there is no network namespace behind cali1: the pod's sandbox is gone"),
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
    assert "fix: do it again" in (failure.text or "")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "garbage",
        "\x1elink\n[{",
        "\x1elink\n[{\n\x1f0\n",
        "\x1elink\n[1]\n\x1f0\n",
        "\x1eroute\nx y\n\x1f0\n",
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
        "-A INPUT -p ipv4 -j DROP\n"
        "-A INPUT -p ipip -j DROP\n"
        "-A cali-INPUT -p udp -m multiport --dports 4789 -j DROP\n"
        "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -j DROP\n"
        "-A INPUT -p udp -m udp --dport 4789 -j ACCEPT\n"
    )
    assert dropped(rules) == {"4": 2, "udp 4789": 1}, (
        "Calico's and kube-proxy's own chains do not count, nor does ipip, which is protocol 94"
    )


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("-p udp -m udp --dport 51820", {"udp 51820": 1}),
        ("-p udp -m multiport --dports 53,4700:4800", {"udp 4789": 1}),
        ("-p udp -m udp ! --dport 4789", {}),
        ("! -p ipencap", {}),
        ("-p tcp -m tcp --dport 4789", {}),
        ("-m state --state INVALID", {}),
    ],
)
def test_the_tunnels_that_a_rule_drops(match: str, found: dict[str, int]) -> None:
    assert dropped(f"-A INPUT {match} -j DROP\n") == found


def test_the_tables_that_are_nfts_own() -> None:
    """As nft 1.0.6 prints them. The rules of Calico's nftables data plane and of kube-proxy do not count."""
    rules = """\
table inet fw {
\tchain input {
\t\ttype filter hook input priority 0; policy drop;
\t\tct state 0x2 accept
\t\tudp dport { 4789, 8472 } counter packets 0 bytes 0 drop
\t\tmeta l4proto 4 reject
\t\tip protocol { 4, 41 } drop
\t\tudp dport != 4789 drop
\t\tudp dport 4700-4800 accept comment "not a drop"
\t\tip saddr 10.0.0.0/8 udp dport 51820 log prefix "x" drop comment "udp dport 4789"
\t}
}
table ip calico {
\tchain filter-cali-INPUT {
\t\tudp dport 4789 drop
\t}
}
table ip filter {
\tchain cali-INPUT {
\t\tmeta l4proto 4 counter packets 0 bytes 0 drop
\t}
}
"""
    assert dropped(rules) == {"4": 2, "udp 4789": 1, "udp 51820": 1}
    assert dropped(f"-A INPUT -p ipencap -j DROP\n{rules}")["4"] == 1, "iptables-nft's rules are there twice"


def dropped(rules: str) -> dict[str, int]:
    table = node_facts(f"\x1efilter\n{rules}\n\x1f0\n").topics[Topic.FILTER]
    return {key: len(entries) for key, entries in sorted(table.items())}


def test_addresses_of_host_local_are_file_names_and_not_errors_of_find() -> None:
    base = "/var/lib/cni/networks/net-calico"
    files = f"{base}/10.244.6.150\n{base}/last_reserved_ip.0.0.0\n{base}/10.244.6.151"
    assert node_facts(f"\x1ehost_local\n{files}\n\x1f0\n").host_local == {
        "net-calico": ["10.244.6.150", "10.244.6.151"]
    }
    assert node_facts(f"\x1ehost_local\n{files}\nfind: {base}: Input/output error\n\x1f1\n").host_local == {}


@pytest.mark.parametrize("status", ["null", "7", "[1]", "{", '{"a": 1}', ""])
def test_a_pod_whose_network_status_is_garbage_is_a_pod_without_one(status: str) -> None:
    [pod] = pods(Objects({"pods": ({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": status}}},)}))
    assert pod.networks == {}


def test_commands_in_the_json_name_the_stack() -> None:
    wanted = replace(
        expectation({"dev": "eth0"}), command="./lab addresses STACK", repair=Repair.FILES, advice="./lab up STACK"
    )
    found = judge(wanted, []).to_json("blue")
    assert found["command"] == "./lab addresses blue"
    assert found["fix"] == "`./lab up blue --repair` writes the node's CNI files again; ./lab up blue"


def test_a_block_that_up_has_not_read_is_reported() -> None:
    """Otherwise no delegate's file would be expected, and all would pass."""
    live = ObservedLab.of(labs.EGRESS, {"ip1001100": ["10.244.6.0/24"]}, Scope(), [], {})
    missed = [e.key for e in expectations(live) if e.topic == "affinity" and " of " in e.key]
    assert missed == ["default-ipv4-ippool of ip-10-0-2-200", "default-ipv4-ippool of ip-10-0-2-201"]
    assert not [e for e in expectations(ObservedLab.of(labs.VXLAN, {}, Scope(), [], {})) if e.topic == "affinity"]

"""What NAT rules do to a packet, read from iptables-save and from nft's JSON."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from components.sandbox import proxy
from components.sandbox.services import Port, endpoint, service, sliced
from components.verify.nat.evaluate import outcomes
from components.verify.nat.iptables import add_iptables, ipsets
from components.verify.nat.model import Flow, Ruleset
from components.verify.nat.nft import add_nft

POD, WEB = "10.244.1.9", "10.96.7.7"
CIDR = "10.244.0.0/16"


def iptables(text: str, sets: str = "", own: frozenset[str] = frozenset()) -> Ruleset:
    rules = Ruleset()
    add_iptables(rules, text, ipsets(sets), own)
    return rules


def targets(rules: Ruleset, flow: Flow, hook: str = "prerouting") -> list[str]:
    return sorted(f"{it.kind} {it.target}".strip() for it in outcomes(rules, flow, hook))


def to(address: str, port: int, source: str = POD, protocol: str = "tcp") -> Flow:
    return Flow(protocol, source, address, port, inbound="cali1")


# --- kube-proxy's rules by both tools, as the kernel gives them back --------------------------------------------------

_WEB = service("default", "web", WEB, [Port("", "TCP", 80, 8080)], {"app": "web"})
_NONE = service("default", "none", "10.96.7.8", [Port("", "TCP", 80, 80)], {"app": "none"})
_SLICE = sliced(_WEB, "web-1", [endpoint("10.244.1.1", "a"), endpoint("10.244.2.1", "b"), endpoint(POD, "a")])
PORTS = proxy.service_ports([_WEB, _NONE], [_SLICE])


def loaded(program: str, *lines: str) -> str:
    """What the kernel gives back of rules: an account of its own, with the order and the words of the tool."""
    script = (
        'iptables-restore --noflush <<<"$1" && iptables-save'
        if program == "iptables"
        else 'nft -f - <<<"$1" && nft -j list ruleset'
    )
    if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip(f"{program} is not installed")
    command = ["unshare", "--user", "--map-root-user", "--net", "bash", "-c", script, "-", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["iptables", "nft"])
def rules(request: pytest.FixtureRequest) -> Ruleset:
    if request.param == "iptables":
        return iptables(loaded("iptables", *proxy.iptables_jumps(), *proxy.iptables_rules(PORTS, CIDR)))
    found = Ruleset()
    add_nft(found, loaded("nft", *proxy.nft_rules(PORTS, CIDR, "10.96.0.0/12")), frozenset(), iptables=False)
    return found


def test_a_cluster_ip_leads_to_every_endpoint_and_nowhere_else(rules: Ruleset) -> None:
    wanted = ["dnat 10.244.1.1:8080", f"dnat {POD}:8080", "dnat 10.244.2.1:8080"]
    assert targets(rules, to(WEB, 80)) == sorted(wanted)
    assert targets(rules, to(WEB, 80), "output") == sorted(wanted), "a node's own packets too"
    assert targets(rules, to(WEB, 81)) == ["accept"]
    assert targets(rules, to(WEB, 80, protocol="udp")) == ["accept"]
    assert targets(rules, to("10.244.2.1", 8080)) == ["accept"]
    assert all(it.certain for it in outcomes(rules, to(WEB, 80), "prerouting"))


def test_without_endpoints_a_packet_is_rejected(rules: Ruleset) -> None:
    assert targets(rules, to("10.96.7.8", 80)) == ["accept"]
    assert [it.kind for it in outcomes(rules, to("10.96.7.8", 80), "forward", "filter")] == ["drop"]
    assert [it.kind for it in outcomes(rules, to("10.244.2.1", 80), "forward", "filter")] == ["accept"]


def test_who_is_masqueraded_on_the_way_to_a_service(rules: Ruleset) -> None:
    """A source outside the pod network, and a pod that reaches itself; no other pod."""
    marked = {it.target: it.flow.mark for it in outcomes(rules, to(WEB, 80), "prerouting")}
    assert marked == {"10.244.1.1:8080": 0, "10.244.2.1:8080": 0, f"{POD}:8080": 0x4000}
    assert {it.flow.mark for it in outcomes(rules, to(WEB, 80, "10.0.2.9"), "prerouting")} == {0x4000}
    assert targets(rules, Flow("tcp", POD, POD, 8080, outbound="cali1", mark=0x4000), "postrouting") == ["masquerade"]
    assert targets(rules, Flow("tcp", POD, POD, 8080, outbound="cali1"), "postrouting") == ["accept"]


# --- rules of clusters ------------------------------------------------------------------------------------------------

FELIX = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-POSTROUTING - [0:0]
:cali-POSTROUTING - [0:0]
:cali-fip-snat - [0:0]
:cali-nat-outgoing - [0:0]
-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-fip-snat
-A cali-POSTROUTING -m comment --comment "cali:nYKhEzDlr11Jccal" -j cali-nat-outgoing
-A cali-POSTROUTING -o vxlan.calico -m comment --comment "cali:e9dnSgSVNmIcpVhP" -m addrtype ! --src-type LOCAL \
--limit-iface-out -m addrtype --src-type LOCAL -j MASQUERADE --random-fully
-A cali-nat-outgoing -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src \
-m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE --random-fully
COMMIT
"""
SETS = """\
create cali40masq-ipam-pools hash:net family inet hashsize 1024 maxelem 1048576
add cali40masq-ipam-pools 10.244.0.0/17
create cali40all-ipam-pools hash:net family inet hashsize 1024 maxelem 1048576
add cali40all-ipam-pools 10.244.0.0/17
add cali40all-ipam-pools 10.244.128.0/17
"""


@pytest.mark.parametrize(
    ("source", "destination", "wanted"),
    [
        pytest.param("10.244.0.9", "8.8.8.8", "masquerade", id="out of the pools"),
        pytest.param("10.244.0.9", "10.244.129.1", "accept", id="to another pool"),
        pytest.param("10.244.129.1", "8.8.8.8", "accept", id="of a pool without natOutgoing"),
        pytest.param("10.0.2.200", "8.8.8.8", "accept", id="of a node"),
    ],
)
def test_felix_s_rule_with_its_sets(source: str, destination: str, wanted: str) -> None:
    flow = Flow("tcp", source, destination, 443, outbound="eth0")
    assert targets(iptables(FELIX, SETS, frozenset(["10.0.2.200"])), flow, "postrouting") == [wanted]


def test_a_set_that_could_not_be_read_leaves_both_outcomes() -> None:
    found = outcomes(iptables(FELIX), Flow("tcp", "10.244.0.9", "8.8.8.8", 443, outbound="eth0"), "postrouting")
    assert sorted(it.kind for it in found) == ["accept", "masquerade"]


def test_a_condition_that_is_not_understood_is_marked() -> None:
    text = (
        "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -m owner --uid-owner 7 -s 10.0.0.1/32 -j MASQUERADE\nCOMMIT\n"
    )
    found = outcomes(iptables(text), Flow("tcp", "10.0.0.1", "8.8.8.8", 1), "postrouting")
    assert sorted((it.kind, it.certain) for it in found) == [("accept", True), ("masquerade", False)]
    assert targets(iptables(text), Flow("tcp", "10.0.0.2", "8.8.8.8", 1), "postrouting") == ["accept"]


def test_the_tables_of_iptables_are_not_read_twice() -> None:
    listed = {"nftables": [{"table": {"family": "ip", "name": "nat"}}, {"chain": {"family": "ip", "table": "nat"}}]}
    listed["nftables"][1]["chain"] |= {"name": "POSTROUTING", "type": "nat", "hook": "postrouting", "prio": "100"}
    for known, bases in ((True, 0), (False, 1)):
        rules = Ruleset()
        add_nft(rules, json.dumps(listed), frozenset(), iptables=known)
        assert len(rules.bases) == bases


def test_a_loop_ends() -> None:
    text = "*nat\n:POSTROUTING ACCEPT [0:0]\n:a - [0:0]\n-A POSTROUTING -j a\n-A a -j a\nCOMMIT\n"
    assert targets(iptables(text), Flow("tcp", "10.0.0.1", "8.8.8.8", 1), "postrouting") == ["accept"]


def test_a_quoted_word_of_iptables_save_is_one_word() -> None:
    comment = r'"a \"b\" \\ -j DROP"'
    rule = f"-A POSTROUTING -m comment --comment {comment} ! -d 10.0.0.0/8 -j MASQUERADE"
    text = f"*nat\n:POSTROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n"
    assert targets(iptables(text), Flow("tcp", "10.0.0.1", "8.8.8.8", 1), "postrouting") == ["masquerade"]
    assert targets(iptables(text), Flow("tcp", "10.0.0.1", "10.0.0.2", 1), "postrouting") == ["accept"]

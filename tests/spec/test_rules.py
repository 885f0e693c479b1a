"""The rules as a whole: all are listed, a bad file breaks each, and the functions that they share."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.spec import rules, translate
from components.spec.findings import SpecError, nearest, shown
from components.spec.keypath import value_at
from components.spec.load import parse_lab
from components.spec.rules import (
    addresses,
    attachments,
    calico,
    cluster,
    machines,
    multus,
    networks,
    placement,
    workloads,
)
from components.spec.rules.core import Rule, listed, overlaps
from components.spec.rules.machines import host_key_problem
from components.spec.schema import stack_file_schema
from tests.spec.test_bad_files import BAD, name_of, refusal
from tests.spec.test_boundaries import LIMITS
from tests.strategies import host_key
from tests.support.examples import examples

MODULES = (machines, addresses, cluster, calico, multus, networks, placement, workloads, attachments)


def test_every_rule_is_listed() -> None:
    for module in MODULES:
        written = [value for value in vars(module).values() if isinstance(value, Rule)]
        assert list(module.RULES) == written
    assert [rule for module in MODULES for rule in module.RULES] == list(rules.RULES)


def test_every_rule_is_broken_by_a_bad_file() -> None:
    checks = [*(rule.check for rule in rules.RULES), *(check for check, _ in rules.CONFIG_RULES)]
    broken: set[str] = set().union(*(refusal(path).broken for path in BAD))
    assert broken == {name_of(check) for check in checks}


def properties() -> dict[str, set[str]]:
    """The keys of every definition in the schema."""
    return {name: set(body.get("properties", ())) for name, body in stack_file_schema()["$defs"].items()}


def test_rules_read_keys_that_exist() -> None:
    known = set().union(*properties().values())
    for rule in rules.RULES:
        for key in (*rule.reads, *filter(None, [rule.each])):
            for part in key.replace("[]", "").split("."):
                assert part in known, f"{rule.check.__name__} reads {key}"
        assert rule.each is None or any(key.startswith(rule.each) for key in rule.reads)


def test_every_pattern_has_a_description() -> None:
    """A finding describes the form that a value must have and never shows a regular expression."""
    found: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("pattern"), str):
                found.add(value["pattern"])
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    collect(stack_file_schema()["$defs"])
    addresses_of_networks = {pattern for pattern in found if r"25[0-5]" in pattern}
    assert found - addresses_of_networks == set(translate.PATTERNS)


def test_placeholders_are_valid_values() -> None:
    """The models accept a lab with every placeholder at once."""
    with pytest.raises(SpecError) as caught:
        parse_lab(
            {
                "machines": {"provider": "existing", "user": 1},
                "nodes": [{"role": "control-plane", "name": 1, "subnet": 1, "address": 1, "ssh": {"hostKey": 1}}],
                "calico": {"pools": [{"name": 1, "cidr": 1}], "peers": [{"name": 1, "peerIP": 1, "asNumber": 0}]},
                "multus": {"clusterNetwork": 1, "delegates": [{"name": 1, "rangeStart": "a", "rangeEnd": "b"}]},
                "networks": [
                    {"name": 1, "type": "bridge", "subnet": 1, "bridge": 1},
                    {"name": 1, "type": "macvlan", "subnet": 1, "master": 1},
                    {"name": 1, "type": "host-device", "subnet": 1, "device": 1},
                    {"name": 1, "type": "custom", "config": 1},
                    {"name": 1, "type": "nothing"},
                ],
                "workloads": [{"name": 1, "image": 1, "networks": [{"name": 1}]}],
                # A rule finds this, and rules run only after the models accepted the rest.
                "kubernetes": {"version": "1.0.0"},
            }
        )
    keys = [finding.key for finding in caught.value.findings]
    assert len(keys) == len(set(keys))
    assert keys[-1] == "kubernetes.version"
    assert all("." in key for key in keys), keys


# --- shared functions -------------------------------------------------------------------------------------------------


cidrs = st.builds(
    lambda prefix, start: IPv4Network(((start << (32 - prefix)) & 0xFFFFFFFF, prefix)),
    st.integers(4, 12),
    st.integers(0, 4095),
)


@examples(40)
@given(st.lists(cidrs, max_size=12))
def test_overlaps_are_those_of_all_pairs(ranges: list[IPv4Network]) -> None:
    found = list(overlaps([(str(index), cidr) for index, cidr in enumerate(ranges)]))
    assert len({key for key, *_ in found}) == len(found)
    for key, other, cidr, taken in found:
        assert int(other) < int(key)
        assert (cidr, taken) == (ranges[int(key)], ranges[int(other)])
        assert cidr.overlaps(taken)
    pairs = [(i, j) for i, j in combinations(range(len(ranges)), 2) if ranges[i].overlaps(ranges[j])]
    assert {int(key) for key, *_ in found} == {j for _, j in pairs}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("", "none"),
        ("a", "a"),
        ("ab", "a or b"),
        ("abc", "a, b or c"),
        ("abcdefgh", "a, b, c, d, e, f, g or h"),
        ("abcdefghi", "a, b, c, d, e, f, g, h or …"),
    ],
)
def test_a_list_of_at_most_eight_words(words: str, text: str) -> None:
    assert listed(list(words)) == text


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("nodes[0].subnet", lambda word: {"nodes": [NODE | {"subnet": word}]}),
        ("network.zones", lambda word: {"network": SUBNETS | {"zones": {word: "us-west-2a"}}} | AWS),
        ("calico.routeReflectors[0]", lambda word: {"calico": {"bgp": "Enabled", "routeReflectors": [word]}}),
        ("multus.clusterNetwork", lambda word: {"multus": {"clusterNetwork": word, "delegates": DELEGATES}}),
        (
            "multus.delegates[0].pool",
            lambda word: {
                "calico": {"pools": [{"name": "control", "cidr": "10.244.0.0/16"}]},
                "multus": {"clusterNetwork": "control", "delegates": [DELEGATES[0] | {"pool": word}]},
            },
        ),
    ],
)
def test_a_word_that_is_nearly_right_is_corrected(key: str, keys: Callable[[str], dict[str, Any]]) -> None:
    """Any other word is answered with the words to choose from."""

    def fix(word: str) -> str:
        lab = {"machines": {"provider": "local"}, "network": SUBNETS, "nodes": [NODE]} | keys(word)
        with pytest.raises(SpecError) as caught:
            parse_lab(lab)
        return next(finding.fix for finding in caught.value.findings if finding.key.startswith(key))

    assert fix("contrl") == "did you mean control?"
    assert fix("zzzzzz").startswith("write control")


NODE = {"name": "control", "role": "control-plane", "subnet": "control", "address": "10.0.1.10"}
SUBNETS = {"subnets": {"control": "10.0.1.0/24"}}
AWS = {"machines": {"provider": "aws", "operatorCidrs": ["198.18.0.0/32"]}}
DELEGATES = [{"name": "control", "rangeStart": 50, "rangeEnd": 60}]


def test_the_problems_of_a_host_key() -> None:
    good = host_key(7)
    wire = base64.b64decode(good.split()[1])
    ecdsa = b"ecdsa-sha2-nistp256"
    assert host_key_problem(good) is None
    assert host_key_problem(f"{good} root@host") is None
    assert host_key_problem(f"  {good}\n") is None
    curve = len(ecdsa).to_bytes(4, "big") + ecdsa + bytes(85)
    assert host_key_problem(f"ecdsa-sha2-nistp256 {base64.b64encode(curve).decode()}") is None
    assert host_key_problem(f"{good}\n{good}") == "is more than one line"
    for broken in ("", "ssh-ed25519", "host ssh-ed25519", good.split()[1], f"ssh-rsa {good.split()[1]}"):
        assert "not a public key of type" in str(host_key_problem(broken))
    assert "host name before the key" in str(host_key_problem(f"192.0.2.1 {good}"))
    for cut in (wire[:-1], wire + b"x", wire[:19]):
        assert "as long as" in str(host_key_problem(f"ssh-ed25519 {base64.b64encode(cut).decode()}"))
    assert "base64" in str(host_key_problem(good[:-1]))
    assert "says ssh-ed25519, but the key after it has another type or is cut off" in str(
        host_key_problem("ssh-ed25519 AAAA")
    )


@pytest.mark.parametrize(
    ("word", "words", "meant"),
    [
        ("vxlan", ["IPIP", "VXLAN", "None"], "VXLAN"),
        ("pod_cidr", ["podCidr", "serviceCidr"], "podCidr"),
        ("zebra", ["machines", "network"], None),
        ("", ["a"], None),
        ("x" * 100_000, ["x"], None),
        ("anything", [], None),
    ],
)
def test_the_nearest_word(word: str, words: list[str], meant: str | None) -> None:
    assert nearest(word, words) == meant


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("a b", "a b"),
        ("", "''"),
        (" a", "' a'"),
        ("a\nb", r"'a\nb'"),
        ("\x1b[31m", r"'\x1b[31m'"),
        ([], "[]"),
        (["a"], "[a]"),
        (["a", "b"], "[2 items]"),
        ({"a": 1, "b": 2}, "{a, b}"),
        (1.5, "1.5"),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_a_value_on_one_line(value: object, text: str) -> None:
    assert shown(value) == text


# Things that are right, of every kind that some rule leaves out.
RIGHT: dict[str, list[dict[str, Any]]] = {
    "networks": [
        {"name": "zz-custom", "type": "custom", "config": {"cniVersion": "0.3.1", "type": "ptp"}},
        {"name": "zz-bridge", "type": "bridge", "bridge": "zz1", "subnet": "172.31.251.0/24", "ipMasq": True},
        {"name": "zz-tiny", "type": "bridge", "bridge": "zz2", "subnet": "172.31.252.0/30"},
        {"name": "zz-static", "type": "bridge", "bridge": "zz3", "subnet": "172.31.253.0/24"}
        | {"ipam": {"type": "static", "addresses": ["172.31.253.9/24"]}},
        {"name": "zz-device", "type": "host-device", "device": "zz4", "subnet": "172.31.254.0/24"},
    ],
    "workloads": [
        {"name": "zz-plain", "image": "docker.io/library/busybox", "replicas": 0},
        {"name": "zz-attached", "image": "docker.io/library/busybox", "replicas": 0}
        | {"networks": [{"name": "zz-bridge", "defaultRoute": "172.31.251.1"}, {"name": "zz-custom"}]},
    ],
}


def lab_in(path: Path) -> dict[str, Any]:
    """The lab of a stack file as it is written. Empty if the file is not that far."""
    if path.stem.startswith("file-"):
        return {}
    try:
        # In C where it is built: every worker of pytest-xdist reads all of them.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        lab = yaml.load(path.read_text(encoding="utf-8"), loader)["config"]["cni-lab:lab"]
    except (yaml.YAMLError, ValueError):
        return {}
    return lab if isinstance(lab, dict) else {}


def labs_with_lists() -> list[Any]:
    labs = [(path.stem, lab_in(path)) for path in BAD]
    found = [pytest.param(lab, id=name) for name, lab in labs if lab.get("multus") and lab.get("networks")]
    return [*found, *(pytest.param(limit.refused, id=limit.name) for limit in LIMITS if "networks" in limit.refused)]


def finding_keys(lab: dict[str, Any], shift: Mapping[str, int]) -> list[str]:
    """The keys of the findings, with higher indices of some lists."""

    def shifted(key: str) -> str:
        name, number = key.split("[")[0], re.match(r"\w+\[(\d+)", key)
        return key.replace(f"[{number[1]}", f"[{int(number[1]) + shift[name]}", 1) if number and name in shift else key

    try:
        parse_lab(lab)
    except SpecError as error:
        return [shifted(finding.key) for finding in error.findings]
    return []


@pytest.mark.parametrize("lab", labs_with_lists())
def test_what_is_right_hides_no_mistake_after_it(lab: dict[str, Any]) -> None:
    """More networks and workloads at the front of the lists change the indices of findings, and nothing else."""
    more = {name: items + list(lab.get(name, ())) for name, items in RIGHT.items()}
    shift = {name: len(items) for name, items in RIGHT.items()}
    assert sorted(finding_keys(lab | more, {})) == sorted(finding_keys(lab, shift))


def test_a_finding_shows_the_value_at_its_key() -> None:
    """So that nobody corrects the wrong one of two values that are in conflict."""
    compared = 0
    for path in BAD:
        for finding in refusal(path).error.findings:
            parts = re.findall(r"([^.\[\]]+)|\[(\d+)\]", finding.key)
            value = value_at(lab_in(path), tuple(int(index) if index else name for name, index in parts))
            # A secret is never shown, a wrong name of a key is its own value, and yaml reads some words as true.
            hidden = finding.value in ("a password", "a private key") or finding.problem.startswith("this key")
            if isinstance(value, str | int) and not isinstance(value, bool) and not hidden:
                compared += 1
                # An address may stand without the prefix length of one address.
                assert finding.value.removesuffix("/32") == shown(value).removesuffix("/32"), finding
    assert compared > 100


def test_messages_have_one_form() -> None:
    """Problems and fixes are parts of a sentence, so they have no punctuation at their end."""
    for path in BAD:
        for finding in refusal(path).error.findings:
            assert not re.search(r"[.,;:]$", finding.problem), finding
            assert not re.search(r"[,;:]$", finding.fix), finding

"""Which stack files are accepted, what they become, and that all others end in a SpecError."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from components.spec.load import Lab, SpecError, load_stack_file, parse_lab
from tests.strategies import CONFIG, PROVIDERS, labs
from tests.support.examples import examples

_DELEGATE = ("name", "rangeStart", "rangeEnd")
ROOT = Path(__file__).parents[2]
STACKS = sorted((ROOT / "stacks").glob("Pulumi.*.yaml"))


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.name)
def test_a_shipped_stack_is_accepted(path: Path) -> None:
    stack = load_stack_file(path)
    assert path.name == f"Pulumi.{stack.name}.yaml"
    assert stack.path == path
    assert parse_lab(json.loads(stack.config["cni-lab:lab"]), stack.config) == stack.lab


def test_three_lines_are_a_lab(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.mine.yaml"
    path.write_text("config:\n  cni-lab:lab:\n    machines: {provider: local}\n", encoding="utf-8")
    stack = load_stack_file(path)
    assert stack.name == "mine"
    assert [node.name for node in stack.lab.nodes] == ["ip1001100", "ip-10-0-2-200", "ip-10-0-2-201"]


def test_the_configuration_is_flat(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.mine.yaml"
    path.write_text(
        "encryptionsalt: v1:abc=\n"
        "config:\n"
        "  aws:region: us-west-2\n"
        "  aws:secretKey: {secure: v1:abc=}\n"
        "  aws:skipMetadataApiCheck: true\n"
        "  aws:maxRetries: 5\n"
        "  aws:defaultTags: {tags: {a: b}}\n"
        "  cni-lab:lab: {machines: {provider: local}}\n",
        encoding="utf-8",
    )
    assert load_stack_file(path).config == {
        "aws:region": "us-west-2",
        "aws:skipMetadataApiCheck": "true",
        "aws:maxRetries": "5",
        "aws:defaultTags": '{"tags": {"a": "b"}}',
        "cni-lab:lab": '{"machines": {"provider": "local"}}',
    }


@pytest.mark.parametrize("word", ["yes", "on", "No", "1:30", "2026-08-20", "0x1F", "010", "<<"])
def test_words_of_yaml_1_1_are_text(tmp_path: Path, word: str) -> None:
    """Plain words are read by YAML 1.2."""
    path = tmp_path / "Pulumi.mine.yaml"
    path.write_text(f"config:\n  a:b: {word}\n  cni-lab:lab: {{machines: {{provider: local}}}}\n", encoding="utf-8")
    assert load_stack_file(path).config["a:b"] == word


def test_the_region_is_checked_only_with_a_configuration() -> None:
    raw = {"machines": {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]}}
    assert parse_lab(raw) == parse_lab(raw, CONFIG)
    with pytest.raises(SpecError, match="aws:region: missing"):
        parse_lab(raw, {})


def test_a_hundred_nodes_load_fast(tmp_path: Path) -> None:
    """The limit is ten times what it takes, so that only a worse order of growth exceeds it."""
    nodes = [
        {
            "name": f"n{i}",
            "subnet": "workers",
            "address": f"10.0.2.{i + 10}",
            "role": "worker" if i else "control-plane",
        }
        for i in range(100)
    ]
    networks = [
        {"name": f"net{i}", "type": "bridge", "bridge": f"br{i}", "subnet": f"10.1.{i}.0/24"} for i in range(100)
    ]
    multus = {"clusterNetwork": "a", "delegates": [{"name": "a", "rangeStart": 50, "rangeEnd": 100}]}
    lab = {"machines": {"provider": "local"}, "nodes": nodes, "networks": networks, "multus": multus}
    path = tmp_path / "Pulumi.large.yaml"
    path.write_text(yaml.safe_dump({"config": {"cni-lab:lab": lab}}), encoding="utf-8")
    start = time.process_time()
    assert len(load_stack_file(path).lab.nodes) == 100
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("part", "keys"),
    [
        ({"nodes": [4]}, ["nodes[0]"]),
        ({"nodes": 4}, ["nodes"]),
        ({"calico": None}, ["calico"]),
        ({"calico": {"pools": [None]}}, ["calico.pools[0]"]),
        ({"multus": {"delegates": [{}]}}, ["multus.clusterNetwork"] + [f"multus.delegates[0].{k}" for k in _DELEGATE]),
        ({"networks": [{"name": "a", "type": "bridge"}]}, ["networks[0].subnet", "networks[0].bridge"]),
        ({"mirrors": {"images": [{}]}}, ["mirrors.images[0].registry", "mirrors.images[0].mirror"]),
    ],
)
def test_rules_run_beside_broken_values(part: dict[str, Any], keys: list[str]) -> None:
    """A broken part does not hide the findings of the rules on the other parts."""
    raw = {"machines": {"provider": "local"}, "kubernetes": {"serviceCidr": "10.96.0.0/29"}, **part}
    with pytest.raises(SpecError) as caught:
        parse_lab(raw)
    assert [finding.key for finding in caught.value.findings] == [*keys, "kubernetes.serviceCidr"]


# --- generated --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("multus", [True, False], ids=["multus", "calico"])
def test_generated_labs_are_accepted(provider: str, multus: bool) -> None:
    @examples(10)
    @given(labs(provider, multus))
    def accepted(raw: dict[str, Any]) -> None:
        lab = parse_lab(raw, CONFIG)
        assert lab == parse_lab(json.loads(json.dumps(raw)), CONFIG)
        assert Lab.model_validate_json(lab.model_dump_json(by_alias=True)) == lab
        assert lab.machines.provider == provider
        assert (lab.multus is not None) == multus

    accepted()


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value in `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def put(raw: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy with another value at the path, and nowhere else: hypothesis may put one object into a list twice."""
    if not path:
        return value
    found = copy.copy(raw)
    found[path[0]] = put(raw[path[0]], path[1:], value)
    return found


def dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


LONG = "x" * 63
"""The longest name that a subnet may have."""
LONG_SUBNET = {
    "machines": {"provider": "local"},
    "network": {"subnets": {LONG: "10.0.1.0/24"}},
    "nodes": [{"name": "a", "role": "control-plane", "subnet": LONG, "address": "10.0.1.10"}],
}
PATCH = {"target": "kubeletconfiguration", "type": "merge", "patch": {"maxPods": 50}}
SAME_PATCH_TWICE = {"machines": {"provider": "local"}, "kubernetes": {"patches": [PATCH, PATCH]}}


@examples(40)
@given(
    labs().flatmap(
        lambda raw: st.tuples(st.just(raw), st.sampled_from([path for path in places(raw) if "config" not in path]))
    )
)
@example((LONG_SUBNET, ("network", "subnets", LONG)))
@example((SAME_PATCH_TWICE, ("kubernetes", "patches", 0, "target")))
def test_one_broken_value_gives_one_finding(case: tuple[dict[str, Any], tuple[str | int, ...]]) -> None:
    """A value of a type that no key takes gives one finding, at that key, and no finding that only follows from it."""
    raw, path = case
    with pytest.raises(SpecError) as caught:
        parse_lab(put(raw, path, float("nan")), CONFIG)
    assert [finding.key for finding in caught.value.findings] == [dotted(path)], str(caught.value)


LONG_LABEL = f"{'a' * 200}.example.com/{'b' * 64}"


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ({"z" * 500: 1}, "z" * 500),
        ({"calico": {"z" * 200: 1}}, f"calico.{'z' * 200}"),
        ({"network": {"subnets": {"y" * 64: "10.0.1.0/24"}}}, f"network.subnets.{'y' * 64}"),
        ({"network": {"subnets": {LONG: "10.0.1.0/30"}}}, f"network.subnets.{LONG}"),
        ({"nodes": [{"labels": {LONG_LABEL: 1}}]}, f"nodes[0].labels.{LONG_LABEL}"),
        ({"nodes": [{"labels": {"[key]": 1}}]}, "nodes[0].labels.[key]"),
        ({"workloads": [{"nodeSelector": {LONG_LABEL: "a"}}]}, f"workloads[0].nodeSelector.{LONG_LABEL}"),
        ({"networks": [{"type": "custom", "config": {"a" * 99: float("nan")}}]}, f"networks[0].config.{'a' * 99}"),
        (
            {"networks": [{"type": "custom", "config": {"\ud800" + "a" * 99: 1}}]},
            r"networks[0].config.'\ud800" + "a" * 99 + "'",
        ),
        ({"networks": [{"type": "custom", "config": {" a\x1b": 1}}]}, r"networks[0].config.' a\x1b'"),
    ],
)
def test_a_key_is_never_shortened(part: dict[str, Any], key: str) -> None:
    """Programs and tests look findings up by their key. Characters that would spoil the line are escaped."""
    with pytest.raises(SpecError) as caught:
        parse_lab({"machines": {"provider": "local"}, **part})
    found = [finding for finding in caught.value.findings if finding.key == key]
    assert len(found) == 1, str(caught.value)
    assert str(found[0]).isprintable() and len(found[0].value) <= 60


@pytest.mark.parametrize("name", ["p" * 100, "cni-lab:" + "p" * 100])
def test_a_key_beside_the_lab_is_never_shortened(tmp_path: Path, name: str) -> None:
    path = tmp_path / "Pulumi.mine.yaml"
    path.write_text(
        f"{'k' * 100}: 1\nconfig: {{{name}: 1, {name}: 2, 'cni-lab:lab': {{machines: {{provider: local}}}}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(SpecError) as caught:
        load_stack_file(path)
    at = name if ":" in name else f"config.{name}"
    assert {finding.key for finding in caught.value.findings} == {f"config.{name}", "k" * 100, at}


@examples(40)
@given(labs(), st.data())
def test_a_missing_value_gives_at_most_one_finding(raw: dict[str, Any], data: st.DataObject) -> None:
    """Without one of its keys, a lab is still accepted, or the findings say what is missing."""
    path = data.draw(st.sampled_from([p for p in places(raw) if isinstance(p[-1], str) and "config" not in p]))
    inner = reduce(lambda value, part: value[part], path[:-1], raw)
    rest = {key: value for key, value in inner.items() if key != path[-1]}
    try:
        parse_lab(put(raw, path[:-1], rest), CONFIG)
    except SpecError as error:
        assert error.findings
        missing = [finding for finding in error.findings if finding.value == "missing"]
        assert len(missing) <= max(1, len(raw["nodes"]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@examples(40)
@given(json_values)
def test_an_arbitrary_value_is_refused(value: Any) -> None:
    with pytest.raises(SpecError):
        parse_lab(value, CONFIG)


@examples(40)
@given(labs(), st.data(), json_values)
def test_a_mutated_lab_is_accepted_or_refused(raw: dict[str, Any], data: st.DataObject, value: Any) -> None:
    path = data.draw(st.sampled_from(list(places(raw))))
    accepted_or_refused(put(raw, path, value))


@examples(40)
@given(labs(), st.data())
def test_a_lab_with_swapped_values_is_accepted_or_refused(raw: dict[str, Any], data: st.DataObject) -> None:
    """Values of the right type in the wrong place, which the rules must cope with."""
    paths = list(places(raw))
    for _ in range(data.draw(st.integers(1, 5))):
        target, source = data.draw(st.sampled_from(paths)), data.draw(st.sampled_from(paths))
        try:
            inner = raw
            for part in source:
                inner = inner[part]
            raw = put(raw, target, inner)
        except (KeyError, IndexError, TypeError):
            continue
    accepted_or_refused(raw)


def accepted_or_refused(raw: Any) -> None:
    try:
        assert isinstance(parse_lab(raw, CONFIG), Lab)
    except SpecError as error:
        assert error.findings
        for finding in error.findings:
            assert all((finding.key, finding.value, finding.problem, finding.fix))
            assert str(finding).isprintable()


@examples(40)
@given(st.sampled_from(STACKS), st.data())
def test_a_mutated_file_is_accepted_or_refused(
    tmp_path_factory: pytest.TempPathFactory, stack: Path, data: st.DataObject
) -> None:
    text = bytearray(stack.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(text) - 1))
        text[start : start + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\t", b"[", b"}", b"&a ", b"*a", b"!!x ", b"? ", b"- ", b": ", b"\n"])
        )
    path = tmp_path_factory.getbasetemp() / "Pulumi.mutated.yaml"
    path.write_bytes(text)
    try:
        load_stack_file(path)
    except SpecError as error:
        assert error.findings
        assert str(error).startswith("Pulumi.mutated.yaml has ")


def test_the_default_pool_follows_the_pod_range() -> None:
    lab = parse_lab({"machines": {"provider": "local"}, "kubernetes": {"podCidr": "192.168.128.0/22"}})
    [pool] = lab.calico.pools
    assert str(pool.cidr) == "192.168.128.0/22"
    assert pool.block_size == 24
    with pytest.raises(SpecError) as caught:
        parse_lab({"machines": {"provider": "local"}, "kubernetes": {"podCidr": "192.168.128.0/23"}})
    assert [finding.key for finding in caught.value.findings] == ["kubernetes.podCidr"]


def test_every_finding_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.made.yaml"
    path.write_text(
        "config:\n"
        "  aws:region: nowhere\n"
        "  cni-lab:lab:\n"
        "    machines: {provider: aws, operatorCidrs: [0.0.0.0/0]}\n"
        "    nodes:\n"
        "      - {name: a, subnet: control, address: 10.0.1.10}\n"
        "      - name: b\n"
        "        subnet: control\n"
        "        address: 10.0.1.10\n"
        "        labels:\n"
        "          example.com/a.b: c d\n"
        "    kubernetes: {version: 1.30}\n"
        "other: 1\n"
    )
    with pytest.raises(SpecError) as caught:
        load_stack_file(path)
    assert {finding.key: finding.line for finding in caught.value.findings} == {
        "kubernetes.version": 12,
        "aws:region": 2,
        "machines.operatorCidrs[0]": 4,
        "nodes[1].address": 9,
        "nodes[1].labels.example.com/a.b": 11,
        "nodes": 5,
        "other": 13,
    }
    assert "Pulumi.made.yaml:12: kubernetes.version: 1.30 — is not a whole version" in str(caught.value)
    assert "e.g. 1.30.0" in str(caught.value)

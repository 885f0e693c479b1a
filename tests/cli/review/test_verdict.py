"""The verdict's line, what new and removed resources show, and lines for whole nodes."""

from __future__ import annotations

from typing import Any

import pytest

from cli.review.changes import Comparison, compare
from cli.review.verdict import Verdict
from engine.model import UNKNOWN
from tests.cli.review.test_review import lab, plan, resource, step

INSTANCE = "aws:ec2/instance:Instance"


def machine(side: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in side["resources"] if r["urn"].endswith(f"::{name}"))
    return found


def changed(name: str, **inputs: Any) -> Comparison:
    before, after = lab("10.0.0.1"), lab("10.0.0.1")
    machine(after, name)["inputs"] |= inputs
    return compare("s", before, after)


def verdict(found: Comparison) -> Verdict:
    assert found.verdict is not None
    return found.verdict


def test_nothing_happens_to_machines() -> None:
    found = verdict(changed("other"))
    assert str(found).startswith("no machine added, replaced, restarted or removed; control plane untouched")


@pytest.mark.parametrize(("name", "plane"), [("two", "untouched"), ("one", "restarted")])
def test_another_type_is_a_restart_and_no_replacement(name: str, plane: str) -> None:
    found = changed(name, instanceType="t3.xlarge")
    assert {change.action for change in found.changes} == {"changed"}
    assert verdict(found).restarted == (name,) and verdict(found).control_plane == plane
    assert f"1 machine drained, stopped and started again, one after the other ({name})" in str(verdict(found))


def test_a_type_with_another_processor_is_another_machine() -> None:
    before, after = lab("10.0.0.1"), lab("10.0.0.1")
    for side, type_ in ((before, "t3.large"), (after, "t4g.large")):
        machine(side, "two")["inputs"]["instanceType"] = type_
    found = verdict(compare("s", before, after))
    assert found.replaced == ("two",) and found.restarted == ()


@pytest.mark.parametrize(
    ("path", "action"), [("securityGroupId", "replaced"), ("referencedSecurityGroupId", "changed")]
)
def test_an_unknown_input_that_comes_from_elsewhere_is_a_change(path: str, action: str) -> None:
    """Both plans show it as unknown. A rule of a group cannot move to another group, but may be about another one."""
    groups = [resource("aws:ec2/securityGroup:SecurityGroup", name) for name in ("nodes", "planes")]

    def side(group: dict[str, Any]) -> dict[str, Any]:
        kind = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
        fed = {path: [group["urn"]]}
        rule = resource(kind, "ssh", inputs={path: UNKNOWN}, propertyDependencies=fed)
        return plan(*groups, rule, control_planes=())

    found = compare("s", side(groups[0]), side(groups[1]))
    (change,) = found.changes
    assert change.action == action
    assert change.reasons == (f"{path} comes from SecurityGroup planes, and came from SecurityGroup nodes",)
    assert compare("s", side(groups[0]), side(groups[0])).changes == ()


def test_a_larger_disk_touches_no_machine() -> None:
    found = changed("two", rootBlockDevice={"volumeSize": 60})
    assert verdict(found).restarted == verdict(found).replaced == ()


@pytest.mark.parametrize(("name", "plane"), [("two", "untouched"), ("one", "REPLACED")])
def test_another_address_is_another_machine(name: str, plane: str) -> None:
    found = changed(name, privateIp="10.0.0.77")
    assert verdict(found).replaced == (name,) and verdict(found).control_plane == plane
    assert "1 machine replaced" in str(verdict(found))
    assert "runs again" in {change.action for change in found.changes}, "its steps run again on the new machine"


def test_a_node_less_is_drained_first() -> None:
    before = lab("10.0.0.1")
    after = plan(*(r for r in before["resources"] if "two" not in r["urn"]), control_planes=("one",))
    found = verdict(compare("s", before, after))
    assert found.removed == ("two",) and found.control_plane == "untouched"
    assert "1 machine removed, after each is drained (two)" in str(found)
    assert verdict(compare("s", after, before)).added == ("two",)


def test_a_new_machine_shows_the_inputs_that_are_ignored_later() -> None:
    """Its user data are new, although their changes are ignored."""
    new = resource(INSTANCE, "three", inputs={"userData": "#cloud-config three"}, ignoreChanges=["userData"])
    before = lab("10.0.0.1")
    found = compare("s", before, plan(*before["resources"], new, control_planes=("one",)))
    (added,) = [change for change in found.changes if change.action == "added"]
    assert any("#cloud-config three" in line for part in added.parts for line in part.diff)


def test_a_removed_object_shows_what_it_held() -> None:
    held = resource("kubernetes:core/v1:ConfigMap", "held", inputs={"data": {"key": "value"}})
    before = lab("10.0.0.1")
    found = compare("s", plan(*before["resources"], held, control_planes=("one",)), before)
    (removed,) = [change for change in found.changes if change.action == "removed"]
    assert "-  key: value" in [line for part in removed.parts for line in part.diff]


def test_a_price_that_is_missing_is_named() -> None:
    before = lab("10.0.0.1") | {"region": "mars-north-1"}
    assert "cost not known: aws:region: mars-north-1" in str(verdict(compare("s", before, before)))


# --- whole nodes ---


def with_nodes(side: dict[str, Any], *names: str) -> dict[str, Any]:
    nodes = [
        {"name": name, "role": "control-plane" if name == "one" else "worker", "subnet": "a", "address": f"10.0.0.{n}"}
        for n, name in enumerate(names)
    ]
    return side | {"lab": {"nodes": nodes}}


def worker(name: str, address: str, **more: Any) -> list[dict[str, Any]]:
    return [
        resource(INSTANCE, f"m-{name}", inputs={"privateIp": address, "tags": {"Name": name}} | more),
        resource("tls:index/privateKey:PrivateKey", f"m-{name}-host", inputs={"algorithm": "ED25519"}),
    ]


def test_an_added_worker_is_one_line_where_it_is_as_the_others() -> None:
    old = [*worker("w1", "10.0.0.1"), *worker("w10", "10.0.0.2")]
    before = with_nodes(plan(*old, control_planes=()), "one", "w1", "w10")
    after = with_nodes(plan(*old, *worker("w11", "10.0.0.3"), control_planes=()), "one", "w1", "w10", "w11")
    found = compare("s", before, after)
    assert [node.text for node in found.nodes] == ["worker w11 (10.0.0.3): 2 resources, each as w10 has it"]
    assert all(change.folded for change in found.changes) and found.count("added") == 2
    other = with_nodes(
        plan(*old, *worker("w11", "10.0.0.3", instanceType="x"), control_planes=()), "one", "w1", "w10", "w11"
    )
    found = compare("s", before, other)
    assert [node.text for node in found.nodes] == ["worker w11 (10.0.0.3): 2 resources, 1 of them as w10 has them"]
    assert [change.title for change in found.changes if not change.folded] == ["Instance m-w11"]


def test_a_removed_worker_is_one_line() -> None:
    old = [*worker("w1", "10.0.0.1"), *worker("w10", "10.0.0.2")]
    before = with_nodes(plan(*old, control_planes=()), "one", "w1", "w10")
    after = with_nodes(plan(*worker("w10", "10.0.0.2"), control_planes=()), "one", "w10")
    found = compare("s", before, after)
    assert [node.text for node in found.nodes] == ["worker w1 (10.0.0.1): its 2 resources go"]
    assert len(found.changes) == 2 and all(change.folded for change in found.changes)


def test_an_upgrade_names_the_nodes_in_their_order_and_both_versions() -> None:
    def side(version: str) -> dict[str, Any]:
        def upgrading(node: str, phase: str) -> list[dict[str, Any]]:
            return step(
                node, phase, None, variables={"KUBERNETES_VERSION": version}, scripts={"upgrade-kubelet.sh": "#"}
            )

        return plan(step("two", "join", None), upgrading("two", "upgrade"), upgrading("one", "init"),
                    control_planes=("one",))  # fmt: skip

    found = verdict(compare("s", side("1.36.3"), side("1.37.2")))
    assert found.upgraded == ("one", "two") and found.control_plane == "upgraded"
    words = "2 machines drained and upgraded from Kubernetes 1.36.3 to 1.37.2, one after the other (one, two)"
    assert str(found) == f"{words}; control plane upgraded"
    assert verdict(compare("s", side("1.36.3"), side("1.36.3"))).upgraded == ()

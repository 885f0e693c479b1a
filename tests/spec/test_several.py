"""Several items in one lab: a rule looks at each of them, and its finding is about the right ones.

What a rule leaves out, or has a finding about, must not hide what comes after it. Of two networks, neighbours and
ranges, the order in the stack file and the alphabet do not matter.
"""

from __future__ import annotations

from typing import Any

import pytest

from components.spec import versions
from components.spec.findings import Finding
from components.spec.load import parse_lab
from components.spec.rules.core import rule
from components.spec.rules.machines import host_key_problem
from tests.spec.raw_labs import (
    MACVLAN,
    Raw,
    aws,
    bridged,
    custom,
    delegates,
    findings,
    fixed_in,
    nodes,
    on_bridge,
    pool,
    ranged,
    raw,
    routed,
)
from tests.strategies import host_key

IMAGE = "docker.io/library/busybox"


def keys(given: Raw) -> list[str]:
    return [finding.key for finding in findings(given)]


def line(given: Raw, key: str) -> str:
    """What the only finding about a key says."""
    (found,) = (str(finding) for finding in findings(given) if finding.key == key)
    return found


def workloads(*some: Raw, **lab: Any) -> Raw:
    """A lab with these workloads, on its only node."""
    own = [{"name": f"w{n}", "image": IMAGE, "onControlPlane": True} | workload for n, workload in enumerate(some)]
    return lab | {"workloads": own}


# --- the item before it is left out, or has a finding -----------------------------------------------------------------


def two_nodes(**first: Any) -> Raw:
    one, two = nodes(2)
    return raw(nodes=[one | first, two | {"address": "10.0.9.9"}])


SELECTOR = "cni.projectcalico.org/ipv4pools"
NOWHERE = {"nodeSelector": {"rack": "a"}}
STATIC: dict[str, Any] = {"type": "static", "addresses": ["10.40.0.7/24"]}
TWO_OF_ONE = {"replicas": 2, "networks": [{"name": "net"}]}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param(
            two_nodes(subnet="nowhere"),
            ["nodes[0].subnet", "nodes[1].address"],
            id="a node of an unknown subnet, then one outside its own",
        ),
        pytest.param(
            raw(calico={"pools": [pool(f"10.244.{n}.0/24", 22)["pools"][0] | {"name": f"p{n}"} for n in (0, 1)]}),
            ["calico.pools[0].blockSize", "calico.pools[1].blockSize"],
            id="two pools that are smaller than their blocks",
        ),
        pytest.param(
            workloads({"annotations": {SELECTOR: "one"}}, {"annotations": {SELECTOR: "two"}}, **raw()),
            [f"workloads[{n}].annotations.{SELECTOR}" for n in (0, 1)],
            id="two workloads whose annotation is no list",
        ),
        pytest.param(
            workloads({}, {"replicas": 0}, NOWHERE, **raw()),
            ["workloads[2].nodeSelector"],
            id="two workloads that are right, then one that no node accepts",
        ),
        pytest.param(
            workloads(NOWHERE, NOWHERE, **raw()),
            ["workloads[0].nodeSelector", "workloads[1].nodeSelector"],
            id="two workloads that no node accepts",
        ),
        pytest.param(
            workloads(
                {"networks": [{"name": "own"}, {"name": "net", "ips": ["10.41.0.9/24"]}]},
                **on_bridge(custom({}) | {"name": "own"}, bridged()),
            ),
            ["workloads[0].networks[1].ips[0]"],
            id="a custom network, then a fixed address outside its subnet",
        ),
        pytest.param(
            workloads(
                {"networks": [{"name": "tiny"}, {"name": "net", "ips": ["10.41.0.9/24"]}]},
                **on_bridge(bridged("10.42.0.0/31", name="tiny", bridge="br2"), bridged()),
            ),
            ["networks[0].subnet", "workloads[0].networks[1].ips[0]"],
            id="a subnet that is too small, then a fixed address outside its subnet",
        ),
        pytest.param(
            workloads(
                {"networks": [{"name": "none"}, {"name": "net"}], "replicas": 2},
                **on_bridge(bridged(**STATIC)),
            ),
            ["workloads[0].networks[0].name", "workloads[0].networks[1].name"],
            id="an unknown network, then a static address for two pods of a node",
        ),
        pytest.param(
            workloads(
                {"defaultNetwork": "k8s-pod-network"},
                {"defaultNetwork": "d0", "replicas": 3},
                **raw(multus=delegates((10, 11))),
            ),
            ["workloads[1].replicas"],
            id="a workload on Calico's own network, then one with more pods than addresses",
        ),
        pytest.param(
            workloads({}, {"name": "1st", "service": {"port": 80}}, **raw()),
            ["workloads[1].name"],
            id="a workload without a Service, then one whose name no Service may have",
        ),
        pytest.param(
            workloads(
                {"defaultNetwork": "absent", "networks": [{"name": "net", "defaultRoute": "10.40.0.1"}]},
                {"networks": [{"name": "net", "defaultRoute": "10.40.0.1"}]},
                **on_bridge(bridged()),
            ),
            ["workloads[0].defaultNetwork", "workloads[1].networks[0].defaultRoute"],
            id="an unknown default network, then a default route that loses the cluster",
        ),
        pytest.param(
            workloads(
                {"networks": [{"name": "other"}, {"name": "net", "defaultRoute": "10.40.0.1"}]},
                **on_bridge(bridged("10.41.0.0/24", name="other", bridge="br2"), bridged()),
            ),
            ["workloads[0].networks[1].defaultRoute"],
            id="a network without a default route, then one whose loses the cluster",
        ),
    ],
)
def test_nothing_is_hidden_by_the_item_before_it(given: Raw, wanted: list[str]) -> None:
    assert sorted(keys(given)) == wanted


def test_a_default_route_that_leads_back_hides_no_other_that_does_not() -> None:
    """Two default routes are a finding of their own."""
    masked = bridged("10.41.0.0/24", name="other", bridge="br2") | {"ipMasq": True}
    networks = [{"name": "other", "defaultRoute": "10.41.0.1"}, {"name": "net", "defaultRoute": "10.40.0.1"}]
    given = workloads({"networks": networks}, **on_bridge(masked, bridged()))
    lost = [finding for finding in findings(given) if "replaces the default route of eth0" in finding.problem]
    assert [finding.key for finding in lost] == ["workloads[0].networks[1].defaultRoute"]


# --- two of a kind, in either order -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "two"), [("br1", "br2"), ("br2", "br1")])
def test_two_bridges_with_one_subnet(one: str, two: str) -> None:
    """One finding: they share no list of addresses, whatever ranges they hand out."""
    given = on_bridge(bridged(name="a", bridge=one), bridged(name="b", bridge=two))
    assert "on another interface" in line(given, "networks[1].subnet")
    assert keys(given) == ["networks[1].subnet"]


@pytest.mark.parametrize(("one", "two"), [("br1", "br2"), ("br2", "br1")])
def test_two_bridges_with_overlapping_subnets(one: str, two: str) -> None:
    given = on_bridge(bridged(name="a", bridge=one), bridged("10.40.0.0/25", name="b", bridge=two))
    assert "overlaps networks[0].subnet" in line(given, "networks[1].subnet")


@pytest.mark.parametrize(("one", "two"), [("10.40.0.0/24", "10.41.0.0/24"), ("10.41.0.0/24", "10.40.0.0/24")])
def test_one_bridge_with_two_subnets(one: str, two: str) -> None:
    given = on_bridge(bridged(one, name="a"), bridged(two, name="b"))
    assert f"which has the subnet {one}" in line(given, "networks[1].bridge")


@pytest.mark.parametrize("length", [16, 25, 32])
def test_a_static_address_with_another_prefix_length(length: int) -> None:
    given = on_bridge(bridged(type="static", addresses=[f"10.40.0.7/{length}"]))
    assert "has another prefix length" in line(given, "networks[0].ipam.addresses[0]")


@pytest.mark.parametrize("namespace", ["default", "kube-system", "zone"])
def test_a_delegates_name_is_taken_in_its_own_namespace_only(namespace: str) -> None:
    given = raw(multus=delegates((50, 60)), networks=[bridged(name="d0") | {"namespace": namespace}])
    assert keys(given) == (["networks[0].name"] if namespace == "kube-system" else [])


# --- ranges -----------------------------------------------------------------------------------------------------------


RANGES = [
    # The first reaches furthest: the third overlaps it alone, for the second has ended.
    ([(10, 40), (12, 20), (30, 35)], {1: 0, 2: 0}),
    # The second reaches further than the first, and the third overlaps it alone.
    ([(10, 20), (15, 40), (30, 35)], {1: 0, 2: 1}),
    # Two end at the same address: the earlier one is named.
    ([(10, 30), (20, 30), (25, 28)], {1: 0, 2: 0}),
    ([(10, 20), (21, 30), (31, 40)], {}),
]


@pytest.mark.parametrize(("ranges", "overlaps"), RANGES)
def test_delegates_with_a_common_address(ranges: list[tuple[int, int]], overlaps: dict[int, int]) -> None:
    found = findings(raw(multus=delegates(*ranges)))
    assert {f.key: f.problem for f in found} == {
        f"multus.delegates[{later}].rangeStart": f"its range overlaps the range of delegates[{earlier}] in the same "
        "blocks"
        for later, earlier in overlaps.items()
    }


@pytest.mark.parametrize(("ranges", "overlaps"), RANGES)
@pytest.mark.parametrize("last", ["host-local", "whereabouts"])
def test_networks_that_hand_out_a_common_address(
    ranges: list[tuple[int, int]], overlaps: dict[int, int], last: str
) -> None:
    """Also if the last of them is whereabouts', whose list of addresses host-local does not know."""
    networks = [
        ranged(f"n{n}", *ends, ipam=last if n == len(ranges) - 1 else "host-local") for n, ends in enumerate(ranges)
    ]
    assert {f.key: f.problem for f in findings(on_bridge(*networks))} == {
        f"networks[{later}].subnet": f"is the subnet of networks[{earlier}] too, and both hand out the same addresses"
        for later, earlier in overlaps.items()
    }


@pytest.mark.parametrize(
    ("ranges", "wanted"),
    [
        ([(100, 255), (200, 210)], ["[1].rangeStart"]),
        ([(100, 256), (200, 210)], ["[0].rangeEnd"]),
        ([(100, 256), (200, 400), (300, 600)], ["[0].rangeEnd", "[1].rangeEnd", "[2].rangeEnd"]),
    ],
)
def test_a_range_that_ends_behind_its_block_overlaps_nothing(ranges: list[tuple[int, int]], wanted: list[str]) -> None:
    """A /24 has the numbers 0 to 255. The range has one mistake, so it has one finding."""
    assert keys(raw(multus=delegates(*ranges))) == [f"multus.delegates{key}" for key in wanted]


# --- gateways ---------------------------------------------------------------------------------------------------------


def test_only_the_gateway_is_kept_from_pods() -> None:
    """Not the addresses before it either."""
    network = {"type": "host-local", "gateway": "10.40.0.15", "rangeStart": "10.40.0.10"}
    for host, text in ((12, "may also be handed out"), (15, "is the address of the bridge br1 itself")):
        given = fixed_in([f"10.40.0.{host}/24"], bridged(**network))
        assert any(text in finding.problem for finding in findings(given)), host
    # With a gateway of its own a network cannot have fixed addresses, which is a finding about all of them.
    (found,) = findings(fixed_in(["10.40.0.3/24"], bridged(**network)))
    assert found.key == "workloads[0].networks[0].ips"


@pytest.mark.parametrize("route", ["10.40.0.1", "10.40.0.9", "10.40.0.15"])
def test_masquerading_helps_only_by_the_bridges_own_address(route: str) -> None:
    """The bridge has 10.40.0.9, so a reply comes back if packets leave through it."""
    ipam = {"type": "host-local", "gateway": "10.40.0.9", "rangeStart": "10.40.0.20"}
    by_bridge = route == "10.40.0.9"
    plain, masked = (bridged(**ipam) | {"ipMasq": masq} for masq in (False, True))
    key = "workloads[0].networks[0].defaultRoute"
    assert ("ipMasq: true" in line(routed(route, plain, keeps_cluster=False), key)) is by_bridge
    assert keys(routed(route, masked, keeps_cluster=False)) == ([] if by_bridge else [key])


def test_a_default_route_by_a_custom_network_is_not_judged() -> None:
    """Its subnet is not known."""
    given = routed("10.99.0.1", custom({"ips": True}))
    assert keys(given) == []


# --- the machines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "fits"), [(10, True), (11, False)])
@pytest.mark.parametrize("names", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
def test_one_endpoint_for_all_workers_of_a_subnet(names: tuple[str, str, str], workers: int, fits: bool) -> None:
    """A /28 has 16 addresses: AWS keeps five, ten workers have theirs, and the endpoint takes the last one. Nodes of
    the other subnets take none of them."""
    control, tight, wide = names
    subnets = {control: "10.0.1.0/24", tight: "10.0.2.0/28", wide: "10.0.3.0/24"}
    listed = [
        {"name": "control1", "role": "control-plane", "subnet": control, "address": "10.0.1.20"},
        *({"name": f"worker{n}", "subnet": tight, "address": f"10.0.2.{4 + n}"} for n in range(workers)),
        {"name": "elsewhere", "subnet": wide, "address": "10.0.3.20"},
    ]
    given = aws(network={"subnets": subnets}, nodes=listed)
    given["machines"] |= {"workerAccess": "InstanceConnect"}
    assert keys(given) == ([] if fits else [f"network.subnets.{tight}"])


def behind_jump_host(control_planes: int, **more: Any) -> Raw:
    jump = {"address": "198.18.0.9", "user": "root", "hostKey": host_key(9)} | more
    listed = nodes(control_planes + 1, "control-plane")
    listed[-1]["role"] = "worker"
    if not control_planes:
        listed[0]["role"] = "worker"
    listed = [node | {"ssh": {"hostKey": host_key(n)}} for n, node in enumerate(listed)]
    return raw(machines={"provider": "existing", "user": "root", "jumpHost": jump}, nodes=listed)


def test_the_api_behind_a_jump_host() -> None:
    """The first control plane's address is the API's; a proxy leads there."""
    given = behind_jump_host(3)
    assert "connects to the API at 10.0.1.10:6443 itself" in line(given, "machines.jumpHost")
    assert keys(behind_jump_host(3, socksPort=1080)) == []
    assert "machines.jumpHost" not in keys(behind_jump_host(0)), "there is no API"


def test_a_host_key_of_which_a_part_is_wrong() -> None:
    good = host_key(1)
    kind, text = good.split()[:2]
    assert host_key_problem(good) is None
    assert "is not base64" in str(host_key_problem(f"{kind} {text[:9]}!{text[9:]}")), "a decoder may leave it out"
    assert "host name" in str(host_key_problem(f"n1 {good}"))
    # The type twice: what is after it is no key, but neither is there a host name.
    assert "host name" not in str(host_key_problem(f"{kind} {kind} n1"))


def test_a_mirror_that_is_listed_twice_is_named_by_its_registry() -> None:
    twice = {"registry": "quay.io", "mirror": "10.0.1.1:5000/quay"}
    found = line(raw(mirrors={"images": [twice, twice]}), "mirrors.images[1]")
    assert "quay.io" in found and "5000" not in found


# --- what a fix names -------------------------------------------------------------------------------------------------


def test_the_example_of_a_list_of_pools_is_the_last_pool() -> None:
    """Pods get addresses of the first pool without an annotation."""
    pools = [pool(f"10.244.{n}.0/24", 26)["pools"][0] | {"name": name} for n, name in enumerate(("one", "two"))]
    given = workloads({"annotations": {SELECTOR: "one"}}, **raw(calico={"pools": pools}))
    assert 'write e.g. ["two"]' in line(given, f"workloads[0].annotations.{SELECTOR}")


@pytest.mark.parametrize("name", ["ens5", "wlan0"])
def test_the_method_of_an_interface_is_left_out(name: str) -> None:
    assert f"Fix: write {name}" in line(raw(calico={"interface": f"interface={name}"}), "calico.interface")


def test_the_selectors_that_a_node_may_be_given_labels_for() -> None:
    pools = [
        pool(f"10.244.{n}.0/24", 26)["pools"][0] | {"name": f"p{n}", "nodeSelector": text}
        for n, text in enumerate(("!all()", "rack == 'a'"))
    ]
    found = line(raw(calico={"pools": pools}), "nodes[0]")
    assert "(rack == 'a')" in found and "!all()" not in found


def test_a_taint_of_ones_own_beside_that_of_a_control_plane_must_go() -> None:
    """onControlPlane alone would not help."""
    control_plane = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    own = {"key": "mine", "effect": "NoSchedule"}
    for taints, fix in (([control_plane], "set onControlPlane: true"), ([control_plane, own], "remove the taint")):
        only = nodes(1)[0] | {"taints": taints}
        given = workloads({"onControlPlane": False}, **raw(nodes=[only]))
        assert f"Fix: {fix}" in line(given, "workloads[0].onControlPlane")


def test_three_workloads_are_named_and_no_more() -> None:
    attachment = {"networks": [{"name": "net"}]}
    shared = MACVLAN | {"ipam": {"type": "host-local"}}
    given = workloads(*[attachment | {"replicas": 2} for _ in range(4)], **on_bridge(shared, nodes=nodes(3)))
    assert "pods of w0 and w1 and w2 on different nodes" in line(given, "networks[0].ipam")


@pytest.mark.parametrize(("version", "plain"), [("1.036.3", "1.36.3"), ("1.36.00", "1.36.0")])
def test_a_version_without_leading_zeros(version: str, plain: str) -> None:
    assert f"Fix: write {plain}" in line(raw(kubernetes={"version": version}), "kubernetes.version")


def test_checksums_that_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise versions.PinsError("stacks/pins.yaml: is not a mapping")

    monkeypatch.setattr(versions, "calico_sums", broken)
    assert "pins.yaml: is not a mapping" in line(raw(), "calico.version")


# --- rules ------------------------------------------------------------------------------------------------------------


def test_no_rule_judges_a_lab_of_which_nothing_could_be_read() -> None:
    """The empty path is the whole lab."""
    always = rule("calico.bgp")(lambda _: iter([Finding("calico.bgp", "on", "is no word", "write Enabled")]))
    lab = parse_lab(raw())
    assert [len(list(always.findings(lab, paths))) for paths in ([], [("nodes",)], [()])] == [1, 1, 0]

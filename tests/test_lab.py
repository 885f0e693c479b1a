"""The whole graph: properties of every lab, and of each shipped lab."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import networkx
import pytest
import yaml

from tests.support.graphs import COMMAND, ROOT, STACKS, STEP, Graph, connections, differences, run_lab, run_stack


def simulated(stack: str) -> Graph:
    """The graph of an `up` whose providers are made up."""
    return run_stack(stack, dry_run=False)


def source(stack: str) -> dict[str, Any]:
    text = (ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text()
    lab: dict[str, Any] = yaml.safe_load(text)["config"]["cni-lab:lab"]
    return copy.deepcopy(lab)


def check_every_graph(preview: Graph, up: Graph) -> None:
    """Check the properties that every lab must have."""
    resources = preview.deployment.resources
    assert len(preview.by_urn) == len(resources)
    edges = [(r.urn, d) for r in resources for d in r.dependencies]
    assert networkx.is_directed_acyclic_graph(networkx.DiGraph(edges))
    assert {r.urn: (r.dependencies, r.deleted_with, r.provider) for r in resources} == {
        r.urn: (r.dependencies, r.deleted_with, r.provider) for r in up.deployment.resources
    }
    inits = [s for s in preview.of_type(STEP) if s.inputs["phase"] == "init"]
    assert len(inits) == 1
    init = preview.command(inits[0])
    for command in preview.of_type(COMMAND):
        known = up.plain[command.urn]
        assert known["connection"]["hostKey"].startswith(("ssh-ed25519 ", "ecdsa-sha2-")), command.name
        # A step with a delete runs again because its connection changes: see Step.
        assert known["triggers"] or known["delete"]
        assert known["addPreviousOutputInEnv"] is False
        assert (command.inputs.get("create") or command.inputs["update"]).endswith("bash -s"), "scripts travel on stdin"
    for thing in preview.objects():
        if not thing.type.startswith("pulumi:providers"):
            assert thing.deleted_with == init.urn, thing.name
            assert preview.waits(thing, init), thing.name
    for component in (r for r in resources if not r.custom):
        users = [r.name for r in resources if component.urn in r.dependencies]
        assert not users, f"{users} wait for the component {component.name}: depend on a leaf"


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_has_the_properties(stack: str) -> None:
    check_every_graph(run_stack(stack), simulated(stack))


@pytest.mark.parametrize("stack", [s for s in STACKS if s != "components"])
def test_what_runs_on_a_machine_is_deleted_with_it(stack: str) -> None:
    graph = run_stack(stack)
    machines = {r.urn for r in graph.of_type("aws:ec2/instance:Instance") + graph.of_type("command:local:Command")}
    init = graph.command(next(s for s in graph.of_type(STEP) if s.inputs["phase"] == "init"))
    for command in graph.of_type(COMMAND):
        assert command.deleted_with in machines | {init.urn}, command.name


def test_only_existing_hosts_are_reset() -> None:
    graph = run_stack("components")
    undone = {
        s.inputs["node"] for s in graph.of_type(STEP) if "reset.sh" in (graph.command(s).inputs.get("delete") or "")
    }
    assert undone == {"master1", "master2", "master3", "worker1", "worker2"}


@pytest.mark.parametrize("stack", [s for s in STACKS if s != "components"])
def test_no_delete_connects_to_a_machine_that_may_be_lost(stack: str) -> None:
    """Before the engine replaces a machine, it runs the deletes of everything that waits for it."""
    graph = run_stack(stack)
    for step in graph.of_type(STEP):
        if graph.command(step).inputs.get("delete"):
            assert step.inputs["phase"] == "admit", step.name


def texts(value: Any) -> Iterator[str]:
    """Every text in a value of JSON, keys too."""
    match value:
        case str():
            yield value
        case dict():
            for key, inner in value.items():
                yield key
                yield from texts(inner)
        case list() | tuple():
            for inner in value:
                yield from texts(inner)


@pytest.mark.parametrize("stack", STACKS)
def test_a_plan_shows_no_secret(stack: str) -> None:
    """Looks for every secret value of a simulated up in everything that the preview or the up would print."""
    up = simulated(stack)
    shown = "\0".join(texts([[r.inputs for r in up.deployment.resources], up.deployment.outputs]))
    secrets = set()
    for urn, inputs in up.plain.items():
        kind = up.by_urn[urn].type
        if kind.startswith(("tls:", "random:")) or kind == COMMAND:
            connection = inputs.get("connection") or {}
            secrets |= {inputs.get("privateKeyPem"), inputs.get("caPrivateKeyPem"), connection.get("privateKey")}
    secrets -= {None, ""}
    assert secrets
    for secret in secrets:
        assert secret not in shown
        assert json.dumps(secret)[1:-1] not in shown, "nor in JSON that a value holds as text"


@pytest.mark.parametrize("stack", STACKS)
def test_no_id_is_a_secret(stack: str) -> None:
    """Ids are in clear text in state and logs, and these resources' id is the random value itself."""
    telling = {"randomBytes:RandomBytes", "randomString:RandomString", "randomId:RandomId", "randomUuid:RandomUuid"}
    assert not [
        r.name for r in run_stack(stack).deployment.resources if r.type.removeprefix("random:index/") in telling
    ]


def test_resources_of_cfos_egress() -> None:
    graph = run_stack("cfos-egress")
    (vpc,) = graph.of_type("aws:ec2/vpc:Vpc")
    assert vpc.inputs["cidrBlock"] == "10.0.0.0/16"
    assert {s.inputs["cidrBlock"] for s in graph.of_type("aws:ec2/subnet:Subnet")} == {"10.0.1.0/24", "10.0.2.0/24"}
    instances = graph.of_type("aws:ec2/instance:Instance")
    assert {i.inputs["privateIp"] for i in instances} == {"10.0.1.100", "10.0.2.200", "10.0.2.201"}
    for instance in instances:
        assert instance.inputs["sourceDestCheck"] is False
        assert instance.inputs["metadataOptions"]["httpTokens"] == "required"
        assert instance.inputs["metadataOptions"]["httpPutResponseHopLimit"] == 1
        assert instance.inputs["rootBlockDevice"]["encrypted"] is True
        assert "secret" not in str(instance.inputs.get("userData"))
    ingress = graph.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert ingress
    for rule in ingress:
        assert rule.inputs.get("cidrIpv4") not in {"0.0.0.0/0"} and not rule.inputs.get("cidrIpv6"), rule.name

    installation = graph.one("kubernetes:operator.tigera.io/v1:Installation").inputs["spec"]["calicoNetwork"]
    assert (installation["bgp"], installation["containerIPForwarding"]) == ("Disabled", "Enabled")
    (pool,) = installation["ipPools"]
    assert pool["cidr"] == "10.244.0.0/16" and pool["blockSize"] == 24
    assert (pool["encapsulation"], pool["natOutgoing"], pool["nodeSelector"]) == ("VXLAN", "Enabled", "all()")

    nads = {n.inputs["metadata"]["name"]: n.inputs for n in graph.objects("NetworkAttachmentDefinition")}
    assert set(nads) == {"net-calico", "default-calico", "cfosdefaultcni5", "cfosdefaultcni5-fixed"}
    for name in ("net-calico", "default-calico"):
        assert nads[name]["metadata"]["namespace"] == "kube-system" and not nads[name].get("spec", {}).get("config")
    fixed = yaml.safe_load(nads["cfosdefaultcni5-fixed"]["spec"]["config"])
    assert (fixed["bridge"], fixed["ipam"]["type"]) == ("cni5", "static"), "the firewall's address is its own choice"
    bridge = yaml.safe_load(nads["cfosdefaultcni5"]["spec"]["config"])
    assert nads["cfosdefaultcni5"]["metadata"]["namespace"] == "default"
    assert (bridge["bridge"], bridge["isGateway"], bridge["hairpinMode"]) == ("cni5", True, True)
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.1.128.0/24", "rangeStart": "10.1.128.10"}]]
    assert bridge["ipam"]["routes"] == [
        {"dst": "10.96.0.0/12", "gw": "10.1.128.1"},
        {"dst": "10.0.0.2/32", "gw": "10.1.128.1"},
    ]


def files_of(graph: Graph, node: str) -> dict[str, Any]:
    return {f["path"]: f["content"] for s in graph.of_type(STEP) if s.inputs["node"] == node for f in s.inputs["files"]}


def test_delegates_follow_from_the_blocks() -> None:
    known = files_of(simulated("cfos-egress"), "ip-10-0-2-200")
    unknown = files_of(run_stack("cfos-egress"), "ip-10-0-2-200")
    for files, first in ((known, None), (unknown, "<known after up>")):
        delegate = files["/etc/cni/multus/net.d/net-calico.conf"]
        (((range_,),),) = [delegate["ipam"]["ranges"]]
        assert delegate["type"] == "calico" and "routes" not in delegate["ipam"]
        if first:
            assert range_ == {"subnet": first, "rangeStart": first, "rangeEnd": first}
        else:
            assert range_["rangeStart"].endswith(".150") and range_["rangeEnd"].endswith(".250")
        narrow = files["/etc/cni/multus/net.d/default-calico.conf"]["ipam"]
        assert [r["dst"] for r in narrow["routes"]] == ["10.96.0.0/12", "10.0.0.0/8"]
    assert all(p.endswith((".conf", ".conflist")) for p in known if p.startswith("/etc/cni/multus/net.d/"))
    assert list(known)[-1] == "/etc/cni/net.d/00-multus.conf"


def test_order_of_cfos_egress() -> None:
    graph = run_stack("cfos-egress")
    workers = ("ip-10-0-2-200", "ip-10-0-2-201")
    init = graph.step("ip1001100", "init")
    calico = graph.step("ip1001100", "calico")
    blocks = graph.step("ip1001100", "blocks")
    (reservation,) = graph.objects("IPReservation")
    (multus,) = (d for d in graph.objects("DaemonSet") if d.inputs["metadata"]["namespace"] == "kube-system")
    (firewall,) = (d for d in graph.objects("DaemonSet") if d is not multus)
    nads = graph.objects("NetworkAttachmentDefinition")
    for node in workers:
        prepare, join = graph.step(node, "prepare"), graph.step(node, "join")
        assert not any(graph.by_urn[u].type == COMMAND for u in graph.behind(prepare)), "machines prepare in parallel"
        behind = {c.name for c in connections(graph) if graph.waits(join, c)}
        assert behind == {f"lab-cluster-{node}-prepare", "lab-cluster-ip1001100-init", f"lab-cluster-{node}-admit"}
        assert graph.waits(blocks, join)
    assert graph.waits(calico, init) and not graph.waits(calico, graph.step(workers[0], "prepare"))
    assert graph.waits(graph.objects("Installation")[0], calico)
    assert not graph.waits(multus, calico), "Multus needs the API, not Calico"
    for node in ("ip1001100", *workers):
        files = graph.step(node, "files")
        for earlier in (reservation, multus, *nads):
            assert graph.waits(files, earlier)
        for workload in (firewall, *graph.objects("Deployment")):
            assert graph.waits(workload, files)
    assert graph.waits(reservation, blocks)


def test_connections_of_the_first_up() -> None:
    """At most four SSH connections for each node. Its admission counts as its own."""
    for stack in STACKS:
        graph = run_stack(stack)
        nodes = source(stack).get("nodes") or [None] * 3
        assert len(connections(graph)) <= 4 * len(nodes), stack


def test_nodes_are_admitted_in_parallel() -> None:
    """All admissions run on the first control plane. With one lock for all, twelve nodes would wait in a row."""
    up = simulated("components")
    admits = [s for s in up.of_type(STEP) if s.inputs["phase"] == "admit"]
    locks = {
        line for s in admits for line in up.plain[up.command(s).urn]["stdin"].splitlines() if "CNI_LAB_LOCK=/" in line
    }
    assert len(locks) == len(admits) == 4
    others = [up.command(s) for s in up.of_type(STEP) if s.inputs["phase"] == "prepare"]
    assert all("CNI_LAB_LOCK=/run/lock/cni-lab-prepare\n" in up.plain[c.urn]["stdin"] for c in others)


def test_a_switch_of_mode_changes_only_what_it_must() -> None:
    lab = source("cross-node")
    before = run_lab(lab)
    lab["calico"]["pools"][0]["encapsulation"] = "VXLAN"
    added, removed, changed = differences(before, run_lab(lab))
    assert added == {"lab-network-vxlan"}
    assert removed == {"lab-network-pods-default-ipv4-ippool"}, "the second pool's packets still travel plain"
    steps = {f"lab-cluster-{n}-{'init' if n == 'control1' else 'prepare'}" for n in ("control1", "worker1", "worker2")}
    assert changed == {"lab-calico-installation", *steps}, "the kernel module, and the pool's mode"


def test_an_added_worker_changes_no_other_node() -> None:
    lab = source("cfos-egress")
    before = run_lab(lab)
    lab["nodes"].append({"name": "ip-10-0-2-202", "role": "worker", "subnet": "workers", "address": "10.0.2.202"})
    added, removed, changed = differences(before, run_lab(lab))
    assert not removed
    assert all("ip-10-0-2-202" in name for name in added)
    commands = {
        name for name in changed if "-prepare" in name or "-join" in name or "-init" in name or "-admit" in name
    }
    assert not commands


def test_packet_life_installs_calico_by_manifest() -> None:
    graph = run_stack("packet-life")
    assert not graph.objects("Installation")
    (pool,) = graph.objects("IPPool")
    assert pool.inputs["apiVersion"] == "crd.projectcalico.org/v1"
    assert (pool.inputs["spec"]["ipipMode"], pool.inputs["spec"]["vxlanMode"]) == ("Always", "Never")


def test_components_has_several_control_planes_and_can_have_wireguard() -> None:
    graph = run_stack("components")
    assert graph.waits(graph.step("master2", "join"), graph.step("master1", "init"))
    assert graph.waits(graph.step("master3", "join"), graph.step("master2", "join")), "etcd accepts one learner"
    lab = source("components")
    before = run_lab(lab)
    lab["calico"]["wireguard"] = True
    _, removed, changed = differences(before, run_lab(lab))
    assert not removed
    assert any("felix" in name for name in changed) or any("felix" in n for n in differences(before, run_lab(lab))[0])


def test_private_workers_have_the_properties() -> None:
    lab = source("cfos-egress")
    lab["machines"]["workerAccess"] = "InstanceConnect"
    graph = run_lab(lab)
    check_every_graph(graph, run_lab(lab, dry_run=False))
    nat = graph.one("aws:ec2/natGateway:NatGateway")
    endpoint = graph.one("aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint")
    for node in ("ip-10-0-2-200", "ip-10-0-2-201"):
        prepare = graph.step(node, "prepare")
        assert graph.waits(prepare, nat), "packages come through the NAT gateway"
        assert not graph.waits(prepare, endpoint), "only people use the endpoint"
    assert not graph.waits(graph.step("ip1001100", "init"), nat)


def test_several_control_planes_on_aws_have_a_load_balancer() -> None:
    lab = source("cfos-egress")
    for host in (101, 102):
        lab["nodes"].append(
            {"name": f"cp{host}", "role": "control-plane", "subnet": "control", "address": f"10.0.1.{host}"}
        )
    up = run_lab(lab, dry_run=False)
    (balancer,) = up.of_type("aws:lb/loadBalancer:LoadBalancer")
    files = files_of(up, "ip1001100")
    endpoint = files["/etc/kubernetes/cni-lab/init.yaml"][1]["controlPlaneEndpoint"]
    assert endpoint.startswith(balancer.name) and endpoint.endswith(":6443")
    assert (
        files_of(up, "cp101")["/etc/kubernetes/cni-lab/join.yaml"]["discovery"]["bootstrapToken"]["apiServerEndpoint"]
        == endpoint
    )
    assert endpoint.rpartition(":")[0] in files["/etc/kubernetes/cni-lab/init.yaml"][1]["apiServer"]["certSANs"]


def test_a_first_preview_shows_every_kubernetes_object() -> None:
    """Although the cluster is not known yet."""
    graph = run_stack("cfos-egress")
    kinds = {o.inputs["kind"] for o in graph.objects() if "kind" in o.inputs}
    assert {"Installation", "APIServer", "IPReservation", "DaemonSet", "NetworkAttachmentDefinition"} <= kinds

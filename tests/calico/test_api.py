"""Every object and both kinds of installation on a real API server of the pinned version."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.calico import manifests
from components.multus import kinds, whereabouts
from components.multus import manifests as multus
from components.node.script import File
from components.spec import versions
from components.spec.addresses import given_mtu
from components.spec.versions import calico_manifests
from components.workloads import manifests as workloads
from tests.calico import schemas
from tests.calico.cluster import Cluster
from tests.calico.labs import SEED_BLOCKS, VARIETY, calico_lab, lab, pool
from tests.calico.test_manifests import custom_objects
from tests.support.steps import run_step

OPERATOR_SOURCES = ("v1_crd_projectcalico_org.yaml", "tigera-operator.yaml")


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do repeatedly what a controller would do, while the block runs."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(0.5):
            work()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def install(
    cluster: Cluster, folder: Path, kind: str, sources: tuple[str, ...], files: list[File] | None = None, **changed: str
) -> Any:
    schemas.upstream("calico-v3.32.1", sources[0])
    sums = versions.CALICO[versions.DEFAULT_CALICO].sha256
    variables = {
        "INSTALL": kind,
        "DIRECTORY": str(folder / "calico"),
        "BASE": f"file://{os.environ['CNILAB_UPSTREAM']}/calico-v3.32.1",
        "SOURCES": "".join(f"{sums[source]} {source}\n" for source in sources),
    } | changed
    return run_step(folder, "calico", variables, files=files or [], env=environment(cluster), timeout=300)


def environment(cluster: Cluster) -> dict[str, str]:
    path = f"{Path(cluster.kubectl_path).parent}:{os.environ['PATH']}"
    return {"CNI_LAB_KUBECONFIG": str(cluster.kubeconfig), "PATH": path}


def roll_out_operator(cluster: Cluster) -> None:
    """Set the status as if its one pod ran."""
    status = {
        "observedGeneration": 99,
        "replicas": 1,
        "updatedReplicas": 1,
        "readyReplicas": 1,
        "availableReplicas": 1,
        "conditions": [{"type": "Available", "status": "True"}],
    }
    patch = ("patch", "deployment/tigera-operator", "--subresource=status", "--type=merge", "-p")
    cluster.kubectl("-n", "tigera-operator", *patch, json.dumps({"status": status}), check=False)


@pytest.fixture(scope="session")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The API with Calico's operator, installed by the script."""
    folder = tmp_path_factory.mktemp("operator")
    with meanwhile(lambda: roll_out_operator(cluster)):
        done = install(cluster, folder, "operator", OPERATOR_SOURCES)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    cluster.kubectl("apply", "--server-side", "-f", str(schemas.upstream("calico-v3.32.1", schemas.CALICO_FILES[1])))
    wait = ("wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all")
    cluster.kubectl(*wait)
    return cluster


@pytest.mark.parametrize("kind", ["operator", "manifest"])
def test_an_api_of_another_project_is_refused_at_once(cluster: Cluster, tmp_path: Path, kind: str) -> None:
    """This test runs first: the API has nothing of Calico yet."""
    assert cluster.kubectl("get", "crd", "--output", "name").stdout == "", "run this file from its beginning"
    begin = time.monotonic()
    variables = blocks_variables(INSTALL=kind, TIMEOUT_SECONDS="900")
    done = run_step(tmp_path, "blocks", variables, env=environment(cluster))
    assert done.returncode == 1 and done.stdout == ""
    assert "this cluster does not run Calico: its API has no ippools.crd.projectcalico.org" in done.stderr
    assert time.monotonic() - begin < 60, "waiting would not bring it"


@pytest.mark.timeout(600)
def test_the_operator_installs_twice_and_an_altered_manifest_is_refused(operator: Cluster, tmp_path: Path) -> None:
    with meanwhile(lambda: roll_out_operator(operator)):
        again = install(operator, tmp_path, "operator", OPERATOR_SOURCES)
    assert again.returncode == 0, again.stderr
    other = install(
        operator, tmp_path / "new", "operator", OPERATOR_SOURCES, SOURCES=f"{'0' * 64} tigera-operator.yaml\n"
    )
    assert other.returncode == 1
    assert "SHA-256" in other.stderr and "tigera-operator.yaml" in other.stderr


@pytest.mark.parametrize("name", VARIETY)
def test_the_api_accepts_every_object(operator: Cluster, name: str) -> None:
    spec = VARIETY[name]
    made = custom_objects(spec)
    operator.create(*made)
    try:
        for manifest in made:
            read = operator.read(f"{_resource(manifest)}", manifest["metadata"]["name"])
            assert _within(manifest.get("spec", {}), read.get("spec", {})), manifest["kind"]
    finally:
        for manifest in made:
            operator.kubectl("delete", _resource(manifest), manifest["metadata"]["name"], "--wait=false")


def _resource(manifest: dict[str, Any]) -> str:
    group, version = manifest["apiVersion"].split("/")
    return f"{manifest['kind']}.{version}.{group}"


def _within(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and _within(v, found[key]) for key, v in wanted.items())
    return (
        bool(wanted == found)
        if not isinstance(wanted, list)
        else len(wanted) == len(found) and all(_within(w, f) for w, f in zip(wanted, found, strict=True))
    )


def test_the_api_refuses_an_unknown_field(operator: Cluster) -> None:
    wrong = manifests.installation(lab())
    wrong["spec"]["calicoNetwork"]["containerIpForwarding"] = "Enabled"
    with pytest.raises(AssertionError, match=r"unknown field .*containerIpForwarding"):
        operator.create(wrong)


def test_another_mode_is_accepted_and_another_cidr_is_refused(operator: Cluster) -> None:
    def pools(**keys: Any) -> dict[str, Any]:
        keys = {"cidr": "10.244.0.0/16", "encapsulation": "None"} | keys
        spec = calico_lab(install="manifest", bgp="Enabled", pools=[pool("p", keys.pop("cidr"), **keys)])
        return manifests.ip_pools(spec)["p"]

    def apply(manifest: dict[str, Any]) -> Any:
        args = ("apply", "--server-side", "--validate=strict", "-f", "-")
        return operator.kubectl(*args, stdin=json.dumps(manifest), check=False)

    try:
        for mode in ("None", "VXLAN", "IPIPCrossSubnet", "None"):
            done = apply(pools(encapsulation=mode))
            assert done.returncode == 0, done.stderr
        refused = apply(pools(cidr="10.245.0.0/16"))
        assert refused.returncode and "CIDR cannot be changed" in refused.stderr
    finally:
        operator.kubectl("delete", "ippools.crd.projectcalico.org", "p")


def apply(cluster: Cluster, *made: dict[str, Any]) -> None:
    """Apply as Pulumi's provider does: server-side, with one field manager, refusing unknown fields."""
    options = ("--server-side", "--force-conflicts", "--field-manager=test", "--validate=strict")
    cluster.kubectl("apply", *options, "-f", "-", stdin="\n---\n".join(json.dumps(manifest) for manifest in made))


def test_the_installation_accepts_every_mode_of_every_pool(operator: Cluster) -> None:
    """With the operator, the pools are fields of one object, and each changes by itself and in place."""
    cidrs = {"first": "10.244.0.0/24", "second": "10.244.128.0/24"}

    def installation(*words: str) -> dict[str, Any]:
        pools = [
            pool(name, cidr, blockSize=26, encapsulation=word)
            for (name, cidr), word in zip(cidrs.items(), words, strict=True)
        ]
        return manifests.installation(calico_lab(bgp="Enabled", pools=pools))

    words = ("None", "VXLAN", "None", "IPIP", "VXLANCrossSubnet", "IPIPCrossSubnet", "None")
    try:
        generations = []
        for word in words:
            apply(operator, installation(word, "None"))
            read = operator.read("installation", "default")
            found = {p["name"]: p["encapsulation"] for p in read["spec"]["calicoNetwork"]["ipPools"]}
            assert found == {"first": word, "second": "None"}
            generations.append(read["metadata"]["generation"])
        assert generations == sorted(set(generations)), "each is a change, and the object is the same one"
        refused = installation("None", "None")
        refused["spec"]["calicoNetwork"]["ipPools"][0]["encapsulation"] = "Direct"
        with pytest.raises(AssertionError, match="Direct"):
            apply(operator, refused)
    finally:
        operator.kubectl("delete", "installation", "default", "--wait=false")


def test_route_reflectors_are_labelled_and_unlabelled(operator: Cluster) -> None:
    """Patches of Nodes that belong to kubelets: kubelet's fields stay, and ours go with the last apply."""
    spec = VARIETY["reflectors"]
    names = sorted(manifests.route_reflectors(spec))
    own = {"kubernetes.io/os": "linux"}
    nodes = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": own}} for name in names]
    operator.create(*nodes)
    try:
        apply(operator, *manifests.route_reflectors(spec).values())
        for name in names:
            metadata = operator.read("node", name)["metadata"]
            assert metadata["labels"] | own == metadata["labels"]
            assert metadata["labels"][manifests.ROUTE_REFLECTOR_LABEL] == "true"
            assert metadata["annotations"]["projectcalico.org/RouteReflectorClusterID"] == "224.0.0.1"
        selected = operator.kubectl("get", "nodes", "-l", manifests.ROUTE_REFLECTOR_LABEL, "-o", "name").stdout
        assert selected.split() == [f"node/{name}" for name in names], "the peers' selector finds them"
        bare = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in names]
        apply(operator, *bare)
        for name in names:
            metadata = operator.read("node", name)["metadata"]
            assert manifests.ROUTE_REFLECTOR_LABEL not in metadata["labels"]
            assert metadata["labels"] | own == metadata["labels"]
            assert "projectcalico.org/RouteReflectorClusterID" not in metadata.get("annotations", {})
    finally:
        operator.kubectl("delete", "nodes", *names)


def test_whereabouts_and_its_permissions(operator: Cluster) -> None:
    network = {"name": "w", "type": "bridge", "bridge": "br9", "subnet": "10.9.0.0/24", "ipam": {"type": "whereabouts"}}
    made = whereabouts.objects(lab(machines={"provider": "local"}, networks=[network], workloads=[]))
    operator.create(*made.values())
    account = f"system:serviceaccount:{kinds.NAMESPACE}:{whereabouts.PLUGIN}"
    for plural in ("ippools", "overlappingrangeipreservations"):
        name = f"{plural}.{whereabouts.GROUP}"
        operator.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/{name}")
        assert operator.kubectl("auth", "can-i", "create", name, "--as", account, check=False).returncode == 0


def test_peers_with_passwords(operator: Cluster) -> None:
    spec = VARIETY["rack"]
    operator.kubectl("create", "namespace", "calico-system", check=False)
    operator.create(*manifests.bgp_secrets(spec, {"tor": "x"}).values())
    secrets = ("-n", "calico-system", "--as", "system:serviceaccount:calico-system:calico-node")

    def may(what: str) -> bool:
        return operator.kubectl("auth", "can-i", "get", what, *secrets, check=False).returncode == 0

    assert may("secrets/cni-lab-bgp-tor") and not may("secrets/another")


def test_multus_and_its_permissions(operator: Cluster) -> None:
    spec = lab()
    assert spec.multus is not None
    operator.create(
        multus.service_account(),
        multus.cluster_role(),
        multus.cluster_role_binding(),
        multus.config_map(spec.multus),
        multus.daemon_set(spec.multus),
        multus.definition(),
    )
    operator.kubectl(
        "wait", "--for=condition=Established", "--timeout=60s", "crd/network-attachment-definitions.k8s.cni.cncf.io"
    )
    operator.create(*multus.attachments(spec).values())
    operator.create(workloads.workload_object(spec, spec.workloads[0]))
    read = operator.read("-n", "default", "network-attachment-definitions", "cfosdefaultcni5")
    assert json.loads(read["spec"]["config"])["bridge"] == "cni5"

    def may(verb: str, what: str, *options: str) -> bool:
        return operator.kubectl("auth", "can-i", verb, what, *options, "--as", multus.USER, check=False).returncode == 0

    assert may("get", "network-attachment-definitions.k8s.cni.cncf.io", "-A")
    assert may("get", "pods", "-A")
    assert may("update", "pods", "-A", "--subresource=status")
    assert may("create", "events", "-A")
    for verb, what in (("list", "secrets"), ("get", "secrets"), ("delete", "pods"), ("update", "pods"),
                       ("delete", "network-attachment-definitions.k8s.cni.cncf.io"), ("get", "nodes")):  # fmt: skip
        assert not may(verb, what, "-A"), (verb, what)


# --- blocks ---------------------------------------------------------------------------------------------------------


def blocks_variables(**changed: str) -> dict[str, str]:
    return {
        "INSTALL": "operator",
        "IPAM": "Calico",
        "NODES": " ".join(SEED_BLOCKS),
        "POOLS": "default-ipv4-ippool=10.244.0.0/16",
        "PAUSE_IMAGE": "registry.k8s.io/pause:3.10.2",
        "TIMEOUT_SECONDS": "20",
    } | changed


def affinity(name: str, node: str, cidr: str, **changed: str) -> dict[str, Any]:
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BlockAffinity",
        "metadata": {"name": name},
        "spec": {"node": node, "cidr": cidr, "state": "confirmed", "deleted": "false"} | changed,
    }


@pytest.fixture
def served(operator: Cluster) -> Iterator[Cluster]:
    """The nodes of the seed, Ready, with Calico running in mode None and no block yet."""
    spec = calico_lab(bgp="Enabled", pools=[pool("default-ipv4-ippool", "10.244.0.0/16", encapsulation="None")])
    nodes = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}} for node in SEED_BLOCKS]
    parts = [
        {"apiVersion": "operator.tigera.io/v1", "kind": "TigeraStatus", "metadata": {"name": part}}
        for part in ("calico", "ippools", "apiserver")
    ]
    by_manifest = calico_lab(
        install="manifest", bgp="Enabled", pools=[p.model_dump(mode="json", by_alias=True) for p in spec.calico.pools]
    )
    pools = list(manifests.ip_pools(by_manifest).values())
    operator.create(manifests.installation(spec), *pools, *nodes, *parts)
    generation = operator.read("installation", "default")["metadata"]["generation"]
    for part in parts:
        condition = {
            "type": "Available",
            "status": "True",
            "reason": "AllObjectsAvailable",
            "message": "",
            "observedGeneration": generation,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        _status(operator, f"tigerastatus/{part['metadata']['name']}", {"conditions": [condition]})
    for node in SEED_BLOCKS:
        _status(operator, f"node/{node}", {"conditions": [{"type": "Ready", "status": "True"}]})
    yield operator
    operator.kubectl("-n", "kube-system", "delete", "pods", "--all", "--force", "--grace-period=0")
    for kind in ("installation", "tigerastatus", "nodes", "blockaffinities.crd.projectcalico.org",
                 "ippools.crd.projectcalico.org"):  # fmt: skip
        operator.kubectl("delete", kind, "--all", "--wait=false")


def _status(cluster: Cluster, what: str, status: dict[str, Any]) -> None:
    cluster.kubectl("patch", what, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def test_only_the_blocks_are_printed(served: Cluster, tmp_path: Path) -> None:
    served.create(
        *(affinity(f"b{i}", node, blocks[0]) for i, (node, blocks) in enumerate(SEED_BLOCKS.items())),
        affinity("second", "ip1001100", "10.244.53.0/24"),
        affinity("pending", "ip1001100", "10.244.54.0/24", state="pending"),
        affinity("going", "ip1001100", "10.244.55.0/24", deleted="true"),
        affinity("virtual", "ip1001100", "10.244.56.0/24", type="virtual"),
        affinity("six", "ip1001100", "fd00::/122"),
        affinity("stranger", "elsewhere", "10.244.57.0/24"),
    )
    # The API's times are whole seconds. The new block has the lowest addresses, and the delegates keep their block.
    time.sleep(1.1)
    served.create(affinity("later", "ip1001100", "10.244.5.0/24"))
    done = run_step(tmp_path, "blocks", blocks_variables(), env=environment(served))
    assert done.returncode == 0, done.stderr
    mine = ["10.244.6.0/24", "10.244.53.0/24", "10.244.5.0/24"]
    assert json.loads(done.stdout) == SEED_BLOCKS | {"ip1001100": mine}
    assert max(map(len, done.stdout.splitlines())) < 1000


def test_a_node_without_a_block_gets_one_by_a_short_lived_pod(served: Cluster, tmp_path: Path) -> None:
    served.create(affinity("b0", "ip1001100", "10.244.6.0/24"))
    seen: dict[str, dict[str, Any]] = {}

    def calico() -> None:
        claims = served.read("-n", "kube-system", "pods", "-l", "cni-lab/claim")["items"]
        for claim in claims:
            node = claim["spec"]["nodeName"]
            if node not in seen:
                seen[node] = claim
                time.sleep(0.2)
                served.create(affinity(f"claimed-{node}", node, SEED_BLOCKS[node][0]))
            # A kubelet does this with a pod that is being deleted.
            if claim["metadata"].get("deletionTimestamp"):
                gone = ("delete", "pod", claim["metadata"]["name"], "--force", "--grace-period=0")
                served.kubectl("-n", "kube-system", *gone, check=False)

    with meanwhile(calico):
        done = run_step(tmp_path, "blocks", blocks_variables(), env=environment(served))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == SEED_BLOCKS
    assert sorted(seen) == ["ip-10-0-2-200", "ip-10-0-2-201"]
    pod = seen["ip-10-0-2-200"]
    assert pod["metadata"]["annotations"]["cni.projectcalico.org/ipv4pools"] == '["default-ipv4-ippool"]'
    assert pod["spec"]["tolerations"][0] == {"operator": "Exists"}
    assert served.read("-n", "kube-system", "pods")["items"] == []


def test_a_calico_that_is_not_available_is_reported(served: Cluster, tmp_path: Path) -> None:
    condition = {"type": "Degraded", "status": "True", "reason": "PodFailure", "message": "image cannot be pulled",
                 "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}  # fmt: skip
    _status(served, "tigerastatus/apiserver", {"conditions": [condition]})
    done = run_step(tmp_path, "blocks", blocks_variables(TIMEOUT_SECONDS="2"), env=environment(served))
    assert done.returncode == 1
    assert "TigeraStatus apiserver to be Available: not within" in done.stderr
    assert "image cannot be pulled" in done.stderr
    assert done.stdout == ""


def test_a_node_that_is_not_ready_is_named(served: Cluster, tmp_path: Path) -> None:
    _status(served, "node/ip-10-0-2-201", {"conditions": [{"type": "Ready", "status": "False"}]})
    done = run_step(tmp_path, "blocks", blocks_variables(TIMEOUT_SECONDS="2"), env=environment(served))
    assert done.returncode == 1
    assert "node ip-10-0-2-201 to be Ready: not within" in done.stderr


def test_host_local_reads_the_nodes_own_ranges(served: Cluster, tmp_path: Path) -> None:
    for node, [cidr] in SEED_BLOCKS.items():
        served.kubectl("patch", f"node/{node}", "--type=merge", "-p", json.dumps({"spec": {"podCIDR": cidr}}))
    done = run_step(tmp_path, "blocks", blocks_variables(IPAM="HostLocal"), env=environment(served))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == SEED_BLOCKS


# --- by manifest ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_the_manifest_installs_patched_and_refuses_a_change_of_kind(operator: Cluster, tmp_path: Path) -> None:
    refused = install(operator, tmp_path, "manifest", ("calico.yaml",))
    assert refused.returncode == 1
    assert "installed by operator" in refused.stderr and "calico.install: manifest" in refused.stderr
    operator.kubectl("delete", "namespace", "tigera-operator", "--wait=false")
    operator.kubectl("-n", "tigera-operator", "delete", "deployment", "tigera-operator", "--wait=false")

    for name, backend in (("manifest-bird", "bird"), ("manifest-vxlan", "vxlan")):
        spec = VARIETY[name]
        folder = tmp_path / "calico"
        files = [
            File(f"{folder}/kustomization.yaml", manifests.kustomization(spec)),
            File(f"{folder}/calico-node.yaml", manifests.node_patch(spec)),
            File(f"{folder}/calico-config.yaml", manifests.config_patch(spec)),
        ]
        done = install(operator, tmp_path, "manifest", calico_manifests("manifest", spec.calico.bgp), files)
        assert done.returncode == 0, done.stderr
        config = operator.read("-n", "kube-system", "configmap", "calico-config")["data"]
        assert config["calico_backend"] == backend
        assert config["veth_mtu"] == str(given_mtu(spec) or 0)
        [container] = operator.read("-n", "kube-system", "daemonset", "calico-node")["spec"]["template"]["spec"][
            "containers"
        ]
        env = {e["name"]: e.get("value") for e in container["env"]}
        assert env["NO_DEFAULT_POOLS"] == "true"
        assert env["IP_AUTODETECTION_METHOD"] == (
            "interface=eth1" if spec.calico.interface else "kubernetes-internal-ip"
        )
        probes = container["livenessProbe"]["exec"]["command"]
        assert ("-bird-live" in probes) == (backend == "bird")

    back = install(operator, tmp_path, "operator", OPERATOR_SOURCES)
    assert back.returncode == 1 and "installed by manifest" in back.stderr
    operator.kubectl("-n", "kube-system", "delete", "daemonset", "calico-node", "--wait=false")

"""The configuration for kubeadm: compared with exact values, and checked by kubeadm itself where it is installed."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from components import slowdown
from components.cluster import kubeadm
from components.cluster.component import LIBRARY
from components.cluster.host import host_files, pause_image
from components.node.script import read_script, text_of
from components.spec import versions
from components.spec.addresses import api_endpoint, kernel_modules
from components.spec.models import Lab, Node
from tests.support.authority import certificate_authority
from tests.support.graphs import STEP, run_lab
from tests.test_lab import differences

TOKEN = "abcdef.0123456789abcdef"
HASH = "sha256:" + "0" * 64


def find_kubeadm() -> str:
    """The real kubeadm, from PATH or the folder CNILAB_KUBE_BIN. Skips the test if there is none."""
    found = shutil.which("kubeadm", path=os.environ.get("CNILAB_KUBE_BIN") or os.environ["PATH"])
    if found is None:
        pytest.skip("kubeadm is neither on PATH nor in the folder that CNILAB_KUBE_BIN names")
    return found


def make_lab(**changes: Any) -> Lab:
    return Lab.model_validate({"machines": {"provider": "local"}} | changes)


HA = {
    "nodes": [
        {"name": f"master{i}", "role": "control-plane", "subnet": "control", "address": f"10.0.1.1{i}"}
        for i in (1, 2, 3)
    ]
    + [
        {
            "name": "worker1",
            "subnet": "workers",
            "address": "10.0.2.11",
            "labels": {"disk": "ssd"},
            "taints": [
                {"key": "lab", "value": "egress", "effect": "NoSchedule"},
                {"key": "quiet", "effect": "NoExecute"},
            ],
        }
    ]
}


def init(lab: Lab) -> list[dict[str, Any]]:
    names = ["203.0.113.9", "10.0.1.100"]
    endpoint = api_endpoint(lab)
    return kubeadm.init_documents(lab, endpoint=endpoint, token=TOKEN, machine="0123456789abcdef", sans=names)


def join(lab: Lab, node: Node) -> dict[str, Any]:
    key = "a" * 64 if node.role == "control-plane" else None
    endpoint = api_endpoint(lab)
    return kubeadm.join_document(
        node, endpoint=endpoint, token=TOKEN, ca_hash=HASH, machine="0123", certificate_key=key
    )


PATCHED = [
    {"target": "kube-apiserver", "patch": {"metadata": {"annotations": {"lab": "yes"}}}},
    {
        "target": "kube-apiserver",
        "type": "json",
        "patch": [{"op": "add", "path": "/spec/containers/0/resources/limits", "value": {"cpu": "1"}}],
    },
    {"target": "kubeletconfiguration", "type": "merge", "patch": {"maxPods": 50}},
]


def test_patches_are_files_on_every_node() -> None:
    lab = make_lab(kubernetes={"patches": PATCHED})
    files = {file.path: file.content for file in kubeadm.patch_files(lab)}
    folder = "/etc/kubernetes/cni-lab/patches"
    assert list(files) == [
        f"{folder}/kube-apiserver000+strategic.json",
        f"{folder}/kube-apiserver001+json.json",
        f"{folder}/kubeletconfiguration002+merge.json",
    ]
    for document in (init(lab)[0], join(lab, lab.workers[0])):
        assert document["patches"] == {"directory": folder}
    assert kubeadm.patch_files(make_lab()) == []


def write_patches(lab: Lab, folder: Path) -> None:
    for file in kubeadm.patch_files(lab):
        (folder / Path(file.path).name).write_text(text_of(file.path, file.content))


def write_config(lab: Lab, folder: Path) -> Path:
    """kubeadm's configuration for init in a file, with the lab's patches in a folder beside it."""
    patches = folder / "patches"
    patches.mkdir(parents=True)
    write_patches(lab, patches)
    documents = init(lab)
    documents[0]["patches"] = {"directory": str(patches)}
    config = folder / "init.yaml"
    config.write_text(text_of(str(config), documents))
    return config


def printed_manifests(text: str) -> list[dict[str, Any]]:
    """The objects that `kubeadm init phase addon … --print-manifest` prints. On the same stream it says which patches
    it applied."""
    lines = [line for line in text.splitlines() if not line.startswith("[patches] ")]
    return [it for it in yaml.safe_load_all("\n".join(lines)) if it]


def test_kubeadm_applies_the_patches(tmp_path: Path) -> None:
    program = find_kubeadm()
    write_patches(make_lab(kubernetes={"patches": PATCHED}), tmp_path)
    made = tmp_path / "made"
    made.mkdir()
    phase = ("init", "phase", "control-plane", "apiserver", "--dry-run", "--patches", str(tmp_path))
    subprocess.run(
        [program, *phase, "--kubernetes-version", "v1.36.3", "--apiserver-advertise-address", "10.0.1.10"],
        env={"PATH": os.environ["PATH"], "KUBEADM_INIT_DRYRUN_DIR": str(made)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    pod = yaml.safe_load((made / "kube-apiserver.yaml").read_text())
    assert pod["metadata"]["annotations"]["lab"] == "yes"
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1"}


def test_kubeadm_patches_kube_proxy(tmp_path: Path) -> None:
    program = find_kubeadm()
    version = subprocess.run([program, "version", "--output", "short"], capture_output=True, text=True, timeout=60)
    if versions.numbers(version.stdout.strip().removeprefix("v")) < (1, 37):
        pytest.skip(f"this kubeadm is {version.stdout.strip()}; kube-proxy is a target from 1.37 on")
    patch = {"target": "kubeproxydaemonset", "patch": {"metadata": {"annotations": {"lab": "yes"}}}}
    lab = make_lab(kubernetes={"version": "1.37.2", "patches": [patch]})
    config = write_config(lab, tmp_path)
    phase = ("init", "phase", "addon", "kube-proxy", "--print-manifest", "--config", str(config))
    done = subprocess.run([program, *phase], capture_output=True, text=True, check=True, timeout=60)
    made = [it for it in printed_manifests(done.stdout) if it["kind"] == "DaemonSet"]
    assert [it["metadata"]["annotations"]["lab"] for it in made] == ["yes"]


def test_init_follows_the_stack_file() -> None:
    first, cluster, kubelet, proxy = init(make_lab(kubernetes={"podCidr": "10.48.0.0/16", "version": "1.36.1"}))
    assert first["nodeRegistration"]["name"] == "ip1001100"
    assert first["localAPIEndpoint"] == {"advertiseAddress": "10.0.1.100", "bindPort": 6443}
    assert first["bootstrapTokens"][0]["token"] == TOKEN
    assert "taints" not in first["nodeRegistration"], "an empty list would remove the control plane's taint"
    assert cluster["kubernetesVersion"] == "v1.36.1"
    assert cluster["controlPlaneEndpoint"] == "10.0.1.100:6443"
    assert cluster["networking"]["podSubnet"] == "10.48.0.0/16"
    assert kubelet["failSwapOn"] is False and proxy["conntrack"] == {"maxPerCore": 0, "min": 0}
    assert kubelet["evictionHard"]["imagefs.available"] == "0%", "kubelet must not clear the computer's disk"
    assert kubelet["imageGCHighThresholdPercent"] == 100, "nor remove images from it"
    assert kubelet["evictionHard"]["memory.available"] == "100Mi"


def test_init_is_for_the_first_of_several_control_planes() -> None:
    first, *_ = init(make_lab(**HA))
    assert first["nodeRegistration"]["name"] == "master1"
    assert first["localAPIEndpoint"]["advertiseAddress"] == "10.0.1.11"


def test_only_a_slow_computer_changes_kubeadms_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab(**HA)
    assert "timeouts" not in init(lab)[0] and "timeouts" not in join(lab, lab.workers[0])
    monkeypatch.setenv(slowdown.VARIABLE, "2")
    doubled = {
        "controlPlaneComponentHealthCheck": "480s",
        "kubeletHealthCheck": "480s",
        "kubernetesAPICall": "120s",
        "etcdAPICall": "240s",
        "tlsBootstrap": "600s",
        "discovery": "600s",
    }
    assert init(lab)[0]["timeouts"] == join(lab, lab.workers[0])["timeouts"] == doubled


def test_only_a_slow_computer_changes_the_leases_of_the_controllers(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ("controllerManager", "scheduler")
    assert not set(parts) & set(init(make_lab())[1])
    monkeypatch.setenv(slowdown.VARIABLE, "2")
    doubled = {
        "leader-elect-lease-duration": "30s",
        "leader-elect-renew-deadline": "20s",
        "leader-elect-retry-period": "4s",
    }
    cluster = init(make_lab())[1]
    for part in parts:
        assert {argument["name"]: argument["value"] for argument in cluster[part]["extraArgs"]} == doubled


def test_only_a_slow_computer_changes_the_probes_of_the_control_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside kubeadm's own probes, tests/test_slowdown.py sees them where there is a kubeadm."""
    assert kubeadm.patch_files(make_lab()) == []
    monkeypatch.setenv(slowdown.VARIABLE, "2")
    alive = {"livenessProbe": {"periodSeconds": 20, "timeoutSeconds": 30}, "startupProbe": {"timeoutSeconds": 30}}
    ready = alive | {"readinessProbe": {"periodSeconds": 2, "timeoutSeconds": 30}}
    coredns = {
        "name": "coredns",
        "livenessProbe": {"periodSeconds": 20, "timeoutSeconds": 10},
        "readinessProbe": {"periodSeconds": 20, "timeoutSeconds": 2},
    }
    pods = {"etcd": ready, "kube-apiserver": ready, "kube-controller-manager": alive, "kube-scheduler": ready}
    wanted = {name: {"spec": {"containers": [{"name": name} | probes]}} for name, probes in pods.items()}
    wanted |= {"corednsdeployment": {"spec": {"template": {"spec": {"containers": [coredns]}}}}}
    files = {Path(file.path).name: file.content for file in kubeadm.patch_files(make_lab())}
    assert files == {f"{name}{number:03}+strategic.json": patch for number, (name, patch) in enumerate(wanted.items())}


def test_a_machine_has_a_label_of_16_digits() -> None:
    assert kubeadm.machine_label("i-0123456789abcdef0") == hashlib.sha256(b"i-0123456789abcdef0").hexdigest()[:16]


def test_a_kubeconfig_has_a_proxy_only_if_there_is_one() -> None:
    given: dict[str, Any] = {"server": "https://10.0.1.10:6443", "user": "admin", "ca": "QQ==", "key": "Qw=="}
    plain = kubeadm.kubeconfig(certificate="Qg==", **given)
    cluster = {"server": "https://10.0.1.10:6443", "certificate-authority-data": "QQ=="}
    assert plain["clusters"] == [{"name": "cni-lab", "cluster": cluster}]
    assert plain["users"][0]["user"] == {"client-certificate-data": "Qg==", "client-key-data": "Qw=="}
    proxied = kubeadm.kubeconfig(certificate="Qg==", proxy="socks5://127.0.0.1:1080", **given)
    assert proxied["clusters"][0]["cluster"] == cluster | {"proxy-url": "socks5://127.0.0.1:1080"}
    assert kubeadm.pem_data("A") == "QQ=="


def test_an_empty_list_of_taints_reaches_kubeadm() -> None:
    node = {"name": "one", "role": "control-plane", "subnet": "control", "address": "10.0.1.10", "taints": []}
    first, *_ = init(make_lab(nodes=[node]))
    assert first["nodeRegistration"]["taints"] == []


def test_kube_proxy_follows_calicos_data_plane() -> None:
    *_, iptables = init(make_lab())
    assert "mode" not in iptables
    nftables = make_lab(calico={"linuxDataplane": "Nftables"})
    assert init(nftables)[-1]["mode"] == "nftables"
    assert "nf_tables" in kernel_modules(nftables)


def test_only_containers_get_the_settings_for_a_shared_kernel() -> None:
    lab = make_lab(machines={"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]})
    *_, kubelet, proxy = init(lab)
    assert kubelet["failSwapOn"] is True and "conntrack" not in proxy
    assert "evictionHard" not in kubelet


def test_join_of_a_worker_and_of_a_control_plane() -> None:
    lab = make_lab(**HA)
    worker = join(lab, lab.workers[0])
    assert "controlPlane" not in worker
    registration = worker["nodeRegistration"]
    assert registration["taints"] == [
        {"key": "lab", "value": "egress", "effect": "NoSchedule"},
        {"key": "quiet", "effect": "NoExecute"},
    ]
    labels = {a["name"]: a["value"] for a in registration["kubeletExtraArgs"]}["node-labels"]
    assert labels == "disk=ssd,cni-lab/machine=0123"
    second = join(lab, lab.control_planes[1])
    assert second["controlPlane"]["localAPIEndpoint"]["advertiseAddress"] == "10.0.1.12"
    assert second["controlPlane"]["certificateKey"] == "a" * 64
    assert second["discovery"]["bootstrapToken"]["apiServerEndpoint"] == "10.0.1.11:6443"


@pytest.mark.parametrize("changes", [{}, HA, {"kubernetes": {"controlPlaneEndpoint": "api.lab.test:6443"}}])
def test_kubeadm_accepts_every_document(tmp_path: Path, changes: dict[str, Any]) -> None:
    binary = find_kubeadm()
    lab = make_lab(**changes)
    documents: dict[str, Any] = {"init.yaml": init(lab)}
    documents |= {f"{n.name}.yaml": join(lab, n) for n in lab.nodes[1:]}
    for name, content in documents.items():
        file = tmp_path / name
        file.write_text(text_of(str(file), content))
        done = subprocess.run(
            [binary, "config", "validate", "--config", file], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "unknown field" not in done.stderr and "deprecated" not in done.stderr


def test_kubeadm_refuses_a_wrong_field(tmp_path: Path) -> None:
    """Shows that the check above can fail."""
    documents = init(make_lab())
    documents[1]["networking"]["podSubnets"] = "10.0.0.0/8"
    file = tmp_path / "init.yaml"
    file.write_text(text_of(str(file), documents))
    done = subprocess.run([find_kubeadm(), "config", "validate", "--config", file], capture_output=True, text=True)
    assert "podSubnets" in done.stderr


def test_the_join_checksum_is_that_of_the_certificate() -> None:
    pem, _, public = certificate_authority()
    der = (
        x509.load_pem_x509_certificate(pem.encode())
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert kubeadm.ca_cert_hash(public) == "sha256:" + hashlib.sha256(der).hexdigest()
    with pytest.raises(ValueError, match="base64"):
        kubeadm.ca_cert_hash("-----BEGIN PUBLIC KEY-----\nQU!JD\n-----END PUBLIC KEY-----\n")


def test_kubeadm_uses_our_ca(tmp_path: Path) -> None:
    """`init phase certs` keeps the CA that it finds, and signs every certificate with it."""
    pem, private, _ = certificate_authority()
    pki = tmp_path / "pki"
    pki.mkdir()
    (pki / "ca.crt").write_text(pem)
    (pki / "ca.key").write_text(private)
    documents = init(make_lab())
    documents[1]["certificatesDir"] = str(pki)
    config = tmp_path / "init.yaml"
    config.write_text(text_of(str(config), documents))
    for phase in (["certs", "all"], ["kubeconfig", "admin", f"--kubeconfig-dir={tmp_path}"]):
        done = subprocess.run(
            [find_kubeadm(), "init", "phase", *phase, "--config", config], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    assert (pki / "ca.crt").read_text() == pem
    server = x509.load_pem_x509_certificate((pki / "apiserver.crt").read_bytes())
    server.verify_directly_issued_by(x509.load_pem_x509_certificate(pem.encode()))
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(a) for a in names.get_values_for_type(x509.IPAddress)}
    assert {"203.0.113.9", "10.0.1.100", "10.96.0.1"} <= addresses
    admin = yaml.safe_load((tmp_path / "admin.conf").read_text())
    assert base64.b64decode(admin["clusters"][0]["cluster"]["certificate-authority-data"]).decode() == pem


def test_host_files_follow_the_mode() -> None:
    pools = [{"name": "a", "cidr": "10.244.0.0/16", "blockSize": 24, "encapsulation": "IPIPCrossSubnet"}]
    lab = make_lab(calico={"bgp": "Enabled", "pools": pools, "wireguard": True})
    assert kernel_modules(lab) == ["overlay", "br_netfilter", "ipip", "wireguard"]
    assert pause_image(lab) == "registry.k8s.io/pause:3.10.2"
    assert "/etc/containers/registries.conf.d/50-cni-lab.conf" not in {f.path for f in host_files(lab)}


def test_scripts_and_program_agree_on_paths() -> None:
    """These facts are in a script and in the program, because the scripts do not get them as variables."""
    assert f"\nCRI_SOCKET={kubeadm.CRI_SOCKET}\n" in read_script("lib.sh")
    for script in ("init", "join"):
        assert f"\nCONFIG={kubeadm.DIRECTORY}/{script}.yaml\n" in read_script(f"{script}.sh")
    assert f"\nPATCHES={kubeadm.DIRECTORY}/patches\n" in read_script("packages.sh")
    assert f"\nSELF={LIBRARY}/reset.sh\n" in read_script("reset.sh")
    assert f" {LIBRARY}/remove-node.sh --no-drain " in read_script("admit.sh")


def test_mirrors_reach_the_container_runtime() -> None:
    import tomllib

    images = [{"registry": "docker.io", "mirror": "mirror.lab.test:5000/hub", "insecure": True}]
    files = {f.path: f.content for f in host_files(make_lab(mirrors={"images": images}))}
    read = tomllib.loads(files["/etc/containers/registries.conf.d/50-cni-lab.conf"])
    assert read["registry"][0]["location"] == "docker.io"
    assert read["registry"][0]["mirror"] == [{"location": "mirror.lab.test:5000/hub", "insecure": True}]


def test_further_settings_of_the_api_server() -> None:
    given = {"certSANs": ["k8s.example"], "extraArgs": [{"name": "service-node-port-range", "value": "1-65535"}]}
    spec = Lab.model_validate({"machines": {"provider": "local"}, "kubernetes": {"apiServer": given}})
    _, cluster, *_ = kubeadm.init_documents(spec, endpoint="e:6443", token="t", machine="m", sans=["10.0.1.100"])
    assert cluster["apiServer"] == {"certSANs": ["10.0.1.100", "k8s.example"], "extraArgs": given["extraArgs"]}


def test_a_changed_label_is_for_the_first_control_plane_to_set() -> None:
    """kubelet sets labels only when it registers, so the admission of the node sets them afterwards."""
    nodes = [HA["nodes"][0], HA["nodes"][3]]
    before = {"machines": {"provider": "local"}, "nodes": nodes}
    after = {**before, "nodes": [nodes[0], {**nodes[1], "labels": {"disk": "hdd"}, "taints": []}]}
    added, removed, changed = differences(run_lab(before), run_lab(after))
    assert not added and not removed
    assert changed == {"lab-cluster-worker1-admit", "lab-cluster-worker1-join"}
    (admit,) = (r for r in run_lab(after).of_type(STEP) if r.name == "lab-cluster-worker1-admit")
    found = {key: admit.inputs["variables"][key] for key in ("LABELLED", "LABELS", "TAINTS")}
    assert found == {"LABELLED": "worker1", "LABELS": "disk=hdd", "TAINTS": ""}

"""A small lab as a Pulumi program: components, steps, secrets, unknowns, Kubernetes objects, options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pulumi_random as random
import pulumi_tls as tls
from pulumi_command import remote


class Room(pulumi.ComponentResource):
    """A component of any type token."""

    def __init__(self, token: str, name: str, opts: pulumi.ResourceOptions | None = None, **inputs: Any) -> None:
        super().__init__(token, name, inputs, opts)


class Step(pulumi.ComponentResource):
    """Like the real Step: inputs that can be reviewed, and one command of the same name."""

    def __init__(
        self,
        name: str,
        node: str,
        phase: str,
        key: tls.PrivateKey,
        parent: pulumi.Resource,
        files: Sequence[dict[str, Any]] = (),
        after: Sequence[pulumi.Resource] = (),
    ) -> None:
        face = {
            "node": node,
            "phase": phase,
            "variables": {"NODE": node, "TOKEN": pulumi.Output.secret("s3cret"), "QUOTED": "it's $HOME"},
            "files": list(files),
            "scripts": {f"{phase}.sh": "set -euo pipefail\necho hello\n", "lib.sh": "log() { :; }\n"},
            "timeout": 900,
        }
        super().__init__("cnilab:node:Step", name, face, pulumi.ResourceOptions(parent=parent))
        self.done = remote.Command(
            name,
            connection={"host": "192.0.2.1", "private_key": key.private_key_openssh},
            create="bash -s",
            stdin=pulumi.Output.all(files=list(files)).apply(lambda known: json.dumps(known["files"])),
            triggers=[key.id],
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(after), ignore_changes=["connection"]),
        )
        self.register_outputs({})


def program() -> None:
    """A lab of two nodes, with a provider and three objects."""
    network = Room("cnilab:network:Network", "net", cidr="10.0.0.0/16", size=24, ratio=0.5)
    key = tls.PrivateKey("key", algorithm="ED25519", opts=pulumi.ResourceOptions(parent=network))
    token = random.RandomPassword("token", length=6, opts=pulumi.ResourceOptions(parent=network))
    network_file = {
        "path": "/etc/cni/net.d/00-multus.conf",
        "mode": "0600",
        "content": {"type": "multus", "delegates": [{"subnet": key.public_key_openssh, "token": token.result}]},
    }
    documents = {"path": "/etc/kubernetes/init.yaml", "mode": "0644", "content": [{"kind": "A"}, {"kind": "B"}]}
    plain = {"path": "/etc/crio/lab.conf", "mode": "0644", "content": "[crio]\n"}
    one = Step("prepare-one", "one", "prepare", key, network, [plain, documents])
    two = Step("prepare-two", "two", "prepare", key, network, [plain])
    init = Step("init", "one", "init", key, network, [network_file], [one.done])
    Step("join", "two", "join", key, network, [], [two.done, init.done])
    provider = kubernetes.Provider(
        "api", kubeconfig=key.private_key_pem.apply(lambda pem: json.dumps({"key": pem})), cluster_identifier=key.id
    )
    objects = Room(
        "cnilab:calico:Calico",
        "calico",
        pulumi.ResourceOptions(providers=[provider], deleted_with=init.done, protect=True),
    )
    after_init = pulumi.ResourceOptions(parent=objects, depends_on=[init.done])
    config = kubernetes.core.v1.ConfigMap(
        "config", metadata={"name": "lab", "namespace": "kube-system"}, data={"a": "one\ntwo\n"}, opts=after_init
    )
    installation = kubernetes.apiextensions.CustomResource(
        "installation",
        api_version="operator.tigera.io/v1",
        kind="Installation",
        metadata={"name": "default"},
        spec={"calicoNetwork": {"bgp": "Disabled", "ipPools": [{"blockSize": 24}]}},
        opts=pulumi.ResourceOptions.merge(after_init, pulumi.ResourceOptions(depends_on=[config])),
    )
    kubernetes.core.v1.ServiceAccount("account", metadata={"name": "lab"}, opts=after_init)
    pulumi.export("public", key.public_key_openssh)
    pulumi.export("private", key.private_key_pem)
    pulumi.export("installation", installation.metadata["name"])
    pulumi.log.warn("a word of warning")


if __name__ == "__main__":
    program()

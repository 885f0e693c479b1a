"""What must be true of the Services and of the pools' NAT: on every node the rules of kube-proxy and Felix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from components.spec import models
from components.spec.placement import pod_count
from components.verify.expect.shared import restart_felix
from components.verify.model import Expectation, ObservedLab, Topic
from components.verify.services import ServicePort

_OF_KUBERNETES = (("default", "kubernetes"), ("kube-system", "kube-dns"))


def have_endpoints(observed: ObservedLab) -> Iterator[Expectation]:
    """The lab's own Services, and those of Kubernetes itself that are there, lead to a pod that is ready."""
    listed = {port.id for port in observed.services}
    of_kubernetes = [name for name in _OF_KUBERNETES if "/".join(name) in listed]
    own = [
        (workload.namespace, workload.name)
        for workload in observed.spec.workloads
        if workload.service is not None and pod_count(observed.spec, workload)
    ]
    for namespace, name in (*of_kubernetes, *own):
        selected = next((port.selector for port in observed.services if port.id == f"{namespace}/{name}"), {})
        yield _has_endpoint(namespace, name, selected)


def no_endpoint(port: ServicePort) -> Expectation:
    """The same of any other Service, which somebody wants to reach."""
    return _has_endpoint(port.namespace, port.service, port.selector)


def _has_endpoint(namespace: str, name: str, selector: Mapping[str, str]) -> Expectation:
    labels = ",".join(f"{key}={value}" for key, value in selector.items())
    return Expectation(
        topic=Topic.SERVICE,
        key=f"{namespace}/{name}",
        expected={"ready": "yes"},
        sentence=f"the Service {namespace}/{name} has a ready endpoint",
        command=f"kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name}",
        because="a Service leads to the pods that its selector matches and that are ready",
        cause=f"no ready pod has the labels of its selector ({labels})" if labels else "no endpoint was written for it",
        advice=f"compare kubectl -n {namespace} get service {name} -o wide with get pods --show-labels; "
        "if `./lab break` did it: `./lab mend STACK`",
        about=f"{namespace}/{name}",
    )


def rules(observed: ObservedLab, node: models.Node) -> Iterator[Expectation]:
    """A node's rules for every Service and every pool."""
    for port in observed.services:
        yield translated(observed, node.name, port)
    for pool in observed.spec.calico.pools:
        yield masqueraded(observed, node.name, pool)


def translated(observed: ObservedLab, node: str, port: ServicePort) -> Expectation:
    """A node translates a Service's address to its endpoints, or rejects what is sent there where there is none."""
    endpoints = sorted(endpoint.text for endpoint in port.endpoints)
    if endpoints:
        sentence = f"{node} translates {port.address}:{port.port} ({port.proxy_name}) to {', '.join(endpoints)}"
    else:
        sentence = f"{node} rejects packets to {port.address}:{port.port} ({port.proxy_name}), which has no endpoint"
    return Expectation(
        topic=Topic.SERVICE,
        key=port.key,
        expected={"endpoints": " ".join(endpoints), "rejected": "no" if endpoints else "yes"},
        sentence=sentence,
        command=_rules_of(observed, port),
        because="kube-proxy has a rule for every ready endpoint of the EndpointSlices",
        cause="kube-proxy does not run on this node or has not followed, or its rules were changed by hand",
        advice=f"kubectl -n kube-system delete pod -l k8s-app=kube-proxy --field-selector spec.nodeName={node}: "
        "its successor writes the rules anew",
        node=node,
    )


def _rules_of(observed: ObservedLab, port: ServicePort) -> str:
    if observed.spec.calico.linux_dataplane == "Nftables":
        return f"nft list table ip kube-proxy | grep -F '{port.id}/{port.protocol}/{port.name}'"
    return f"iptables-save -t nat | grep -F '{port.proxy_name}'"


def masqueraded(observed: ObservedLab, node: str, pool: models.Pool) -> Expectation:
    """What a pool's pods send outside gets the node's address, or keeps theirs."""
    chain = "cali-nat-outgoing"
    command = f"iptables-save -t nat | grep -- '-A {chain}'"
    if observed.spec.calico.linux_dataplane == "Nftables":
        command = f"nft list chain ip calico nat-{chain}"
    wanted = "yes" if pool.nat_outgoing else "no"
    how = "gets the node's address" if pool.nat_outgoing else "keeps the pod's address"
    return Expectation(
        topic=Topic.NAT,
        key=str(pool.cidr),
        expected={"masquerade": wanted},
        sentence=f"what a pod of pool {pool.name} sends out of the pools {how} on {node}",
        command=command,
        because=f"calico.pools: natOutgoing of {pool.name} is {str(pool.nat_outgoing).lower()}",
        cause="the IPPool in the cluster has another natOutgoing, or the rules were changed by hand",
        advice=f"kubectl get ippool {pool.name} -o yaml; {restart_felix(observed, node)}; "
        "if `./lab break` did it: `./lab mend STACK`",
        node=node,
    )

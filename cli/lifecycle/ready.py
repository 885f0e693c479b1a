"""Waits until a cluster whose machines were started serves again, and says what is missing meanwhile."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cli.errors import CommandError
from cli.live.stack import outputs
from components.slowdown import scaled
from components.verify.read import api

TIMEOUT_SECONDS = 300.0
"""How long the API, its extensions and every node may take."""
PODS_TIMEOUT_SECONDS = 120.0
"""How much longer the pods may take. A pod that does not start is no reason to fail: it may never have run."""
_SILENT_SECONDS = 30.0
"""How long the wait is silent, and how long between two of its lines."""
_PAUSE_SECONDS = 2.0
_SHOWN = 4
_KINDS = {
    "nodes": api.KINDS["nodes"],
    "pods": api.KINDS["pods"],
    "leases": "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
    "apiservices": "/apis/apiregistration.k8s.io/v1/apiservices",
}


def wait_for_cluster(command: str, stack: str, nodes: Sequence[str]) -> bool:
    """Wait until the cluster of a lab that was started serves; says so, or what is missing. A lab whose `up` never
    reached its end has no cluster to wait for."""
    try:
        kubeconfig = str(outputs(stack).get("kubeconfig") or "")
    except CommandError:
        kubeconfig = ""
    if not kubeconfig:
        print(f"its last `up` did not finish: ./lab up {stack}")
        return True
    print(f"lab {command}: waiting until the cluster of {stack} serves", file=sys.stderr)
    if not asyncio.run(_wait(command, stack, kubeconfig, nodes)):
        return False
    print(f"the cluster serves: ./lab verify {stack}")
    return True


async def _wait(command: str, stack: str, kubeconfig: str, nodes: Sequence[str]) -> bool:
    """Whether the API answers with its extensions and every node is Ready in time; says what is missing on stderr."""
    started, shown, next_line = time.monotonic(), "", _SILENT_SECONDS
    first: dict[str, str] = {}
    while True:
        cluster, pods = await missing(kubeconfig, nodes, first)
        seconds = time.monotonic() - started
        lacking = cluster or pods
        if not lacking:
            return True
        over = seconds > scaled(TIMEOUT_SECONDS if cluster else TIMEOUT_SECONDS + PODS_TIMEOUT_SECONDS)
        text = "; ".join(lacking[:_SHOWN]) + (f"; and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else "")
        if over:
            print(f"lab {command}: after {seconds:.0f} s {stack} still lacks: {text}", file=sys.stderr)
            return not cluster
        if seconds > next_line and text != shown:
            print(f"lab {command}: waiting since {seconds:.0f} s: {text}", file=sys.stderr)
            shown, next_line = text, seconds + _SILENT_SECONDS
        await asyncio.sleep(_PAUSE_SECONDS)


async def missing(kubeconfig: str, nodes: Sequence[str], first: dict[str, str]) -> tuple[list[str], list[str]]:
    """What the cluster lacks: the API, its extensions and nodes; then pods. Each says why.

    The API still shows a stopped machine as it was before. So a node counts once its kubelet has renewed its lease,
    which it does every ten seconds; `first` keeps the time of renewal that was seen first.
    """
    try:
        objects = await api.read(kubeconfig, _KINDS)
    except api.NoApi as error:
        return [str(error)], []
    cluster = [f"{kind} of the API ({reason})" for kind, reason in objects.missing.items()]
    leases = {_name(item): str(item.get("spec", {}).get("renewTime")) for item in objects.of("leases")}
    known = {_name(item): item for item in objects.of("nodes")}
    for node in nodes:
        ready = _condition(known[node], "Ready") if node in known else {}
        if node not in known:
            cluster.append(f"node {node}: the cluster does not know it")
        elif ready.get("status") != "True":
            cluster.append(f"node {node}: not Ready ({_why(ready)})")
        elif first.setdefault(node, leases.get(node, "")) == leases.get(node, ""):
            cluster.append(f"node {node}: its kubelet has not reported since the start")
    for service in objects.of("apiservices"):
        available = _condition(service, "Available")
        if available.get("status") != "True":
            cluster.append(f"the API {_name(service)}: not available ({_why(available)})")
    return cluster, [line for pod in objects.of("pods") if (line := _missing_pod(pod))]


def _missing_pod(pod: Mapping[str, Any]) -> str | None:
    """The pod and why it is not ready; None if it is, or if it ended as it should."""
    status = pod.get("status", {})
    ready = _condition(pod, "Ready")
    if status.get("phase") in ("Succeeded", "Failed") or ready.get("status") == "True":
        return None
    waiting = [
        reason
        for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        if (reason := container.get("state", {}).get("waiting", {}).get("reason"))
    ]
    where = pod.get("spec", {}).get("nodeName")
    name = f"{pod['metadata']['namespace']}/{_name(pod)}"
    return f"pod {name}{f' on {where}' if where else ''}: {waiting[0] if waiting else _why(ready)}"


def _condition(item: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found = item.get("status", {}).get("conditions") or ()
    return next((condition for condition in found if condition.get("type") == kind), {})


def _why(condition: Mapping[str, Any]) -> str:
    words = [condition.get("reason"), condition.get("message")]
    return ": ".join(" ".join(str(word).split()) for word in words if word)[:200] or "no status yet"


def _name(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])

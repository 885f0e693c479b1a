"""What a change of a Service sets off on a real cluster: the EndpointSlice controller gives it other endpoints, and
kube-proxy writes its rules anew on every node.

The standard library is all it needs: holder.py runs it without the lab's virtual environment.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence

from components.sandbox import proxy
from components.sandbox.services import PODS, SERVICES, SLICES, Object, endpoint_slice, merge_patch
from components.slowdown import scaled

_SECONDS = 30


class Controller:
    """`objects`: the API's, which it changes. `namespaces`: node → path of its network namespace. `tool`: iptables or
    nft; empty: the nodes have no rules for Services."""

    def __init__(
        self,
        objects: dict[str, list[Object]],
        namespaces: Mapping[str, str],
        *,
        tool: str,
        pod_cidr: str,
        service_cidr: str,
    ) -> None:
        self._objects, self._namespaces, self._tool = objects, namespaces, tool
        self._pod_cidr, self._service_cidr = pod_cidr, service_cidr
        self._lock = threading.Lock()

    def patch(self, namespace: str, name: str, patch: Object) -> Object | None:
        """Apply a merge patch to a Service; its endpoints and every node's rules follow. Returns the Service; None if
        there is none. Raises OSError where a node does not take the rules."""
        with self._lock:
            before = self._ports()
            found: Object | None = None
            services, slices = self._objects[SERVICES], self._objects[SLICES]
            for number, it in enumerate(services):
                if (it["metadata"]["namespace"], it["metadata"]["name"]) == (namespace, name):
                    found = services[number] = merge_patch(it, patch)
            if found is None or not found["spec"].get("selector"):
                return found
            for number, it in enumerate(slices):
                labels = it["metadata"].get("labels") or {}
                owner = (it["metadata"]["namespace"], labels.get("kubernetes.io/service-name"))
                if owner == (namespace, name):
                    made = endpoint_slice(found, it["metadata"]["name"], self._objects[PODS])
                    slices[number] = it | {"endpoints": made["endpoints"], "ports": made["ports"]}
            self._write(before)
            return found

    def _ports(self) -> list[proxy.ServicePort]:
        return proxy.service_ports(self._objects[SERVICES], self._objects[SLICES])

    def _write(self, before: Sequence[proxy.ServicePort]) -> None:
        if not self._tool:
            return
        if self._tool == "iptables":
            lines = proxy.iptables_rules(self._ports(), self._pod_cidr, before)
            command = ["iptables-restore", "--noflush"]
        else:
            lines = proxy.nft_rules(self._ports(), self._pod_cidr, self._service_cidr)
            command = ["nft", "-f", "-"]
        text = "".join(f"{line}\n" for line in lines)
        for node, namespace in self._namespaces.items():
            enter = ["nsenter", f"--net={namespace}", "--", *command]
            done = subprocess.run(
                enter, input=text, capture_output=True, text=True, timeout=scaled(_SECONDS), check=False
            )
            if done.returncode:
                raise OSError(f"{node}: {done.stderr.strip() or 'the rules were not taken'}")

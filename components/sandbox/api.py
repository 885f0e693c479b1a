"""A stand-in for the Kubernetes API: HTTPS, client certificates, lists as a real API server gives them.

GET of a list, of a namespace's part of it, of one object; `limit` and `continue`, and `fieldSelector` of plain fields;
and discovery, so that `kubectl get` works. It is read-only but for a merge patch of a Service, which `./lab break`
needs. The standard library is all it needs, for holder.py runs it without the lab's virtual environment.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME: like kube-apiserver, an expired client certificate is refused by 401, not by TLS."""
_IDLE_SECONDS = 30


class Resource(NamedTuple):
    """One kind as the API serves it, e.g. /api/v1 pods."""

    path: str
    plural: str
    kind: str
    namespaced: bool = False
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return self.path.removeprefix("/apis/").removeprefix("/api/")

    @property
    def builtin(self) -> bool:
        """Items of a list of built-in kinds carry neither apiVersion nor kind; items of custom resources do."""
        return "projectcalico" not in self.path and "cni.cncf.io" not in self.path and "tigera" not in self.path


_CRD = "/apis/crd.projectcalico.org/v1"
RESOURCES = [
    Resource("/api/v1", "nodes", "Node", short_names=("no",)),
    Resource("/api/v1", "pods", "Pod", True, ("po",)),
    Resource("/api/v1", "events", "Event", True, ("ev",)),
    Resource("/api/v1", "namespaces", "Namespace", short_names=("ns",)),
    Resource("/api/v1", "services", "Service", True, ("svc",)),
    Resource("/apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlice", True),
    Resource("/apis/networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", True, ("netpol",)),
    Resource("/apis/events.k8s.io/v1", "events", "Event", True),
    Resource("/apis/apps/v1", "deployments", "Deployment", True, ("deploy",)),
    Resource("/apis/apps/v1", "daemonsets", "DaemonSet", True, ("ds",)),
    Resource(
        "/apis/k8s.cni.cncf.io/v1", "network-attachment-definitions", "NetworkAttachmentDefinition", True, ("nad",)
    ),
    Resource(_CRD, "ippools", "IPPool"),
    Resource(_CRD, "blockaffinities", "BlockAffinity"),
    Resource(_CRD, "ipamblocks", "IPAMBlock"),
    Resource(_CRD, "ipamhandles", "IPAMHandle"),
    Resource(_CRD, "ipamconfigs", "IPAMConfig"),
    Resource(_CRD, "ipreservations", "IPReservation"),
    Resource(_CRD, "felixconfigurations", "FelixConfiguration"),
    Resource(_CRD, "networkpolicies", "NetworkPolicy", True),
    Resource(_CRD, "globalnetworkpolicies", "GlobalNetworkPolicy"),
    Resource(_CRD, "tiers", "Tier"),
    Resource(_CRD, "bgpconfigurations", "BGPConfiguration"),
    Resource(_CRD, "bgppeers", "BGPPeer"),
    Resource(_CRD, "caliconodestatuses", "CalicoNodeStatus"),
]


class Api:
    """Serves `objects` (list path, such as /api/v1/pods → items) on a port of 127.0.0.1 until closed. They may be
    changed while it serves. `ca`: PEM of the clients' CA; `certificate`: PEM of the server's certificate and key."""

    def __init__(self, objects: dict[str, list[Object]], ca: Path, certificate: Path) -> None:
        self.objects = objects
        self.requests: list[str] = []
        """Paths asked for, in order."""
        self.patch_service: Callable[[str, str, Object], Object | None] | None = None
        """Applies a merge patch to the Service of this namespace and name and returns it; None if there is none.
        Without this function the API is read-only."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_verify_locations(ca)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        self.use_certificate(certificate)
        api = self

        class Handler(_Handler):
            def setup(self) -> None:
                self.api = api
                self.request.settimeout(_IDLE_SECONDS)
                self.request = api._context.wrap_socket(self.request, server_side=True)
                super().setup()

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def use_certificate(self, certificate: Path) -> None:
        """The server's certificate for connections from now on."""
        self._context.load_cert_chain(certificate)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that refuses the certificate, or goes away, needs no report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer in one packet, at once. Else the second waits until the client confirms the first.
    wbufsize = -1
    disable_nagle_algorithm = True
    server_version = "kube-apiserver"
    api: Api

    def log_message(self, format: str, *args: object) -> None:
        return

    def _admitted(self, path: str) -> bool:
        """Whether the client's certificate lets it in; else it has been told so."""
        assert isinstance(self.request, ssl.SSLSocket)
        certificate = self.request.getpeercert()
        if not certificate:
            self._refuse(403, "Forbidden", f'forbidden: User "system:anonymous" cannot get path "{path}"')
            return False
        if ssl.cert_time_to_seconds(str(certificate["notAfter"])) < datetime.now(UTC).timestamp():
            self._refuse(401, "Unauthorized", "Unauthorized")
            return False
        return True

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.api.requests.append(path)
        match path.split("/")[1:]:
            case ["api", "v1", "namespaces", namespace, "services", name] if self.api.patch_service is not None:
                if not self._admitted(path):
                    return
                if self.headers.get("Content-Type") != "application/merge-patch+json":
                    self._refuse(415, "UnsupportedMediaType", "the stand-in takes application/merge-patch+json only")
                    return
                try:
                    changed = self.api.patch_service(namespace, name, json.loads(body))
                except (ValueError, OSError) as error:
                    self._refuse(500, "InternalError", str(error))
                    return
                if changed is None:
                    self._refuse(404, "NotFound", f'services "{name}" not found')
                else:
                    self._send(200, {"apiVersion": "v1", "kind": "Service"} | changed)
            case _:
                self._refuse(405, "MethodNotAllowed", "this API is read-only, but for the Services")

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        self.api.requests.append(address.path)
        if not self._admitted(address.path):
            return
        if address.path == "/version":
            self._send(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.3", "platform": "linux/amd64"})
        elif (answer := discovery(address.path) or self._find(address.path, query)) is not None:
            self._send(200, answer)
        else:
            self._refuse(404, "NotFound", "the server could not find the requested resource")

    def _find(self, path: str, query: Mapping[str, str]) -> Object | None:
        for resource in RESOURCES:
            rest = path.removeprefix(resource.path + "/")
            if rest == path:
                continue
            words = rest.split("/")
            namespace = None
            if words[0] == "namespaces" and len(words) > 2:
                namespace, words = words[1], words[2:]
            if words[0] != resource.plural or len(words) > 2:
                continue
            items = self.api.objects[f"{resource.path}/{resource.plural}"]
            if namespace is not None:
                items = [it for it in items if it["metadata"].get("namespace") == namespace]
            if len(words) == 2:
                head = {"apiVersion": resource.api_version, "kind": resource.kind}
                return next((head | it for it in items if it["metadata"]["name"] == words[1]), None)
            return self._list(resource, items, query)
        return None

    def _list(self, resource: Resource, items: list[Object], query: Mapping[str, str]) -> Object:
        for term in filter(None, query.get("fieldSelector", "").split(",")):
            path, _, wanted = term.replace("==", "=").partition("=")
            keep = path.removesuffix("!")
            items = [it for it in items if (str(_field(it, keep)) == wanted) != path.endswith("!")]
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "0"))
        page = items[start : start + limit] if limit else items[start:]
        metadata: Object = {"resourceVersion": "1700"}
        if start + len(page) < len(items):
            metadata |= {"continue": str(start + len(page)), "remainingItemCount": len(items) - start - len(page)}
        if resource.builtin:
            page = [{key: value for key, value in it.items() if key not in ("apiVersion", "kind")} for it in page]
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": page}

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self._send(code, status | {"message": message, "reason": reason, "code": code})

    def _send(self, code: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def discovery(path: str) -> Object | None:
    """What `kubectl` asks first: which groups and resources there are. None for any other path."""
    groups: dict[str, str] = {}
    for resource in RESOURCES:
        group, _, version = resource.api_version.rpartition("/")
        groups[group] = version
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        named = []
        for group, number in groups.items():
            if group:
                served = {"groupVersion": f"{group}/{number}", "version": number}
                named.append({"name": group, "versions": [served], "preferredVersion": served})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
    found = [
        {
            "name": resource.plural,
            "singularName": resource.kind.lower(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": ["get", "list"],
            "shortNames": list(resource.short_names),
        }
        for resource in RESOURCES
        if resource.path == path
    ]
    version = path.removeprefix("/apis/").removeprefix("/api/")
    return (
        {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found} if found else None
    )


def _field(it: Object, path: str) -> Any:
    found: Any = it
    for key in path.split("."):
        found = found.get(key, "") if isinstance(found, dict) else ""
    return found

"""One read per kind from the lab's Kubernetes API, with the kubeconfig that the stack gives out."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from components.slowdown import scaled
from components.spec.own_yaml import SafeLoader

_TIMEOUT_SECONDS = 15.0
# Every connection costs a handshake on both sides, and through a jump host a channel.
_CONNECTIONS_AT_ONCE = 4

KINDS = {
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "deployments": "/apis/apps/v1/deployments",
    "daemonsets": "/apis/apps/v1/daemonsets",
    "events": "/api/v1/events",
    "warnings": "/api/v1/events",
    "ippools": "/apis/crd.projectcalico.org/v1/ippools",
    "blockaffinities": "/apis/crd.projectcalico.org/v1/blockaffinities",
    "ipamblocks": "/apis/crd.projectcalico.org/v1/ipamblocks",
    "ipreservations": "/apis/crd.projectcalico.org/v1/ipreservations",
    "bgppeers": "/apis/crd.projectcalico.org/v1/bgppeers",
    "services": "/api/v1/services",
    "endpointslices": "/apis/discovery.k8s.io/v1/endpointslices",
}
_QUERY = {
    "events": {"fieldSelector": "reason=AddedInterface"},
    "warnings": {"fieldSelector": "type=Warning"},
}

Item = Mapping[str, Any]


class NoApi(Exception):
    """The API cannot be read at all; str() says why and what to do."""


class NotListed(Exception):
    """The API answers, but does not list one kind; str() says why."""


@dataclass(frozen=True)
class Objects:
    """What the API has, by kind (keys of KINDS). A kind that could not be read is in `missing`, with the reason."""

    items: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def of(self, kind: str) -> tuple[Item, ...]:
        """The objects of a kind; none where they could not be read."""
        return self.items.get(kind, ())


async def read(kubeconfig: str, kinds: Mapping[str, str] = KINDS) -> Objects:
    """Every kind, all at once. `kinds`: kind → path. Raises NoApi."""
    items: dict[str, tuple[Item, ...]] = {}
    missing: dict[str, str] = {}

    async def read_kind(kind: str, path: str) -> None:
        try:
            items[kind] = await list_objects(client, path, _QUERY.get(kind, {}))
        except NotListed as error:
            missing[kind] = str(error)

    async with connected(kubeconfig) as client:
        await asyncio.gather(*(read_kind(kind, path) for kind, path in kinds.items()))
    return Objects(items, missing)


@asynccontextmanager
async def connected(kubeconfig: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API, by way of the kubeconfig's proxy if there is one. Raises NoApi for a kubeconfig that cannot
    be used. A NoApi that is raised while it is used then names the proxy."""
    server = server_of(kubeconfig)
    async with httpx.AsyncClient(
        base_url=server.address,
        verify=server.tls,
        proxy=server.proxy,
        # A request that waits for another one's connection waits no longer than that one does.
        timeout=httpx.Timeout(scaled(_TIMEOUT_SECONDS), pool=None),
        trust_env=False,
        limits=httpx.Limits(max_connections=_CONNECTIONS_AT_ONCE),
    ) as client:
        try:
            yield client
        except NoApi as error:
            if server.proxy is None:
                raise
            raise NoApi(f"{error}. Its kubeconfig leads there through {server.proxy}: does that proxy run?") from None


async def list_objects(client: httpx.AsyncClient, path: str, query: Mapping[str, str]) -> tuple[Item, ...]:
    """The objects of a path. Raises NoApi where the API does not answer or does not accept the kubeconfig; NotListed
    where it has no such list."""
    response = await send(client, "GET", path, params=dict(query))
    if response.status_code == 404:
        raise NotListed(f"{path}: not found (404); is Calico installed?")
    if response.status_code != 200:
        raise NotListed(f"{path}: HTTP {response.status_code}")
    try:
        found = response.json()["items"]
    except (ValueError, KeyError, TypeError):
        raise NotListed(f"{path}: the answer is not a list of objects") from None
    return tuple(item for item in found or () if isinstance(item, dict))


async def send(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response:
    """The API's answer to a request. `options`: httpx' own. Raises NoApi where the API does not answer or does not
    accept the kubeconfig."""
    try:
        response = await client.request(method, path, **options)
    except httpx.ProxyError as error:
        reason = f"the proxy on the way to the API at {client.base_url} refuses to go there ({error})"
        raise NoApi(f"{reason}: does the jump host reach it?") from None
    except httpx.ConnectError as error:
        raise NoApi(_reason(str(client.base_url), error)) from None
    except httpx.HTTPError as error:
        raise NoApi(f"the API at {client.base_url} does not answer ({str(error) or type(error).__name__})") from None
    if response.status_code == 401:
        raise NoApi(
            f"the API at {client.base_url} does not accept the kubeconfig's certificate (401): it has expired, or it "
            "is another cluster's. `up` makes a new one"
        )
    return response


def _reason(server: str, error: Exception) -> str:
    text = str(error)
    if "certificate has expired" in text or "CERTIFICATE_EXPIRED" in text or "certificate expired" in text:
        return f"the API at {server}: a certificate has expired; `up` renews the kubeconfig, kubeadm the server's"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"the API at {server} shows a certificate that the lab's CA did not sign: another cluster answers there"
    return f"the API at {server} does not answer ({text or type(error).__name__}): is the control plane up?"


class Server(NamedTuple):
    """An API server and how it is reached. `proxy`: the URL of the proxy on the way, if there is one."""

    address: str
    tls: ssl.SSLContext
    proxy: str | None


def server_of(kubeconfig: str) -> Server:
    """The server of a kubeconfig with one cluster and one user, as the stack's output has. Raises NoApi."""
    if not kubeconfig:
        raise NoApi("the stack has no output `kubeconfig`: its `up` ended too early. Run `up` again")
    try:
        config = yaml.load(kubeconfig, Loader=SafeLoader)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        certificate = base64.b64decode(user["client-certificate-data"])
        key = base64.b64decode(user["client-key-data"])
        context = ssl.create_default_context(cadata=authority)
        # ssl takes a key only from a file.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "client.pem")
            path.touch(mode=0o600)
            path.write_bytes(certificate + b"\n" + key)
            context.load_cert_chain(path)
        return Server(str(cluster["server"]), context, cluster.get("proxy-url"))
    except (KeyError, IndexError, TypeError, ValueError, yaml.YAMLError, ssl.SSLError) as error:
        raise NoApi(
            f"the stack's kubeconfig cannot be used ({type(error).__name__}: {' '.join(str(error).split())}): "
            "run `up` again"
        ) from None

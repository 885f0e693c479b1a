"""One read per kind from the lab's Kubernetes API, with the kubeconfig the stack gave out."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

TIMEOUT = 15.0

KINDS = {
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "events": "/api/v1/events",
    "ippools": "/apis/crd.projectcalico.org/v1/ippools",
    "blockaffinities": "/apis/crd.projectcalico.org/v1/blockaffinities",
    "ipamblocks": "/apis/crd.projectcalico.org/v1/ipamblocks",
    "ipreservations": "/apis/crd.projectcalico.org/v1/ipreservations",
}
# The API's own watch cache is good enough for all but what changed a moment ago, and cheap.
_QUERY = {"events": {"fieldSelector": "reason=AddedInterface"}}

Item = Mapping[str, Any]


class NoApi(Exception):
    """The API cannot be read; str() says why and what to do."""


@dataclass(frozen=True)
class Objects:
    """What the API holds, by kind (keys of KINDS); a kind that could not be read is in `missing` with the reason."""

    items: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def of(self, kind: str) -> tuple[Item, ...]:
        """The kind's objects; none where they could not be read."""
        return self.items.get(kind, ())


async def read(kubeconfig: str, kinds: Mapping[str, str] | None = None) -> Objects:
    """Every kind, at once. Raises NoApi where the API as a whole does not answer or does not know us."""
    server, context = _client(kubeconfig)
    items: dict[str, tuple[Item, ...]] = {}
    missing: dict[str, str] = {}
    async with httpx.AsyncClient(base_url=server, verify=context, timeout=TIMEOUT, trust_env=False) as client:
        wanted = kinds or KINDS
        answers = await asyncio.gather(*(_list(client, path, _QUERY.get(kind)) for kind, path in wanted.items()))
    for kind, answer in zip(wanted, answers, strict=True):
        if isinstance(answer, str):
            missing[kind] = answer
        else:
            items[kind] = answer
    return Objects(items, missing)


async def _list(client: httpx.AsyncClient, path: str, query: Mapping[str, str] | None) -> tuple[Item, ...] | str:
    try:
        response = await client.get(path, params=dict(query or {}))
    except httpx.ConnectError as error:
        raise NoApi(_why(str(client.base_url), error)) from None
    except httpx.HTTPError as error:
        raise NoApi(f"the API at {client.base_url} does not answer ({str(error) or type(error).__name__})") from None
    if response.status_code == 401:
        raise NoApi(
            f"the API at {client.base_url} does not know the kubeconfig's certificate (401): it has expired or is "
            "another cluster's. `up` makes a new one"
        )
    if response.status_code == 404:
        return f"{path}: not there (404); is Calico installed?"
    if response.status_code != 200:
        return f"{path}: HTTP {response.status_code}"
    try:
        found = response.json()["items"]
    except (ValueError, KeyError, TypeError):
        return f"{path}: no list of objects"
    return tuple(item for item in found or () if isinstance(item, dict))


def _why(server: str, error: Exception) -> str:
    text = str(error)
    if "certificate has expired" in text or "CERTIFICATE_EXPIRED" in text or "certificate expired" in text:
        return f"the API at {server}: a certificate has expired; `up` renews the kubeconfig, kubeadm the server's"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"the API at {server} shows a certificate that the lab's CA did not sign: another cluster answers there"
    return f"the API at {server} does not answer ({text or type(error).__name__}): is the control plane up?"


def _client(kubeconfig: str) -> tuple[str, ssl.SSLContext]:
    """Server and TLS of a kubeconfig with one cluster and one user, as the stack's output has. Raises NoApi."""
    if not kubeconfig:
        raise NoApi("the stack gives out no kubeconfig: its `up` did not come that far. Run `up` again")
    try:
        config = yaml.safe_load(kubeconfig)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        certificate = base64.b64decode(user["client-certificate-data"])
        key = base64.b64decode(user["client-key-data"])
        context = ssl.create_default_context(cadata=authority)
        # ssl takes a key from a file only.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "client.pem")
            path.touch(mode=0o600)
            path.write_bytes(certificate + b"\n" + key)
            context.load_cert_chain(path)
        return str(cluster["server"]), context
    except (KeyError, IndexError, TypeError, ValueError, yaml.YAMLError, ssl.SSLError) as error:
        raise NoApi(
            f"the stack's kubeconfig cannot be used ({type(error).__name__}: {' '.join(str(error).split())}): "
            "run `up` again"
        ) from None

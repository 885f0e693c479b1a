"""Cost of `verify` as the lab grows: `python benchmarks/verify.py`.

Every node is read through a real SSH connection, and every kind of object from a real HTTPS server. The answers are
made from the lab's expectations, so every check runs and passes. There is one connection for each node, and 100 nodes
take at most 12 times as long as 10 (CPU time of a new process, including the servers). Exit code 1 if that does not
hold.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import asyncssh

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ratio import report  # noqa: E402
from components.sandbox.api import Api  # noqa: E402
from components.sandbox.certificates import Authority  # noqa: E402
from components.sandbox.objects import make_objects  # noqa: E402
from components.sandbox.plan import make_plan  # noqa: E402
from components.verify.expect import expectations  # noqa: E402
from components.verify.model import Expectation, OneOf, Value, Within  # noqa: E402
from components.verify.read.reading import LiveLab, Reading, observed, read_cluster, read_lab  # noqa: E402
from components.verify.read.ssh import SshAccess  # noqa: E402
from components.verify.report import verify  # noqa: E402
from tests.verify.replica_labs import of_size  # noqa: E402

RUNS = 3
BOUND = 12.0


def answer(found: list[Expectation]) -> str:
    """The output of observe.sh on a node that is as expected."""
    links: dict[str | None, dict[str, dict[str, Any]]] = {}
    routes: dict[str | None, list[str]] = {}
    out: dict[str, list[str]] = {n: [] for n in ("neighbour", "fdb", "proxy_arp", "file", "crio", "filter")}
    probes = []
    for e in found:
        if e.expected is None:
            continue
        fields = {key: _value(value) for key, value in e.expected.items()}
        match e.topic:
            case "link" | "address":
                link = links.setdefault(e.pod, {}).setdefault(e.key, {"ifname": e.key, "flags": ["UP"]})
                _add_link(link, fields, e.topic == "address")
            case "route":
                kind = f"{fields.pop('type')} " if "type" in fields else ""
                onlink = " onlink" if fields.pop("onlink", "") else ""
                words = " ".join(f"{key} {value}" for key, value in fields.items())
                routes.setdefault(e.pod, []).append(f"{kind}{e.key} {words}{onlink}")
            case "neighbour":
                device, _, address = e.key.partition(" ")
                out["neighbour"].append(f"{address} dev {device} lladdr {fields['lladdr']} {fields['state']}")
            case "fdb":
                device, _, mac = e.key.partition(" ")
                out["fdb"].append(f"{mac} dev {device} dst {fields['dst']} self permanent")
            case "proxy_arp":
                out["proxy_arp"].append(f"/proc/sys/net/ipv4/conf/{e.key}/proxy_arp:1")
            case "file" if e.key != "first":
                text = "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in fields.items()) + "}"
                out["file"].append(f"{e.key} {base64.b64encode(text.encode()).decode()}")
            case "crio":
                out["crio"].append(f"Updated default CNI network name to {fields['name']}")
            case "probe":
                probes.append((e.key, f"64 bytes from x: icmp_seq=1 ttl={fields['ttl']} time=0.1 ms"))
    text = _section("link", json.dumps(_numbered(links)))
    text += _section("route", "\n".join(routes.get(None, []))) + _section("ip_forward", "1")
    text += "".join(_section(name, "\n".join(lines)) for name, lines in out.items())
    for number, pod in enumerate(p for p in links if p):
        inside = [
            link | {"link_index": 100 + number} if link["ifname"] == "eth0" else link for link in links[pod].values()
        ]
        text += _section(f"pod ns{number} link", json.dumps(inside))
        text += _section(f"pod ns{number} route", "\n".join(routes.get(pod, [])))
        text += _section(f"pod ns{number} neighbour", "")
    return text + "".join(_section(f"probe {key}", line) for key, line in probes)


def _value(value: Value) -> str:
    if isinstance(value, OneOf):
        return value.values[0]
    return str(value.first) if isinstance(value, Within) else value


def _section(name: str, text: str) -> str:
    return f"\x1e{name}\n{text}\n\x1f0\n"


def _add_link(link: dict[str, Any], fields: dict[str, str], address: bool) -> None:
    if address:
        link.setdefault("addr_info", [{"family": "inet", "local": fields["address"], "prefixlen": 32}])
        return
    data: dict[str, Any] = {"info_kind": fields.get("kind", "")}
    if fields.get("kind") == "vxlan":
        data["info_data"] = {
            "id": fields["id"],
            "local": fields["local"],
            "link": fields["dev"],
            "port": fields["port"],
        }
        data["info_data"]["learning"] = False
    link |= {"linkinfo": data, "mtu": fields.get("mtu", 0), "address": fields.get("address", "")}
    parts = [cidr.partition("/") for cidr in fields.get("addresses", "").split()]
    if parts:
        link["addr_info"] = [{"family": "inet", "local": a, "prefixlen": n} for a, _, n in parts]


def _numbered(links: dict[str | None, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The node's own links. The host side of a pod's link has the index that the pod's eth0 refers to."""
    index = {pod: 100 + number for number, pod in enumerate(p for p in links if p)}
    return [link | {"ifindex": index.get(name, number)} for number, (name, link) in enumerate(links[None].items(), 2)]


async def measure(nodes: int, pods: int) -> dict[str, float]:
    """The number of checks, failures and connections of one verify, and its CPU time in seconds."""
    lab = of_size(nodes, pods)
    plan = make_plan(lab)
    connections = 0

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            nonlocal connections
            connections += 1

        def begin_auth(self, username: str) -> bool:
            return True

        def public_key_auth_supported(self) -> bool:
            return True

        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            return True

    answers: dict[str, str] = {}

    async def serve(process: asyncssh.SSHServerProcess[str]) -> None:
        await process.stdin.read()
        process.stdout.write(answers[process.get_extra_info("username")])
        process.exit(0)

    key = asyncssh.generate_private_key("ssh-ed25519")
    public = " ".join(key.export_public_key().decode().split()[:2])
    server = await asyncssh.create_server(
        Server, "127.0.0.1", 0, server_host_keys=[key], process_factory=serve, encoding="utf-8", backlog=256
    )
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        authority, ca, certificate = Authority(), Path(folder, "ca.crt"), Path(folder, "server.pem")
        ca.write_text(authority.pem)
        certificate.write_text("".join(authority.issue("kube-apiserver")))
        api = Api(make_objects(plan), ca, certificate)
        private = key.export_private_key().decode()
        access = {n.name: SshAccess(n.name, "127.0.0.1", port, n.name, private, public) for n in lab.nodes}
        live = LiveLab(lab, plan.blocks, access, authority.kubeconfig(api.url))
        found = expectations(observed(live, await read_cluster(live)))
        for name in access:
            answers[name] = answer([e for e in found if e.node == name])
        connections = 0
        before = resource.getrusage(resource.RUSAGE_SELF)
        read: Reading = await read_lab(live)
        results = verify(live, read)
        after = resource.getrusage(resource.RUSAGE_SELF)
        api.close()
    server.close()
    failed = [r for r in results if r.status != "passed" and r.expectation.topic != "source_dest"]
    for result in failed[:3]:
        print(result.expectation.id, result.status, result.difference, file=sys.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"checks": len(results), "failed": len(failed), "connections": connections, "cpu": cpu}


def fresh(nodes: int, pods: int) -> dict[str, float]:
    """The run with the lowest CPU time of several new processes."""
    runs = []
    for _ in range(RUNS):
        command = [sys.executable, __file__, str(nodes), str(pods)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        sys.stderr.write(done.stderr)
        runs.append(json.loads(done.stdout))
    return min(runs, key=lambda run: float(run["cpu"]))


def main() -> int:
    small, ten, hundred = fresh(3, 30), fresh(10, 50), fresh(100, 500)
    for nodes, run in ((3, small), (10, ten), (100, hundred)):
        print(
            f"{nodes:4} nodes: {run['checks']:6.0f} checks, "
            f"{run['connections']:.0f} connections, {run['cpu']:.2f} s CPU"
        )
    broken = report("100 nodes / 10 nodes", hundred["cpu"] / ten["cpu"], BOUND)
    one_each = (small["connections"], ten["connections"], hundred["connections"]) == (3, 10, 100)
    failed = sum(run["failed"] for run in (small, ten, hundred))
    broken |= report("checks that failed", failed, 0)
    return int(broken or not one_each)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2])))))
    else:
        sys.exit(main())

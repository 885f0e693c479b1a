"""Run the program on a stack and ask its graph questions."""

from __future__ import annotations

import difflib
import json
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from components.spec.load import load_stack_file, parse_lab
from components.spec.models import Lab
from engine.model import Deployment, Registration, Resource
from engine.run import run_program
from engine.simulation import simulate_create, simulate_invoke

ROOT = Path(__file__).resolve().parents[2]
STACKS = sorted(p.name.removeprefix("Pulumi.").removesuffix(".yaml") for p in (ROOT / "stacks").glob("Pulumi.*.yaml"))
COMMAND = "command:remote:Command"
STEP = "cnilab:node:Step"


@dataclass(frozen=True)
class Graph:
    """One run. `plain` holds each custom resource's inputs with secrets, by URN (filled in a simulated up only)."""

    deployment: Deployment
    plain: dict[str, dict[str, Any]]

    @cached_property
    def by_urn(self) -> dict[str, Resource]:
        return {r.urn: r for r in self.deployment.resources}

    def of_type(self, kind: str) -> list[Resource]:
        return [r for r in self.deployment.resources if r.type == kind]

    def one(self, kind: str, ending: str = "") -> Resource:
        found = [r for r in self.of_type(kind) if r.name.endswith(ending)]
        assert len(found) == 1, f"{kind} …{ending}: {[r.name for r in found]}"
        return found[0]

    def step(self, node: str, phase: str) -> Resource:
        """The command of a step on a node."""
        steps = [s for s in self.of_type(STEP) if (s.inputs["node"], s.inputs["phase"]) == (node, phase)]
        assert len(steps) == 1, f"{phase} on {node}: {[s.name for s in steps]}"
        return self.command(steps[0])

    def command(self, step: Resource) -> Resource:
        return next(r for r in self.deployment.resources if r.parent == step.urn and r.type == COMMAND)

    def objects(self, kind: str = "") -> list[Resource]:
        """Kubernetes objects, of one kind or of all."""
        return [
            r
            for r in self.deployment.resources
            if r.type.startswith("kubernetes:") and (not kind or r.inputs.get("kind") == kind)
        ]

    def behind(self, resource: Resource) -> set[str]:
        """URNs of everything that must be there before this resource."""
        seen: set[str] = set()
        stack = [resource.urn]
        while stack:
            current = self.by_urn[stack.pop()]
            following = set(current.dependencies) | ({current.provider} if current.provider else set())
            for urn in following - seen:
                seen.add(urn)
                stack.append(urn)
        return seen

    def waits(self, later: Resource, earlier: Resource) -> bool:
        return earlier.urn in self.behind(later)


def connections(graph: Graph) -> list[Resource]:
    """The commands that a first up runs; the others wait for a change."""
    return [command for command in graph.of_type(COMMAND) if command.inputs.get("create")]


def differences(before: Graph, after: Graph) -> tuple[set[str], set[str], set[str]]:
    """Names of resources added, removed, and changed in their inputs."""
    old, new = before.by_urn, after.by_urn
    changed = {new[u].name for u in old.keys() & new.keys() if old[u].inputs != new[u].inputs}
    return {new[u].name for u in new.keys() - old.keys()}, {old[u].name for u in old.keys() - new.keys()}, changed


PASSWORD = "the peers' password"


def _configuration(lab: Any) -> dict[str, str]:
    """A stack's configuration with the lab, and a password for each that it names."""
    peers = lab.get("calico", {}).get("peers", []) if isinstance(lab, dict) else []
    passwords = {f"cni-lab:{peer['password']['config']}": PASSWORD for peer in peers if "password" in peer}
    return {"cni-lab:lab": json.dumps(lab), "aws:region": "us-west-2", **passwords}


def run_lab(lab: Any, stack: str = "test", *, dry_run: bool = True) -> Graph:
    """The graph of a lab given as the stack file's own data."""
    return _shared(json.dumps(_configuration(lab)), stack, dry_run)


def run_lab_once(lab: Any, *, dry_run: bool = True, timeout_seconds: float = 60) -> Graph:
    """The same, for a lab that no other test asks for: it is not kept."""
    return _run(_configuration(lab), "test", dry_run, timeout_seconds)


def run_stack(stack: str, *, dry_run: bool = True) -> Graph:
    """The graph of a stack that ships. An `up` needs the key file that the stack names; it gets one."""
    config = load_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml").config
    return _shared(json.dumps(config), stack, dry_run)


@cache
def _shared(config: str, stack: str, dry_run: bool) -> Graph:
    """Each graph is made once in a process, so a test must not change it; `assert_unchanged` looks after that."""
    graph = _run(json.loads(config), stack, dry_run, 120)
    _SHARED.append((graph, _lines(graph)))
    return graph


_SHARED: list[tuple[Graph, list[str]]] = []


def _lines(graph: Graph) -> list[str]:
    text = json.dumps([graph.deployment.to_json(), graph.plain], sort_keys=True, default=str, indent=1)
    return text.splitlines()


def assert_unchanged() -> None:
    """No test has changed a graph that others share."""
    for graph, before in _SHARED:
        changes = list(difflib.unified_diff(before, _lines(graph), "planned", "now", n=2, lineterm=""))
        assert not changes, "\n".join(["a test changed a plan that others share: copy it first", *changes[:40]])


def _run(config: dict[str, str], stack: str, dry_run: bool, timeout_seconds: float) -> Graph:
    lab = json.loads(config["cni-lab:lab"])
    with tempfile.NamedTemporaryFile("w", prefix="id_") as key:
        if not dry_run and "privateKeyFile" in lab.get("machines", {}):
            key.write("-----BEGIN OPENSSH PRIVATE KEY-----\nfor tests\n-----END OPENSSH PRIVATE KEY-----\n")
            key.flush()
            lab["machines"]["privateKeyFile"] = key.name
            config = config | {"cni-lab:lab": json.dumps(lab)}
        return _run_program(config, stack, dry_run, timeout_seconds)


def _run_program(config: dict[str, str], stack: str, dry_run: bool, timeout_seconds: float) -> Graph:
    plain: dict[str, dict[str, Any]] = {}
    blocks = json.dumps(made_up_blocks(parse_lab(json.loads(config["cni-lab:lab"]), config)))

    def create(registration: Registration) -> tuple[str, dict[str, Any]]:
        plain[registration.urn] = registration.inputs
        made, outputs = simulate_create(registration)
        return made, outputs | ({"stdout": blocks} if registration.name.endswith("-calico-blocks") else {})

    def invoke(token: str, args: dict[str, Any]) -> dict[str, Any]:
        zones = {"locations": ["us-west-2a", "us-west-2b"]} if token.endswith("getInstanceTypeOfferings") else {}
        return simulate_invoke(token, args) | zones

    deployment = run_program(
        ROOT / "__main__.py",
        stack=stack,
        config=config,
        secret_keys=[key for key in config if key.startswith("cni-lab:") and key != "cni-lab:lab"],
        dry_run=dry_run,
        create=create,
        invoke=invoke,
        timeout_seconds=timeout_seconds,
    )
    return Graph(deployment, plain)


def made_up_blocks(lab: Lab) -> dict[str, list[str]]:
    """What a cluster might have claimed: each node the next block of every pool."""
    free = [pool.cidr.subnets(new_prefix=pool.block_size) for pool in lab.calico.pools]
    return {node.name: [str(next(blocks)) for blocks in free] for node in lab.nodes}

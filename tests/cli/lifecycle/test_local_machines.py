"""`./lab stop`, `start`, `up` and `preview` of a local lab. Engine, scripts and state have stand-ins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import project
from cli.errors import FAILED, MISSING, CommandError
from cli.lifecycle import local_machines, ready
from cli.lifecycle.backend import Backend, StackMissing
from cli.live import machines
from components.spec.load import load_stack_file
from components.spec.models import Lab
from components.verify.read import api
from tests.support.cli import lab

NODES = ["ip1001100", "ip-10-0-2-200", "ip-10-0-2-201"]
STACK = "local"


def command(script: str, urn: str, **environment: str) -> dict[str, Any]:
    owned = {"STACK": STACK, "OWNER": "SHA256:x", "ENGINE": "podman"} if script != "kernel.sh" else {"MACHINES": "3"}
    variables = {**owned, **environment}
    create = f"bash components/machines/local-{script} create"
    return {"urn": urn, "type": "command:local:Command", "inputs": {"create": create, "environment": variables}}


CHECKPOINT = [
    {"urn": "stack", "type": "pulumi:pulumi:Stack"},
    command("engine.sh", "engine"),
    {"urn": "kernel", "inputs": {"create": "bash components/machines/local-kernel.sh create", "environment": {}}},
    *(command("network.sh", f"net-{s}", NETWORK=f"cni-lab-local-{s}") for s in ("control", "workers")),
    *(
        command("machine.sh", f"urn-{n}", NODE=n, NETWORK=f"cni-lab-local-{'workers' if n != NODES[0] else 'control'}")
        for n in NODES
    ),
    command("machine.sh", "old", NODE=NODES[1]) | {"delete": True},
]


class Computer:
    """The engine's containers by node, its networks, what the scripts were asked, and how they answer."""

    def __init__(self, folder: Path) -> None:
        self.containers = dict.fromkeys(NODES, "running")
        self.networks = {"podman", "cni-lab-local-control", "cni-lab-local-workers"}
        self.calls: list[tuple[str, str, str]] = []
        self.failing: dict[tuple[str, str], str] = {}
        self.folder = folder

    def answer(self, command: list[str]) -> str:
        if command[1] == "container":
            wanted = ["running"] if "status=running" in command else ["running", "exited"]
            return "".join(f"cni-lab-{STACK}-{node}\n" for node, is_ in self.containers.items() if is_ in wanted)
        return "\n".join(self.networks)

    def script(self, script: str, word: str, environment: dict[str, str]) -> str:
        name = environment.get("NODE") or environment.get("NETWORK") or "kernel"
        self.calls.append((script.removeprefix("components/machines/local-"), word, name))
        if word in ("start", "stop"):
            self.containers[name] = {"start": "running", "stop": "exited"}[word]
        return self.failing.get((word, name), "")


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Computer]:
    made = Computer(tmp_path)
    monkeypatch.setattr(project, "HOME", tmp_path / "home")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machines, "installed_engine", lambda settings: "podman")
    monkeypatch.setattr(local_machines, "installed_engine", lambda settings: "podman")
    for module in (machines, local_machines):
        monkeypatch.setattr(module, "run", made.answer)
    monkeypatch.setattr(local_machines, "run_script", made.script)
    monkeypatch.setattr(local_machines, "is_known_absent", lambda stack: False)
    monkeypatch.setattr(Backend, "__init__", lambda self, folder: None)
    monkeypatch.setattr(Backend, "resources", lambda self, stack: CHECKPOINT)
    yield made


def spec() -> Lab:
    return load_stack_file(project.stack_file(STACK)).lab


def prepare(command: str = "up", **options: bool) -> tuple[list[str], bool]:
    state = local_machines.read_state(STACK)
    return local_machines.prepare_up(command, STACK, spec(), state, repaired=options.get("repaired", False))


def test_stop_and_start(computer: Computer, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("stop", STACK) == 0
    assert capsys.readouterr().out == "local: 3 of 3 machines stopped now, the others were before\n" + (
        "To go on: ./lab start local\n"
    )
    assert sorted(computer.calls) == sorted(("machine.sh", "stop", node) for node in NODES)
    computer.calls.clear()
    assert lab("start", STACK) == 0
    assert capsys.readouterr().out.startswith("local: 3 of 3 machines running now, the others were before\n")
    assert [(script, word) for script, word, _ in computer.calls] == (
        [("kernel.sh", "create")] + [("network.sh", "update")] * 2 + [("machine.sh", "start")] * 3
    )


def test_a_failing_machine_shows_every_message(computer: Computer, capsys: pytest.CaptureFixture[str]) -> None:
    computer.failing = {("start", NODES[1]): "n1 is broken", ("start", NODES[2]): "n2 is broken\n  its last output"}
    assert lab("start", STACK) == FAILED
    assert capsys.readouterr().err == "lab start: n1 is broken\nn2 is broken\n  its last output\n"


def test_nothing_to_start(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lab("start", STACK) == MISSING
    assert capsys.readouterr().err == "lab start: the machines of local need root: sudo ./lab start local\n"
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def missing(self: Backend, stack: str) -> list[Any]:
        raise StackMissing("there is no such stack")

    monkeypatch.setattr(Backend, "resources", missing)
    assert lab("start", STACK) == 2
    assert capsys.readouterr().err == "lab start: local has no machines yet; run ./lab up local\n"


def test_up_starts_stopped_machines_and_reads_the_lab_again(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[object] = []
    monkeypatch.setattr(local_machines, "wait_for_cluster", lambda *words: waited.append(words) or True)
    assert prepare() == ([], False) and waited == []
    computer.containers[NODES[1]] = "exited"
    assert prepare("preview") == ([], False)
    assert computer.containers[NODES[1]] == "exited"
    options, again = prepare()
    assert (options, again) == (["--replace", "**::lab-verification"], False)
    assert waited == [("up", STACK, NODES)] and computer.containers[NODES[1]] == "running"
    assert f"lab up: the machines of {NODES[1]} are stopped and are started first" in capsys.readouterr().err


def test_up_makes_a_lost_machine_again_only_if_it_is_told_to(computer: Computer) -> None:
    del computer.containers[NODES[2]]
    with pytest.raises(CommandError) as caught:
        prepare()
    text = f"{NODES[2]} of local is gone from this computer: ./lab up local --repair makes it again"
    assert str(caught.value) == text and caught.value.code == FAILED
    assert lab("start", STACK) == FAILED
    computer.calls.clear()
    assert prepare(repaired=True) == (["--replace", f"urn-{NODES[2]}"], True)
    assert [name for script, _, name in computer.calls if script == "machine.sh"] == NODES[:2]


def test_a_lost_network_takes_its_machines_along(computer: Computer) -> None:
    computer.networks.remove("cni-lab-local-workers")
    options, again = prepare(repaired=True)
    assert again and options[1::2] == ["net-workers", f"urn-{NODES[1]}", f"urn-{NODES[2]}"]
    with pytest.raises(CommandError, match=r"cni-lab-local-workers, .* of local are gone from this computer"):
        prepare()


def test_ranges_of_networks_that_the_lab_has_are_not_looked_at(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    computer.failing = {("check", "cni-lab-local-control"): "a", ("check", "cni-lab-local-workers"): "b"}
    assert local_machines.ranges_in_use(STACK, spec(), local_machines.read_state(STACK)) == []
    monkeypatch.setattr(Backend, "resources", lambda self, stack: [])
    assert local_machines.ranges_in_use(STACK, spec(), local_machines.read_state(STACK)) == ["a", "b"]


# --- looking at the engine first --------------------------------------------------------------------------------------


@pytest.fixture
def deployed(computer: Computer, monkeypatch: pytest.MonkeyPatch) -> Computer:
    outputs = {"access": {node: {"kind": "none"} for node in NODES}, "kubeconfig": "k", "nodes": {}, "blocks": {}}
    for module in ("cli.live.stack", "cli.sandbox.choice"):
        monkeypatch.setattr(f"{module}.outputs", lambda stack: outputs)
    return computer


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["verify"], 1),
        (["walk", "a", "b"], 1),
        (["addresses"], 1),
        (["kubeconfig"], 1),
        (["break", "fdb-gone", "--yes"], 1),
        (["mend"], 1),
        (["ssh", NODES[0]], 255),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_say_that_the_machines_are_stopped(
    words: list[str], code: int, deployed: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.containers = dict.fromkeys(NODES, "exited")
    verb, *rest = words
    assert lab(verb, STACK, *rest) == code
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"lab {verb}: the machines of local are stopped: ./lab start local\n")


def test_one_stopped_machine_is_named_and_the_command_goes_on(
    deployed: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.containers[NODES[1]] = "exited"
    assert lab("kubeconfig", STACK) == 0
    said = capsys.readouterr()
    assert said.out == "k\n"
    assert said.err == f"lab: these machines of local do not run: {NODES[1]} (stopped): ./lab start local\n"


def test_machines_that_are_gone(deployed: Computer, capsys: pytest.CaptureFixture[str]) -> None:
    deployed.containers = {}
    assert lab("verify", STACK) == FAILED
    assert capsys.readouterr().err == "lab verify: the machines of local are gone: ./lab up local --repair\n"


def test_without_root_the_bridges_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def interface(address: str, operstate: str) -> dict[str, Any]:
        return {"operstate": operstate, "addr_info": [{"local": address, "prefixlen": 24}]}

    # Docker keeps a bridge that has no machine; podman removes it.
    shown = [interface("10.0.1.1", "UP"), interface("10.0.2.1", "DOWN"), interface("127.0.0.1", "UNKNOWN")]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(machines.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(machines, "run", lambda command: json.dumps(shown))
    assert machines.states(STACK, spec(), NODES) == {NODES[0]: "running", NODES[1]: "stopped", NODES[2]: "stopped"}
    assert machines.states(STACK, spec(), []) == {}
    monkeypatch.setattr(machines.shutil, "which", lambda name: None)
    assert machines.states(STACK, spec(), NODES) == {}


def test_other_labs_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "run", lambda command: pytest.fail("it was asked for"))
    aws = load_stack_file(project.stack_file("cfos-egress")).lab
    assert machines.states("cfos-egress", aws, NODES) == {}


# --- the wait for the cluster -----------------------------------------------------------------------------------------


def node(name: str, status: str = "True", reason: str = "KubeletReady") -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": "m"}
    return {"metadata": {"name": name}, "status": {"conditions": [condition]}}


def lease(name: str, renewed: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"renewTime": renewed}}


def pod(name: str, ready: str, **status: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "reason": "ContainersNotReady", "message": "m"}
    return {
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"nodeName": "a"},
        "status": {"phase": "Running", "conditions": [condition], **status},
    }


Answer = Callable[[], api.Objects]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Answer]]:
    """The answers of the API, one after the other; the last one stays. Time passes only in pauses."""
    answers: list[Answer] = []
    now = [0.0]

    async def read(kubeconfig: str, kinds: object) -> api.Objects:
        return (answers.pop(0) if len(answers) > 1 else answers[0])()

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(ready.api, "read", read)
    monkeypatch.setattr(ready.asyncio, "sleep", sleep)
    monkeypatch.setattr(ready.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ready, "outputs", lambda stack: {"kubeconfig": "k"})
    yield answers


def objects(renewed: str, *pods: dict[str, Any], **node_status: str) -> Answer:
    service = {"metadata": {"name": "v3"}, "status": {"conditions": [{"type": "Available", "status": "True"}]}}
    items = {
        "nodes": (node("a", **node_status),),
        "leases": (lease("a", renewed),),
        "apiservices": (service,),
        "pods": pods,
    }
    return lambda: api.Objects(items)


def silent() -> api.Objects:
    raise api.NoApi("the API at x does not answer")


def test_a_node_counts_once_its_kubelet_reports(cluster: list[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    """Until then the API shows what was true before the machines were stopped."""
    cluster += [
        *[silent] * 20,
        *[objects("1")] * 20,
        *[objects("2", pod("p", "False"))] * 20,
        objects("2", pod("p", "True")),
    ]
    assert ready.wait_for_cluster("start", "s", ["a"])
    said = capsys.readouterr()
    assert said.out == "the cluster serves: ./lab verify s\n"
    assert said.err.splitlines() == [
        "lab start: waiting until the cluster of s serves",
        "lab start: waiting since 32 s: the API at x does not answer",
        "lab start: waiting since 64 s: node a: its kubelet has not reported since the start",
        "lab start: waiting since 96 s: pod n/p on a: ContainersNotReady: m",
    ]


def test_what_is_missing_at_the_end_is_said(cluster: list[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    cluster.append(objects("1", status="Unknown", reason="NodeStatusUnknown"))
    assert not ready.wait_for_cluster("start", "s", ["a", "b"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        "lab start: after 302 s s still lacks: node a: not Ready (NodeStatusUnknown: m); "
        "node b: the cluster does not know it"
    )


def test_a_pod_that_never_starts_is_no_failure(cluster: list[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
    ended = pod("done", "False", phase="Succeeded")
    cluster += [objects("1"), objects("2", pod("p", "False", **waiting), ended)]
    assert ready.wait_for_cluster("start", "s", ["a"])
    assert "after 422 s s still lacks: pod n/p on a: ImagePullBackOff" in capsys.readouterr().err


def test_a_lab_without_a_cluster_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ready, "outputs", lambda stack: {})
    assert ready.wait_for_cluster("start", "s", ["a"])
    assert capsys.readouterr().out == "its last `up` did not finish: ./lab up s\n"

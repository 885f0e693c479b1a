"""`./lab status STACK`: its machines, its cluster, the last verify, its sandbox, and the commands that come next."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import yaml
from rich.console import Console
from rich.text import Text

from cli.console import page
from cli.errors import CommandError
from cli.lifecycle.backend import BackendError
from cli.lifecycle.deployments import Deployment, deployments
from cli.live.last_verify import LastVerify, last
from cli.live.machines import states
from cli.live.stack import outputs
from cli.plan.overview import overview
from cli.project import stack_file
from cli.sandbox.choice import changes, home
from components.calico.blocks import foreseen
from components.sandbox import life
from components.sandbox.life import LiveSandbox
from components.sandbox.running import SandboxError
from components.slowdown import scaled
from components.spec.load import StackFile, load_stack_file
from components.system_errors import system_message

_WIDTH = 100
_ANSWER_SECONDS = 3.0
"""How long a machine or the API may take to accept a connection."""
_API_PORT = 6443


@dataclass(frozen=True)
class Answer:
    """Whether something accepts connections. `where`: HOST:PORT, or how it is reached. `answers`: None if it was not
    asked. `state`: that of a local machine that does not run, and is therefore not asked."""

    where: str
    answers: bool | None
    state: str = ""


@dataclass(frozen=True)
class Status:
    """`machines`: by node. `api`: None if there is no kubeconfig. `problem`: why the state could not be read.
    `engine_problem`: why it is not known which machines run; none of them is asked then."""

    file: StackFile
    deployment: Deployment | None
    problem: str
    engine_problem: str
    blocks: Mapping[str, Sequence[str]] | None
    machines: Mapping[str, Answer]
    api: Answer | None
    verified: LastVerify | None
    sandbox: LiveSandbox | None
    sandbox_changed: bool
    sandbox_verified: LastVerify | None


def run(stack: str, *, as_json: bool) -> int:
    """Print it. Returns 0. Raises CommandError, SpecError."""
    status = read(stack)
    if as_json:
        print(json.dumps(_document(status), indent=2, ensure_ascii=False))
    else:
        _show(status, page(_WIDTH))
    return 0


def read(stack: str) -> Status:
    """Everything about a stack that can be known in a few seconds. Raises CommandError, SpecError."""
    file = load_stack_file(stack_file(stack))
    deployment, problem, found = None, "", {}
    try:
        deployment = deployments([stack]).get(stack)
        if deployment is not None:
            found = outputs(stack)
    except (BackendError, CommandError, OSError) as error:
        problem = system_message(error) if isinstance(error, OSError) else str(error)
    access = found.get("access") or {}
    kubeconfig = found.get("kubeconfig") or ""
    machines: dict[str, Answer] = {}
    api: Answer | None = None
    engine_problem = ""
    try:
        down = {node: state for node, state in states(stack, file.lab, access).items() if state != "running"}
        machines, api = asyncio.run(_ask(access, kubeconfig, down))
    except CommandError as error:
        engine_problem = str(error)
    live_sandbox = None
    with suppress(SandboxError):
        life.sweep(home())
        live_sandbox = life.find(stack, home())
    return Status(
        file=file,
        deployment=deployment,
        problem=problem,
        engine_problem=engine_problem,
        blocks=found.get("blocks"),
        machines=machines,
        api=api,
        verified=last(stack, sandbox=False) if deployment else None,
        sandbox=live_sandbox,
        sandbox_changed=bool(live_sandbox and changes(live_sandbox)),
        sandbox_verified=_since(last(stack, sandbox=True), live_sandbox),
    )


def _since(verified: LastVerify | None, live_sandbox: LiveSandbox | None) -> LastVerify | None:
    """The last verify, if it was of the present sandbox."""
    if verified is None or live_sandbox is None or verified.at.timestamp() < live_sandbox.since - 1:
        return None
    return verified


async def _ask(
    access: Mapping[str, Any], kubeconfig: str, down: Mapping[str, str]
) -> tuple[dict[str, Answer], Answer | None]:
    """All at the same time: the machines by node, and the API of a kubeconfig. `down`: the state of local machines that
    do not run. Nothing is sent to them, because another computer may have the address."""
    server = _server(kubeconfig)
    machines = [_machine(entry, down.get(node, "")) for node, entry in access.items()]
    if server and access and len(down) == len(access):
        return dict(zip(access, await asyncio.gather(*machines), strict=True)), Answer(f"{server[0]}:{server[1]}", None)
    answers = await asyncio.gather(*machines, *([_connect(*server)] if server else []))
    return dict(zip(access, answers, strict=False)), answers[-1] if server else None


async def _machine(entry: Mapping[str, Any], down: str) -> Answer:
    host, port = str(entry.get("host", "")), int(entry.get("port") or 22)
    if down:
        return Answer(f"{host}:{port}", False, down)
    jump = entry.get("jump")
    if isinstance(jump, Mapping):
        # Only the jump host can say whether the machine answers.
        found = await _connect(str(jump.get("host", "")), int(jump.get("port") or 22))
        return Answer(f"{host}:{port} through {found.where}", None if found.answers else False)
    return await _connect(host, port)


async def _connect(host: str, port: int) -> Answer:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), scaled(_ANSWER_SECONDS))
    except (OSError, TimeoutError, ValueError):
        return Answer(f"{host}:{port}", False)
    writer.close()
    return Answer(f"{host}:{port}", True)


def _server(kubeconfig: str) -> tuple[str, int] | None:
    """Host and port of the API in a kubeconfig; None if it names none."""
    try:
        server = urlsplit(yaml.safe_load(kubeconfig)["clusters"][0]["cluster"]["server"])
        return (server.hostname, server.port or _API_PORT) if server.hostname else None
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError):
        return None


# --- what is printed --------------------------------------------------------------------------------------------------


def _show(status: Status, console: Console) -> None:
    file, name = status.file, status.file.name
    held = status.blocks or (status.sandbox.outputs.get("blocks") if status.sandbox and not status.deployment else None)
    for line in overview(name, file.lab, held or foreseen(file.lab), foreseen=not held):
        console.print(line, soft_wrap=True)
    console.print()
    _row(console, "lab", *_lab(status))
    if status.engine_problem:
        _row(console, "machines", f"not known: {status.engine_problem}", "yellow")
    for number, (node, answer) in enumerate(status.machines.items()):
        _row(console, "" if number else "machines", f"{node}: {_answer(answer)}", _style(answer.answers))
    if status.api is not None:
        _row(console, "cluster", f"the API at {_answer(status.api)}", _style(status.api.answers))
    if status.deployment is not None:
        _row(console, "verify", *_verified(status.verified, f"./lab verify {name}"))
    if status.sandbox is None:
        _row(console, "sandbox", "none")
    else:
        since = _time(datetime.fromtimestamp(status.sandbox.since, UTC))
        changed = "; the stack file has changed since" if status.sandbox_changed else ""
        _row(console, "sandbox", f"up since {since}{changed}", "yellow" if changed else "green")
        _row(console, "", *_verified(status.sandbox_verified, f"./lab verify {name} --sandbox"))
    console.print("\n[bold]Next[/]")
    for command in _next(status):
        console.print(f"  ./lab {command}", soft_wrap=True, highlight=False)


def _row(console: Console, name: str, text: str, style: str = "") -> None:
    console.print(Text.assemble((f"  {name:9} ", "dim"), (text, style)), soft_wrap=True)


def _lab(status: Status) -> tuple[str, str]:
    if status.problem:
        return f"not known: {status.problem}", "yellow"
    found = status.deployment
    if found is None:
        return "not up", ""
    since = f" since {_time(found.since)}" if found.since else ""
    changed = f", last changed {_time(found.changed)}" if found.changed else ""
    text = f"up{since}{changed}, {found.resources} resources"
    if found.updating:
        return f"{text}; an update runs now, or was killed", "yellow"
    if not status.machines and not status.engine_problem:
        return f"half up: its last `up` did not get as far as the machines ({found.resources} resources)", "yellow"
    return text, "green"


def _answer(answer: Answer) -> str:
    words = {True: "answers", False: f"does not answer within {scaled(_ANSWER_SECONDS):g} s", None: "was not asked"}
    return f"{answer.where} {f'is {answer.state}' if answer.state else words[answer.answers]}"


def _style(answers: bool | None) -> str:
    return {True: "green", False: "red", None: ""}[answers]


def _verified(found: LastVerify | None, command: str) -> tuple[str, str]:
    if found is None:
        return f"not verified yet: {command}", ""
    text = f"verified {_time(found.at)}: {found.passed} passed, {found.failed} failed, {found.unknown} unknown"
    return text, "green" if not found.failed + found.unknown else "red" if found.failed else "yellow"


def _time(at: datetime | None) -> str:
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M")


def _next(status: Status) -> list[str]:
    name = status.file.name
    found = {answer.state for answer in status.machines.values()}
    if "gone" in found:
        return [f"up {name} --repair", f"destroy {name}"]
    if "stopped" in found:
        return [f"start {name}", f"destroy {name}"]
    if status.deployment is not None:
        return [f"verify {name}", f"ssh {name} {status.file.lab.nodes[0].name}", f"destroy {name}"]
    if status.sandbox is not None:
        rebuild = [f"sandbox {name} --rebuild"] if status.sandbox_changed else []
        return [*rebuild, f"verify {name}", f"sandbox {name} --down"]
    here = [] if status.file.lab.machines.in_containers else [f"up {name} --local"]
    return [f"sandbox {name}", f"plan {name}", f"up {name}", *here]


def _document(status: Status) -> dict[str, Any]:
    found, live_sandbox = status.deployment, status.sandbox
    return {
        "stack": status.file.name,
        "up": None if status.problem else found is not None,
        "problem": status.problem or status.engine_problem,
        "since": _iso(found.since) if found else None,
        "changed": _iso(found.changed) if found else None,
        "resources": found.resources if found else 0,
        "updating": bool(found and found.updating),
        "blocks": status.blocks,
        "machines": {node: {"at": it.where, "answers": it.answers} for node, it in status.machines.items()},
        "api": {"at": status.api.where, "answers": status.api.answers} if status.api else None,
        "verified": _verified_document(status.verified),
        "sandbox": None
        if live_sandbox is None
        else {
            "since": _iso(datetime.fromtimestamp(live_sandbox.since, UTC)),
            "changed": status.sandbox_changed,
            "verified": _verified_document(status.sandbox_verified),
        },
    }


def _verified_document(found: LastVerify | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"at": _iso(found.at), "passed": found.passed, "failed": found.failed, "unknown": found.unknown}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

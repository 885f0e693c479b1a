"""`./lab sandbox`: build a lab in network namespaces, list those that are up, remove them."""

from __future__ import annotations

import json
import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.console import page
from cli.errors import FAILED, USAGE, CommandError
from cli.project import stack_file
from cli.sandbox.choice import changes, home
from components.sandbox import life
from components.sandbox.life import BeingBuilt, LiveSandbox
from components.sandbox.running import SandboxError
from components.slowdown import scaled
from components.spec.load import load_stack_file
from components.spec.placement import pod_count

_WIDTH = 100
_OTHER_SECONDS = 180.0
"""How long a second command waits for the first one to build the same sandbox."""


def run(
    stack: str | None, *, down: bool = False, listed: bool = False, rebuild: bool = False, as_json: bool = False
) -> int:
    """Returns 0, or 1 where the sandbox is not as the file describes it. Raises CommandError, SpecError."""
    if listed + down + rebuild > 1:
        raise CommandError("--down, --list and --rebuild exclude one another", USAGE)
    try:
        if listed:
            return show_list(stack, as_json)
        if stack is None:
            raise CommandError("name a stack, or use --list", USAGE)
        stack_file(stack)
        return take_down(stack) if down else put_up(stack, rebuild)
    except SandboxError as error:
        raise CommandError(str(error), FAILED) from None


def take_down(stack: str) -> int:
    removed = life.remove(stack, home())
    print(f"the sandbox {stack} is gone" if removed else f"{stack} has no sandbox")
    return 0


def put_up(stack: str, rebuild: bool) -> int:
    lab = load_stack_file(stack_file(stack)).lab
    life.sweep(home())
    live_sandbox = _live_sandbox(stack)
    if live_sandbox is not None and not rebuild:
        changed = changes(live_sandbox)
        if not changed:
            print(f"the sandbox {stack} is up since {_clock(live_sandbox.since)}")
            return 0
        print(f"the sandbox {stack} is up since {_clock(live_sandbox.since)}; the stack file has changed since then:")
        for line in changed:
            print(f"  {line}")
        if not (sys.stdin.isatty() and _agrees(f"Rebuild {stack}? What was changed in it by hand is lost. [y/N] ")):
            print(f"lab sandbox: `./lab sandbox {stack} --rebuild` builds it anew", file=sys.stderr)
            return 1
    if live_sandbox is not None:
        life.remove(stack, home())
    started = time.monotonic()
    try:
        running = life.build(stack, lab, home())
    except BeingBuilt:
        # Another command was first: what it builds is what was asked for.
        if _live_sandbox(stack) is None:
            raise
        print(f"the sandbox {stack} is up: another command built it")
        return 0
    seconds = time.monotonic() - started
    built = life.find(stack, home())
    if built is None:
        raise SandboxError(f"the sandbox {stack} ended at once: {running.directory / 'log'} may say why")
    show(built, seconds, page(_WIDTH))
    return 0


def _live_sandbox(stack: str) -> LiveSandbox | None:
    """The sandbox, once no other command builds or removes it. Raises SandboxError after _OTHER_SECONDS."""
    deadline = time.monotonic() + scaled(_OTHER_SECONDS)
    while True:
        try:
            return life.find(stack, home())
        except BeingBuilt:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _agrees(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def show(live_sandbox: LiveSandbox, seconds: float, console: Console) -> None:
    """What was built, what of it is real, and the commands that come next."""
    lab = live_sandbox.lab
    pods = sum(pod_count(lab, workload) for workload in lab.workloads)
    console.print(
        f"the sandbox [bold]{live_sandbox.name}[/] is up: {len(lab.nodes)} nodes, {pods} pods of workloads, "
        f"built in {seconds:.1f} s",
        soft_wrap=True,
    )
    for name, text in describe(live_sandbox):
        console.print(f"  [dim]{name:9}[/] {escape(text)}", soft_wrap=True)
    node = (lab.workers or lab.nodes)[0].name
    console.print("\nNext")
    for command in (f"verify {live_sandbox.name}", *_walk(live_sandbox), f"ssh {live_sandbox.name} {node}"):
        console.print(f"  [bold]./lab {command}[/]", soft_wrap=True)
    console.print(f"  [bold]./lab sandbox {live_sandbox.name} --down[/]", soft_wrap=True)


def _walk(live_sandbox: LiveSandbox) -> list[str]:
    names = [workload.name for workload in live_sandbox.lab.workloads if pod_count(live_sandbox.lab, workload)]
    return [f"walk {live_sandbox.name} {names[0]} {names[-1]}"] if names else []


def describe(live_sandbox: LiveSandbox) -> list[tuple[str, str]]:
    """What of a sandbox is real and what is not: a word and a sentence for each."""
    rows = [
        ("real", "the kernel's links, routes, ARP, tunnels, NAT and every packet"),
        ("stand-ins", "the Kubernetes API, in which only Services can be changed, and CRI-O's log"),
        ("absent", "Kubernetes, containers, and a Felix that repairs what breaks"),
    ]
    return rows + [("different", note) for note in live_sandbox.notes]


def show_list(stack: str | None, as_json: bool) -> int:
    """Every sandbox that is up here."""
    if stack is not None:
        raise CommandError("--list takes no stack", USAGE)
    life.sweep(home())
    found: list[LiveSandbox] = []
    building: list[str] = []
    for name in life.names(home()):
        try:
            live_sandbox = life.find(name, home())
        except BeingBuilt:
            building.append(name)
            continue
        if live_sandbox is not None:
            found.append(live_sandbox)
    if as_json:
        rows = [
            {"sandbox": it.name, "since": it.since, "nodes": len(it.lab.nodes), "rootless": it.rootless, "pid": it.pid}
            for it in found
        ]
        print(json.dumps(rows, indent=2))
        return 0
    if not found and not building:
        print("there is no sandbox")
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("sandbox", "nodes", "since", "as"):
        table.add_column(column)
    for it in found:
        who = "an ordinary user" if it.rootless else "root"
        table.add_row(it.name, str(len(it.lab.nodes)), _clock(it.since), who)
    for name in building:
        table.add_row(name, "", "is being built or removed", "")
    page(_WIDTH).print(table)
    return 0

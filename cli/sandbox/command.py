"""`./lab sandbox`: build a lab in network namespaces, list what stands, take it away."""

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
from components.sandbox.life import BeingBuilt, Standing
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
    stood = life.remove(stack, home())
    print(f"the sandbox {stack} is gone" if stood else f"no sandbox of {stack} stands")
    return 0


def put_up(stack: str, rebuild: bool) -> int:
    lab = load_stack_file(stack_file(stack)).lab
    life.sweep(home())
    standing = _standing(stack)
    if standing is not None and not rebuild:
        changed = changes(standing)
        if not changed:
            print(f"the sandbox {stack} stands since {_clock(standing.since)}")
            return 0
        print(f"the sandbox {stack} stands since {_clock(standing.since)}; the stack file has changed since then:")
        for line in changed:
            print(f"  {line}")
        if not (sys.stdin.isatty() and _agrees(f"Rebuild {stack}? What was changed in it by hand is lost. [y/N] ")):
            print(f"lab sandbox: `./lab sandbox {stack} --rebuild` builds it anew", file=sys.stderr)
            return 1
    if standing is not None:
        life.remove(stack, home())
    started = time.monotonic()
    try:
        running = life.build(stack, lab, home())
    except BeingBuilt:
        # Another command was first: what it builds is what was asked for.
        if _standing(stack) is None:
            raise
        print(f"the sandbox {stack} stands: another command built it")
        return 0
    seconds = time.monotonic() - started
    built = life.find(stack, home())
    if built is None:
        raise SandboxError(f"the sandbox {stack} ended as soon as it stood: {running.directory / 'log'} may say why")
    show(built, seconds, page(_WIDTH))
    return 0


def _standing(stack: str) -> Standing | None:
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


def show(standing: Standing, seconds: float, console: Console) -> None:
    """What stands, what of it is real, and the commands that come next."""
    lab = standing.lab
    pods = sum(pod_count(lab, workload) for workload in lab.workloads)
    console.print(
        f"[bold]{standing.name}[/] stands as a sandbox: {len(lab.nodes)} nodes, {pods} pods of workloads, "
        f"in {seconds:.1f} s",
        soft_wrap=True,
    )
    for name, text in describe(standing):
        console.print(f"  [dim]{name:9}[/] {escape(text)}", soft_wrap=True)
    node = (lab.workers or lab.nodes)[0].name
    console.print("\nNext")
    for command in (f"verify {standing.name}", *_walk(standing), f"ssh {standing.name} {node}"):
        console.print(f"  [bold]./lab {command}[/]", soft_wrap=True)
    console.print(f"  [bold]./lab sandbox {standing.name} --down[/]", soft_wrap=True)


def _walk(standing: Standing) -> list[str]:
    names = [workload.name for workload in standing.lab.workloads if pod_count(standing.lab, workload)]
    return [f"walk {standing.name} {names[0]} {names[-1]}"] if names else []


def describe(standing: Standing) -> list[tuple[str, str]]:
    """What of a sandbox is real and what is not: a word and a sentence for each."""
    rows = [
        ("real", "the kernel's links, routes, ARP, tunnels, NAT and every packet"),
        ("stand-ins", "the Kubernetes API (read-only) and CRI-O's log"),
        ("absent", "Kubernetes, containers, and a Felix that repairs what breaks"),
    ]
    return rows + [("different", note) for note in standing.notes]


def show_list(stack: str | None, as_json: bool) -> int:
    """Every sandbox that stands here."""
    if stack is not None:
        raise CommandError("--list takes no stack", USAGE)
    life.sweep(home())
    found: list[Standing] = []
    building: list[str] = []
    for name in life.names(home()):
        try:
            standing = life.find(name, home())
        except BeingBuilt:
            building.append(name)
            continue
        if standing is not None:
            found.append(standing)
    if as_json:
        rows = [
            {"sandbox": it.name, "since": it.since, "nodes": len(it.lab.nodes), "rootless": it.rootless, "pid": it.pid}
            for it in found
        ]
        print(json.dumps(rows, indent=2))
        return 0
    if not found and not building:
        print("no sandbox stands")
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

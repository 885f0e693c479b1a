"""The progress of a pulumi run, read from its event stream: phases, nodes, last lines, failures. Does no I/O itself.

An event is JSON as pulumi logs it (apitype.EngineEvent); unknown events are ignored. Times are the events' own, in
seconds.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.spec import names
from components.spec.models import Lab, MachineProvider

# In the order of an `up`; some run at the same time.
PHASES = (
    "machines", "prepare", "cluster", "upgrade", "joins", "calico", "multus", "node files", "workloads", "verification"
)  # fmt: skip
# The phase of a Step of the cluster, by the last word of its name.
STEPS: Mapping[str, str] = {
    "prepare": "prepare",
    "init": "cluster",
    "drain": "upgrade",
    "upgrade": "upgrade",
    "admit": "joins",
    "join": "joins",
}
# The phase of every other resource, by the component around it.
ROOMS = {
    names.MACHINES: "machines",
    names.NETWORK: "machines",
    names.BALANCER: "machines",
    names.ENDPOINT: "machines",
    # Keys are made before machines. Pki is inside Cluster, so it comes first here.
    names.PKI: "machines",
    names.CALICO: "calico",
    names.NODE_FILES: "node files",
    names.MULTUS: "multus",
    names.WORKLOADS: "workloads",
    names.VERIFICATION: "verification",
    names.CLUSTER: "cluster",
}
# The operations that take time. The others change only the state.
WORK = {"create", "update", "delete", "create-replacement", "delete-replaced", "import", "import-replacement"}

# How long each phase takes where no earlier run of the stack is known, without baked images or mirrors. A provider's
# model overrides these with `typical_seconds`.
TYPICAL_SECONDS: Mapping[str, Mapping[str, float]] = {
    "up": {"machines": 60, "prepare": 120, "cluster": 50, "upgrade": 120, "joins": 30, "calico": 120, "multus": 30,
           "node files": 15, "workloads": 30, "verification": 20},
    "destroy": {},
}  # fmt: skip


def phases_of(lab: Lab) -> list[str]:
    """The phases that an `up` of a lab can have."""
    absent = {"upgrade"}
    if len(lab.nodes) == 1:
        absent |= {"prepare", "joins"}
    if lab.multus is None:
        absent |= {"multus", "node files"}
    if not lab.workloads:
        absent.add("workloads")
    if not lab.verify:
        absent.add("verification")
    return [phase for phase in PHASES if phase not in absent]


@dataclass
class Work:
    """A resource that pulumi is working on. `line`: the last line of its output."""

    phase: str
    node: str | None
    what: str
    began: float
    line: str = ""


@dataclass
class Phase:
    """How far a phase is. `running` holds its work by URN; `done` and `unchanged` count resources."""

    began: float | None = None
    ended: float | None = None
    done: int = 0
    unchanged: int = 0
    failed: bool = False
    running: dict[str, Work] = field(default_factory=dict)

    def seconds(self, now: float) -> float:
        """How long it has been running, or ran."""
        if self.began is None:
            return 0.0
        return (now if self.running or self.ended is None else self.ended) - self.began


@dataclass(frozen=True)
class Failure:
    """An error. `lines`: the last lines of its message. `phase` and `node` are None where it belongs to none."""

    phase: str | None
    node: str | None
    what: str
    lines: tuple[str, ...]


@dataclass
class Progress:
    """The state of a run. `nodes`: their names. `total`: resources to work on by phase, if a preview counted them."""

    nodes: Sequence[str]
    total: Mapping[str, int] | None = None
    began: float | None = None
    last: float = 0.0
    phases: dict[str, Phase] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    planned: dict[str, list[str]] = field(default_factory=dict)
    _hosts: dict[str, str] = field(default_factory=dict)

    def take(self, event: object) -> None:
        """Take the next event into account."""
        if not isinstance(event, Mapping):
            return
        stamp = event.get("timestamp")
        if isinstance(stamp, int | float):
            self.last = max(self.last, float(stamp))
            self.began = self.began or float(stamp)
        if data := _mapping(event, "resourcePreEvent"):
            self._start(_mapping(data, "metadata"))
        elif data := _mapping(event, "resOutputsEvent"):
            self._end(_mapping(data, "metadata"), failed=False)
        elif data := _mapping(event, "resOpFailedEvent"):
            self._end(_mapping(data, "metadata"), failed=True)
        elif data := _mapping(event, "diagnosticEvent"):
            self._diagnostic(data)
        elif data := _mapping(event, "policyEvent"):
            self._policy(data)
        elif data := _mapping(event, "summaryEvent"):
            found = _mapping(data, "resourceChanges")
            self.changes = Counter({str(op): n for op, n in found.items() if isinstance(n, int) and op != "same"})

    def _start(self, metadata: Mapping[str, Any]) -> None:
        urn, op = metadata.get("urn"), metadata.get("op")
        if not isinstance(urn, str) or not isinstance(op, str):
            return
        if metadata.get("type") == names.STEP:
            inputs = _mapping(_mapping(metadata, "new") or _mapping(metadata, "old"), "inputs")
            if isinstance(inputs.get("node"), str):
                self._hosts[urn] = inputs["node"]
        phase = self._phase(urn, op)
        if phase is None:
            if op == "same" and (same := self._phase(urn, "create")):
                self.phases.setdefault(same, Phase()).unchanged += 1
            return
        self.planned.setdefault(op, []).append(name_of(urn))
        state = self.phases.setdefault(phase, Phase())
        state.began = self.last if state.began is None else state.began
        state.ended = None
        state.running[urn] = Work(phase, self.node_of(urn), name_of(urn), self.last)

    def _end(self, metadata: Mapping[str, Any], *, failed: bool) -> None:
        urn, op = metadata.get("urn"), metadata.get("op")
        if not isinstance(urn, str) or not isinstance(op, str) or (phase := self._phase(urn, op)) is None:
            return
        state = self.phases.setdefault(phase, Phase(began=self.last))
        # A replacement is two operations on one resource.
        if state.running.pop(urn, None) is not None:
            state.done += not failed
        state.failed |= failed
        state.ended = self.last

    def _diagnostic(self, data: Mapping[str, Any]) -> None:
        urn, severity = data.get("urn"), data.get("severity")
        text = clean(data.get("message"))
        if not text or severity == "debug":
            return
        if isinstance(urn, str) and severity != "error":
            line = text.splitlines()[-1].removeprefix("cni-lab: ")
            for phase in self.phases.values():
                # A script's result, which is JSON or a machine's id, is not shown.
                if (work := phase.running.get(urn)) and not re.match(r'[][{}"]|[0-9a-f]{64}$', line):
                    work.line = line
        elif severity == "error" and not re.fullmatch(r"(update|preview|destroy) failed|resource \S+ failed", text):
            self.failures.append(self._failure(urn if isinstance(urn, str) else "", text))

    def _policy(self, data: Mapping[str, Any]) -> None:
        """A violation of a mandatory rule, which stops the run."""
        urn, message = data.get("resourceUrn"), clean(data.get("message"))
        if data.get("enforcementLevel") == "mandatory" and message:
            rule = clean(data.get("policyName"))
            self.failures.append(self._failure(urn if isinstance(urn, str) else "", f"policy {rule}: {message}"))

    def _failure(self, urn: str, text: str) -> Failure:
        lines = [line for line in text.splitlines() if line.strip()]
        # `Process exited with status 1: running "sudo -n timeout 900 bash -s":`, followed by the output of the scripts.
        if len(lines) > 1 and re.match(r'.*: running ".*":$', lines[0]):
            del lines[0]
        name = name_of(urn) if urn else ""
        return Failure(phase_of(urn) if urn else None, self.node_of(urn), name, tuple(lines[-20:]))

    def _phase(self, urn: str, op: str) -> str | None:
        kind = urn.split("::")[2].rpartition("$")[2] if urn.count("::") >= 3 else ""
        if op not in WORK or kind.startswith(("cnilab:", "pulumi:")):
            return None
        phase = phase_of(urn)
        # A Step that upgrades does nothing when it is created.
        return None if phase == "upgrade" and not op.startswith("update") else phase

    def node_of(self, urn: str) -> str | None:
        """The node on which a Step runs, else the one in the resource's name."""
        for step, node in self._hosts.items():
            if _parent_of(step, urn):
                return node
        name = f"-{name_of(urn)}-"
        found = [node for node in self.nodes if f"-{node}-" in name]
        return max(found, key=len, default=None)


def phase_of(urn: str) -> str | None:
    """The phase of a resource, or None."""
    parts = urn.split("::", 3)
    if len(parts) < 4:
        return None
    types, name = parts[2], parts[3]
    step = STEPS.get(name.rpartition("-")[2])
    if names.STEP in types and step and names.CLUSTER in types:
        return step
    return next((phase for room, phase in ROOMS.items() if room in types), None)


def name_of(urn: str) -> str:
    """A resource's name in the program."""
    return urn.split("::", 3)[-1]


def _parent_of(step: str, urn: str) -> bool:
    """Whether the resource is the command of the Step, which has the Step's name."""
    types, _, name = step.rpartition("::")
    return urn.startswith(types + "$") and urn.endswith("::" + name)


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def clean(text: object) -> str:
    """A message without pulumi's colours, terminal sequences and control characters."""
    if not isinstance(text, str):
        return ""
    text = re.sub(r"<\{%.*?%\}>|\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return re.sub(r"[^\n\x20-\x7e\u00a0-\uffff]", " ", text).strip()


# --- expected times ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A successful run. `phases`: when each one began and ended, in seconds since the run began."""

    command: str
    phases: Mapping[str, tuple[float, float]]

    @property
    def adds(self) -> dict[str, float]:
        """The seconds that each phase added to the run; a phase that ran beside a longer one added none."""
        added, until = {}, 0.0
        for phase, (_, ended) in sorted(self.phases.items(), key=lambda item: item[1][1]):
            added[phase] = max(0.0, ended - until)
            until = max(until, ended)
        return added


def run_of(command: str, progress: Progress) -> Run | None:
    """What is kept of a run; None if it changed nothing."""
    start = progress.began or 0.0
    phases = {
        name: (phase.began - start, phase.ended - start)
        for name, phase in progress.phases.items()
        if phase.began is not None and phase.ended is not None
    }
    return Run(command, phases) if phases else None


@dataclass(frozen=True)
class Expected:
    """Expected times in seconds. `runs`: how many earlier runs they come from; 0 for typical ones."""

    total: float
    phases: Mapping[str, float]
    runs: int


def expected(command: str, machines: MachineProvider, phases: Iterable[str], earlier: Sequence[Run]) -> Expected:
    """What a run of these phases takes, by the median of earlier runs that had them, else by the rule of thumb."""
    runs = [run for run in earlier if run.command == command]
    thumb = {**TYPICAL_SECONDS.get(command, {}), **machines.typical_seconds.get(command, {})}
    own, total, known = {}, 0.0, 0
    for phase in phases:
        had = [run for run in runs if phase in run.phases]
        if had:
            own[phase] = statistics.median(run.phases[phase][1] - run.phases[phase][0] for run in had)
            total += statistics.median(run.adds[phase] for run in had)
        elif phase in thumb:
            own[phase] = thumb[phase]
            total += thumb[phase]
        known = max(known, len(had))
    return Expected(total, own, known)

"""Which pods run, and why others do not: the topic WORKLOAD, and the reasons that Kubernetes gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from components.verify.model import Entry, Table
from components.verify.read.api import Item, Objects

_SHOWN = 3
"""How many pods of one workload are named; the others are counted."""
_IN_STATUS_ALREADY = {"BackOff", "Failed", "FailedScheduling", "Evicted"}
"""Events that repeat what a pod's status says."""

Warnings = Mapping[tuple[str, str], Sequence[Item]]
"""Events of type Warning by the kind and NAMESPACE/NAME of what they are about, the oldest first."""


def workloads(objects: Objects) -> Table:
    """By "KIND NAMESPACE/NAME" of each Deployment, DaemonSet, and pod that no such object makes: how many pods are
    `ready`, and whether that is `complete`: yes where all that the object asks for are, and no other waits; empty where
    it asks for none and has none; else no."""
    found = warnings(objects)
    pods: dict[str, list[Item]] = {}
    for pod in objects.of("pods"):
        pods.setdefault(controller(pod), []).append(pod)
    table: Table = {key: (_entry(1, of, found),) for key, of in pods.items() if key.startswith("Pod ")}
    for kind, item in _controllers(objects):
        key = f"{kind} {_id(item)}"
        desired = _number(item, "spec", "replicas", 1) if kind == "Deployment" else _number(item, *_DESIRED, 0)
        table[key] = (_entry(desired, pods.get(key, ()), found, _refused(kind, item, found)),)
    return table


_DESIRED = ("status", "desiredNumberScheduled")


def _controllers(objects: Objects) -> Iterator[tuple[str, Item]]:
    for item in objects.of("deployments"):
        yield "Deployment", item
    for item in objects.of("daemonsets"):
        yield "DaemonSet", item


def _number(item: Item, part: str, key: str, default: int) -> int:
    value = (item.get(part) or {}).get(key, default)
    return value if isinstance(value, int) else default


def _entry(desired: int, pods: Iterable[Item], found: Warnings, refused: str = "") -> Entry:
    present = [pod for pod in pods if not _metadata(pod).get("deletionTimestamp")]
    # A controller replaces a pod that failed.
    living = [pod for pod in present if _status(pod).get("phase") != "Failed" or controller(pod).startswith("Pod ")]
    problems = [f"{_id(pod)}{_on(pod)}: {why}" for pod in living if (why := problem(pod, found))]
    ready = len(living) - len(problems)
    complete = _complete(desired, ready, len(living))
    line = f"{ready} of {desired} Ready"
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [f"and {len(problems) - _SHOWN} more pods"]
    failed = _failed([pod for pod in present if pod not in living])
    reason = "" if complete == "yes" else "; ".join([line, *problems, *([refused] if refused else []), *failed])
    return Entry({"ready": str(ready), "complete": complete}, line, reason)


def _complete(desired: int, ready: int, living: int) -> str:
    if desired == 0:
        return "no" if living else "empty"
    return "yes" if desired <= ready == living else "no"


def _failed(pods: Sequence[Item]) -> Iterator[str]:
    """Pods that ended and were replaced, such as those that kubelet evicts."""
    by_reason: dict[str, list[Item]] = {}
    for pod in pods:
        by_reason.setdefault(str(_status(pod).get("reason") or "Failed"), []).append(pod)
    for reason, of in by_reason.items():
        last = _text(_status(of[-1]).get("message"))
        yield f"{len(of)} more ended as {reason}{f': {last}' if last else ''}"


def _refused(kind: str, item: Item, found: Warnings) -> str:
    """Why the controller could not make a pod at all."""
    for condition in _status(item).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return f"{condition.get('reason')}: {_text(condition.get('message'))}"
    events = [e for e in found.get((kind, _id(item)), ()) if e.get("reason") == "FailedCreate"]
    return f"FailedCreate: {_text(events[-1].get('message'))}" if events and kind == "DaemonSet" else ""


# --- one pod ---------------------------------------------------------------------------------------------------------


def warnings(objects: Objects) -> Warnings:
    """The events of type Warning."""
    found: dict[tuple[str, str], list[Item]] = {}
    for event in sorted(objects.of("warnings"), key=_time):
        about = event.get("involvedObject") or {}
        if event.get("type") == "Warning":
            found.setdefault((str(about.get("kind")), f"{about.get('namespace')}/{about.get('name')}"), []).append(
                event
            )
    return found


def _time(event: Item) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def controller(pod: Item) -> str:
    """KIND NAMESPACE/NAME of the Deployment or DaemonSet that makes a pod; else of the pod."""
    metadata = _metadata(pod)
    owner: Item = next(iter(metadata.get("ownerReferences") or ()), {})
    kind, name = str(owner.get("kind", "")), str(owner.get("name", ""))
    if kind == "ReplicaSet":
        # It has the Deployment's name and the hash of the pods' template.
        return f"Deployment {metadata.get('namespace')}/{name.rpartition('-')[0]}"
    return f"DaemonSet {metadata.get('namespace')}/{name}" if kind == "DaemonSet" else f"Pod {_id(pod)}"


def problem(pod: Item, found: Warnings) -> str:
    """Why a pod is not Ready, as Kubernetes says; empty where it is."""
    status = _status(pod)
    conditions = {str(it.get("type")): it for it in status.get("conditions") or ()}
    if _metadata(pod).get("deletionTimestamp"):
        return "it is being deleted"
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    if status.get("phase") in ("Failed", "Succeeded"):
        said = [str(status.get("reason") or status["phase"]), _text(status.get("message"))]
        return ": ".join(filter(None, [*said, *_containers(status)]))
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"no node takes it: {_text(scheduled.get('message')) or scheduled.get('reason') or 'not scheduled yet'}"
    reasons = list(_containers(status))
    events = [e for e in found.get(("Pod", _id(pod)), ()) if e.get("reason") not in _IN_STATUS_ALREADY]
    if events:
        reasons.append(f"{events[-1].get('reason')}: {_text(events[-1].get('message'))}")
    return "; ".join(reasons) or "kubelet has not started it yet"


def _containers(status: Item) -> Iterator[str]:
    """What is wrong with each container, the init containers' first."""
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state, last = container.get("state") or {}, (container.get("lastState") or {}).get("terminated")
        said = ""
        if container.get("ready"):
            continue
        if waiting := state.get("waiting"):
            if waiting.get("reason") == "PodInitializing":
                continue
            said = ": ".join(filter(None, [str(waiting.get("reason") or "waiting"), _text(waiting.get("message"))]))
        elif ended := state.get("terminated"):
            said = _ended(ended)
        elif "running" in state:
            said = "it runs, and is not ready"
        if last:
            said += f"; its last run {_ended(last)}"
        if restarts := container.get("restartCount"):
            said += f"; restarts: {restarts}"
        if said:
            yield f"container {container.get('name')}: {said}"


def _ended(terminated: Item) -> str:
    said = f"ended with status {terminated.get('exitCode')} ({terminated.get('reason')})"
    return ": ".join(filter(None, [said, _text(terminated.get("message"))]))


def _id(item: Item) -> str:
    metadata = _metadata(item)
    return f"{metadata.get('namespace')}/{metadata.get('name')}"


def _metadata(item: Item) -> Item:
    return item.get("metadata") or {}


def _status(item: Item) -> Item:
    return item.get("status") or {}


def _on(pod: Item) -> str:
    node = (pod.get("spec") or {}).get("nodeName")
    return f" on {node}" if node else ""


def _text(message: object) -> str:
    """On one line."""
    return " ".join(str(message or "").split())

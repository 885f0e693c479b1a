"""Expectations against facts: what passed, what failed, and what could not be read."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Literal

from components.verify.expectations import Expectation, OneOf, Value, Within
from components.verify.facts import NodeFacts, Scope
from components.verify.iproute import Seen

if TYPE_CHECKING:
    from components.verify.reading import Reading

Status = Literal["passed", "failed", "unknown"]


@dataclass(frozen=True)
class Result:
    """`seen`: the line observed, "(nothing)" where there was none. `difference`: field by field, where it failed;
    why it could not be read, where it is unknown."""

    expectation: Expectation
    status: Status
    seen: str
    difference: str = ""

    def to_json(self, stack: str = "STACK") -> dict[str, Any]:
        """`stack`: its name, for the commands to type."""
        e = self.expectation
        expected = None if e.expected is None else {key: str(value) for key, value in e.expected.items()}
        found: dict[str, Any] = {
            "id": e.id,
            "status": self.status,
            "node": e.node,
            "topic": e.topic,
            "sentence": e.sentence,
            "command": e.command.replace("STACK", stack),
            "expected": expected,
            "seen": self.seen,
            "because": e.because,
        }
        if self.status != "passed":
            found |= {"difference": self.difference, "cause": e.cause, "mend": e.mend.replace("STACK", stack)}
        return found


def compare(
    expectations: Sequence[Expectation], cluster: Scope, nodes: Mapping[str, NodeFacts], unreachable: Mapping[str, str]
) -> list[Result]:
    """Each expectation's result. `unreachable`: node → why it could not be read."""
    return [_result(e, cluster, nodes, unreachable) for e in expectations]


def _result(e: Expectation, cluster: Scope, nodes: Mapping[str, NodeFacts], unreachable: Mapping[str, str]) -> Result:
    if e.node is None:
        scope: Scope = cluster
    elif e.node not in nodes:
        return Result(e, "unknown", "", unreachable.get(e.node, "the node was not read"))
    else:
        node = nodes[e.node]
        if e.pod is None:
            scope = node
        elif "link" in node.unread:
            return Result(e, "unknown", "", node.unread["link"])
        elif e.pod not in node.pods:
            return Result(e, "failed", "(nothing)", f"no namespace behind {e.pod}: the pod's sandbox is not there")
        else:
            scope = node.pods[e.pod]
    if e.topic not in scope.topics:
        return Result(e, "unknown", "", scope.unread.get(e.topic, "not read"))
    return judge(e, scope.get(e.topic, e.key))


def judge(e: Expectation, entries: Sequence[Seen]) -> Result:
    """One expectation against the entries of its key: one that fits is enough, as with two routes to one place."""
    if e.expected is None:
        if not entries:
            return Result(e, "passed", "(nothing)")
        return Result(e, "failed", "; ".join(seen.line for seen in entries), "there must be none")
    if not entries:
        return Result(e, "failed", "(nothing)", "it is not there")
    for seen in entries:
        if all(_fits(value, seen.fields.get(key)) for key, value in e.expected.items()):
            return Result(e, "passed", seen.line)
    return Result(e, "failed", "; ".join(seen.line for seen in entries), _difference(e.expected, entries[0]))


def _difference(expected: Mapping[str, Value], seen: Seen) -> str:
    if seen.fields.get("received") == "no":
        return "no answer came"
    if not seen.fields:
        return "it has nothing of what is expected"
    return ", ".join(
        f"{key} is {seen.fields.get(key, '(nothing)')}, expected {value}"
        for key, value in expected.items()
        if not _fits(value, seen.fields.get(key))
    )


def _fits(expected: Value, seen: str | None) -> bool:
    if expected == seen:
        return True
    if seen is None:
        return False
    if isinstance(expected, OneOf):
        return seen in expected.values
    if isinstance(expected, Within):
        try:
            return expected.first <= IPv4Address(seen) <= expected.last
        except ValueError:
            return False
    return False


def count(results: Sequence[Result]) -> dict[Status, int]:
    """How many passed, failed, and could not be read."""
    return {status: sum(r.status == status for r in results) for status in ("passed", "failed", "unknown")}


def document(stack: str, reading: Reading, results: Sequence[Result]) -> dict[str, Any]:
    """The report as JSON. `at` is UTC."""
    return {
        "stack": stack,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **{str(status): number for status, number in count(results).items()},
        "unreachable": reading.unreachable,
        "api": reading.no_api or "read",
        "checks": [result.to_json(stack) for result in results],
    }


def junit(stack: str, results: Sequence[Result], seconds: float) -> str:
    """JUnit XML: one test case per expectation, one suite per node; what could not be read is an error."""
    root = ET.Element("testsuites", name=f"cni-lab verify {stack}", time=f"{seconds:.3f}")
    by_node: dict[str, list[Result]] = {}
    for result in results:
        by_node.setdefault(result.expectation.node or "cluster", []).append(result)
    for node, of_node in by_node.items():
        numbers = count(of_node)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=f"{stack}.{node}",
            tests=str(len(of_node)),
            failures=str(numbers["failed"]),
            errors=str(numbers["unknown"]),
        )
        for result in of_node:
            e = result.expectation
            case = ET.SubElement(suite, "testcase", classname=f"{stack}.{node}.{e.topic}", name=f"{e.id}: {e.sentence}")
            if result.status != "passed":
                element = ET.SubElement(case, "failure" if result.status == "failed" else "error")
                element.set("message", result.difference)
                lines = [f"seen: {result.seen}", f"command: {e.command}", f"cause: {e.cause}", f"mend: {e.mend}"]
                element.text = "\n".join(lines)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

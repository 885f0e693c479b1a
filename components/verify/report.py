"""Expectations against what was read: what passed, what failed, what could not be read; and the reports of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any

from components.verify.expect import expectations
from components.verify.model import Entry, Expectation, OneOf, Result, Scope, Status, Topic, Value, Within
from components.verify.read.reading import LiveLab, Reading, observed
from components.verify.routes import first_taken


def verify(live: LiveLab, reading: Reading) -> list[Result]:
    """Every expectation of the lab against what was read."""
    return compare(expectations(observed(live, reading)), reading)


def compare(found: Iterable[Expectation], reading: Reading) -> list[Result]:
    """The result of each expectation."""
    return [_result(expectation, reading) for expectation in found]


def _result(e: Expectation, reading: Reading) -> Result:
    scope: Scope
    if e.unread:
        return Result(e, "unknown", "", e.unread)
    if e.node is None:
        scope = reading.cluster
    elif e.node not in reading.nodes:
        return Result(e, "unknown", "", reading.unreachable.get(e.node, "the node was not read"))
    else:
        node = scope = reading.nodes[e.node]
        if e.pod is not None:
            if Topic.LINK in node.unread:
                return Result(e, "unknown", "", node.unread[Topic.LINK])
            if e.pod not in node.pods:
                reason = f"there is no network namespace behind {e.pod}: the pod's sandbox is gone"
                return Result(e, "failed", "(nothing)", reason)
            scope = node.pods[e.pod]
    if e.topic not in scope.topics:
        return Result(e, "unknown", "", scope.unread.get(e.topic, "not read"))
    return judge(e, scope.get(e.topic, e.key))


def judge(e: Expectation, entries: Sequence[Entry]) -> Result:
    """One expectation against the entries of its key. One entry that fits is enough: a pod may have two routes to one
    destination by two networks. A node must have none that the kernel takes before it."""
    if e.expected is None:
        if not entries:
            # The command may list other rules.
            return Result(e, "passed", "(no such rule)" if e.topic is Topic.FILTER else "(nothing)")
        return Result(e, "failed", "; ".join(entry.line for entry in entries), "there must be none")
    if not entries:
        return Result(e, "failed", "(nothing)", "it is not there")
    if e.topic is Topic.ROUTE and e.pod is None:
        entries = [first_taken(entries)]
    for entry in entries:
        if all(_fits(value, entry.fields.get(key)) for key, value in e.expected.items()):
            return Result(e, "passed", entry.line)
    return Result(e, "failed", "; ".join(entry.line for entry in entries), _difference(e.expected, entries[0]))


def _difference(expected: Mapping[str, Value], entry: Entry) -> str:
    if entry.reason:
        return entry.reason
    if entry.fields.get("received") == "no":
        return "no answer came"
    if entry.fields.get("received") == "refused":
        return "the connection was refused: nothing listens there, or a rule rejects it"
    if not entry.fields:
        return "none of the expected fields is there"
    return ", ".join(
        f"{key} is {entry.fields.get(key, '(nothing)')}, expected {value}"
        for key, value in expected.items()
        if not _fits(value, entry.fields.get(key))
    )


def _fits(expected: Value, found: str | None) -> bool:
    if found is None:
        return False
    if isinstance(expected, OneOf):
        return found in expected.values
    if isinstance(expected, Within):
        try:
            return expected.first <= IPv4Address(found) <= expected.last
        except ValueError:
            return False
    return expected == found


# --- reports ---------------------------------------------------------------------------------------------------------


def count(results: Sequence[Result]) -> dict[Status, int]:
    """How many passed, failed, and could not be read."""
    return {status: sum(r.status == status for r in results) for status in ("passed", "failed", "unknown")}


def document(stack: str, reading: Reading, results: Sequence[Result]) -> dict[str, Any]:
    """The report as JSON. `at` is in UTC."""
    return {
        "stack": stack,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **{str(status): number for status, number in count(results).items()},
        "unreachable": reading.unreachable,
        "api": reading.no_api or "read",
        "checks": [result.to_json(stack) for result in results],
    }


def junit(stack: str, results: Sequence[Result], seconds: float) -> str:
    """JUnit XML: a suite for each node, a test case for each expectation. What could not be read is an error."""
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
                command, fix = (text.replace("STACK", stack) for text in (e.command, e.fix))
                element.text = f"seen: {result.seen}\ncommand: {command}\ncause: {e.cause}\nfix: {fix}"
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

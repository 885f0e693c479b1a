"""A report of comparisons as text, Markdown and JSON."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from rich.console import Console
from rich.text import Text

from cli.review.changes import ACTIONS, Action, Change, Comparison
from cli.review.parts import Part

MARKER = "<!-- cni-lab-plan -->"
"""First line of the comment, which identifies it."""

LIMIT = 65_000
"""Bytes. GitHub accepts comments of up to 65,536 characters, and the workflow that posts it may add a line."""

NAMED = 3
"""A headline names this many of the resources with the same change."""

LISTED = 5
"""A list with more entries is folded."""

_COLOURS: Mapping[Action, str] = {
    "replaced": "magenta",
    "removed": "red",
    "runs again": "cyan",
    "changed": "yellow",
    "added": "green",
}


@dataclass(frozen=True)
class Report:
    """All stacks on both sides.

    `against`: the revision as the user wrote it. `commit`: its id. `uncommitted`: the number of files of the working
    tree with uncommitted changes. `notes`: what the reader should know about both sides as a whole.
    """

    against: str
    commit: str
    uncommitted: int
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def touched(self) -> tuple[Comparison, ...]:
        return tuple(comparison for comparison in self.comparisons if comparison.touched)

    @property
    def untouched(self) -> str:
        return ", ".join(comparison.stack for comparison in self.comparisons if not comparison.touched)

    @property
    def failed(self) -> bool:
        return any(comparison.failed for comparison in self.comparisons)

    @property
    def stopped(self) -> tuple[str, ...]:
        """Why the gate is closed: what a live lab cannot take, what the policy refuses, control planes that do not
        survive, and stacks for which that is not known."""
        lines = [
            f"{c.stack}: a live lab cannot take this change: {line}" for c in self.comparisons for line in c.refused
        ]
        lines += [f"{c.stack}: the policy refuses this: {line}" for c in self.comparisons for line in c.broken]
        lines += [f"{c.stack}: the control plane {line}" for c in self.comparisons for line in c.control_planes]
        lines += [
            f"{c.stack}: what happens to its control plane is not known" for c in self.comparisons if not c.judged
        ]
        return tuple(lines)

    @property
    def sides(self) -> str:
        dirty = ""
        if self.uncommitted:
            files = "1 file" if self.uncommitted == 1 else f"{self.uncommitted} files"
            dirty = f" (with uncommitted changes in {files})"
        name = self.against if self.against == self.commit[:7] else f"{self.against} ({self.commit[:7]})"
        return f"The working tree{dirty} against {name}"


WITHOUT_CREDENTIALS = (
    "Planned without credentials: <known after up> is what only the cloud or the cluster knows, changes of "
    "secrets are not visible, and each node's blocks are foreseen by Calico's rule from its name."
)


def _groups(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Groups equal changes. Those that only follow from others, or have nothing to show, are in one group."""
    groups: dict[tuple[object, ...], list[Change]] = defaultdict(list)
    for change in changes:
        if change.folded:
            continue
        if change.parts:
            groups[change.action, change.follows, change.reasons, change.parts].append(change)
        elif change.follows or not change.reasons:
            groups[change.action, change.follows].append(change)
        else:
            groups[change.action, change.urn].append(change)
    yield from groups.values()


def _headline(group: Sequence[Change]) -> str:
    titles = [change.title for change in group]
    more = f" and {len(titles) - NAMED} more" if len(titles) > NAMED else ""
    return ", ".join(titles[:NAMED]) + more + _why(group[0])


def _why(change: Change) -> str:
    """The reasons for a replacement, else what differs."""
    words = "; ".join(change.reasons) or change.detail
    return f": {words}" if words else ""


def _verdict(comparison: Comparison) -> str:
    return "cannot be compared" if comparison.verdict is None else str(comparison.verdict)


def _counts(comparison: Comparison) -> str:
    if comparison.failed or not comparison.judged:
        return "cannot be compared"
    counts = [f"{comparison.count(action)} {action}" for action in ACTIONS if comparison.count(action)]
    return f"{', '.join(counts) or 'nothing to do'}; {comparison.same} as before"


# --- text ------------------------------------------------------------------------------------------------------------


def show(report: Report, console: Console) -> None:
    def line(*parts: str | tuple[str, str]) -> None:
        cleaned = [_clean(part) if isinstance(part, str) else (_clean(part[0]), part[1]) for part in parts]
        console.print(Text.assemble(*cleaned), soft_wrap=True)

    line(f"{report.sides}.")
    for note in report.notes:
        line(note)
    for comparison in report.touched:
        line()
        line((comparison.stack, "bold"), f": {_verdict(comparison)}")
        for refused in comparison.refused:
            line((f"  ! a live lab cannot take this change: {refused}", "bold red"))
        for broken in comparison.broken:
            line((f"  ! the policy refuses this: {broken}", "bold red"))
        for lost in comparison.control_planes:
            line((f"  ! the control plane {lost}", "bold red"))
        line((f"  {_counts(comparison)}", "dim"))
        for note in comparison.notes:
            line(f"  {note}")
        for node in comparison.nodes:
            line((f"  {node.action:12}", _COLOURS[node.action]), node.text)
        for group in _groups(comparison.changes):
            first = group[0]
            label = (f"  {first.action:12}", _COLOURS[first.action])
            for change in group:
                line(label, change.title, (_why(change), "dim"))
            for part in first.parts:
                line((f"      {part.name}", "bold"))
                for text in part.diff:
                    line((f"      {text}", {"+": "green", "-": "red", "@": "cyan"}.get(text[:1], "")))
    if report.untouched:
        line()
        line(f"Not touched: {report.untouched}")
    if report.touched:
        line()
        line((WITHOUT_CREDENTIALS, "dim"))


def _clean(text: str) -> str:
    """Without control characters, because a script's text must not control the reader's terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "·", text)


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown(report: Report, limit: int = LIMIT) -> str:
    """The comment, at most `limit` bytes. Stacks share what is left equally; only whole resources are left out."""
    head = [MARKER, "## What this change does to the labs", "", *_table(report)]
    if report.untouched and report.touched:
        head += [f"Not touched: {report.untouched}.", ""]
    for line in report.stopped:
        head += ["> [!CAUTION]", f"> {_code(line)}", ""]
    for note in report.notes:
        head += [f"> {_code(note)}", ""]
    tail = ["---", f"{_code(f'{report.sides}.')} {escape(WITHOUT_CREDENTIALS)}", ""]
    left = limit - _size(head) - _size(tail)
    body: list[str] = []
    seen: dict[Part, str] = {}
    for index, comparison in enumerate(report.touched):
        section = _section(comparison, left // (len(report.touched) - index), seen)
        left -= _size(section)
        body += section
    return "\n".join([*head, *body, *tail])


def _size(lines: Sequence[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def _table(report: Report) -> list[str]:
    if not report.touched:
        return [f"Nothing: every plan is as before ({report.untouched}).", ""]
    rows = [
        f"| {c.stack} | {' | '.join(str(c.count(action) or '') for action in ACTIONS)} | {c.same or ''} |"
        for c in report.touched
    ]
    columns = [*ACTIONS, "as before"]
    return [f"| stack | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}", *rows, ""]


def _section(comparison: Comparison, room: int, seen: dict[Part, str]) -> list[str]:
    """The section of a stack, in at most `room` bytes. `seen`: where each part was shown before."""
    notes = [f"- {_code(note)}" for note in comparison.notes]
    notes += [f"- **{node.action}** {_code(node.text)}" for node in comparison.nodes]
    lead = [f"**{_html(str(comparison.verdict))}**", ""] if comparison.verdict else []
    lines = [f"### {comparison.stack}", "", *lead, *notes, *([""] if notes else [])]
    rest = 0
    for group in _groups(comparison.changes):
        block = _fold(group, seen) if group[0].parts else _list(group)
        if _size(lines) + _size(block) + 200 > room:
            rest += len(group)
            continue
        lines += block
        for part in group[0].parts:
            seen.setdefault(part, f"{comparison.stack}, {group[0].title}")
    if rest:
        what = "1 more resource does" if rest == 1 else f"{rest} more resources do"
        lines += [f"*{what} not fit into this comment; `./lab plan {comparison.stack} --against …` shows all.*", ""]
    return lines


def _fold(group: Sequence[Change], seen: Mapping[Part, str]) -> list[str]:
    first = group[0]
    lines = [f"<details><summary><b>{first.action}</b> <code>{_html(_headline(group))}</code></summary>", ""]
    if len(group) > NAMED:
        lines += [f"- {_code(change.title)}" for change in group] + [""]
    for part in first.parts:
        name = _code(part.name)
        if part in seen:
            lines += [f"{name}: the same lines as in {_code(seen[part])}", ""]
            continue
        fence = "`" * max(3, *(_longest_run(line) + 1 for line in part.diff))
        lines += [name, "", f"{fence}diff", *map(_clean, part.diff), fence, ""]
    return [*lines, "</details>", ""]


def _list(group: Sequence[Change]) -> list[str]:
    first = group[0]
    lines = [f"- **{c.action}** {_code(c.title + _why(c))}" for c in group]
    if len(group) <= LISTED:
        return [*lines, ""]
    why = ", which follows from the above" if first.follows else ""
    return [
        f"<details><summary><b>{first.action}</b> {len(group)} resources{why}</summary>",
        "",
        *lines,
        "",
        "</details>",
        "",
    ]


def _html(text: str) -> str:
    return escape(_clean(" ".join(text.split())))


def _code(text: str) -> str:
    """Inline code that is safe for any text: the text comes from whoever wrote the change."""
    text = _clean(" ".join(text.split()))
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if "`" in text[:1] + text[-1:] else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


# --- JSON ------------------------------------------------------------------------------------------------------------


def document(report: Report) -> dict[str, Any]:
    """The whole report. `gate`: why the gate is closed, one line each; empty where it is open."""
    return {
        "against": {"revision": report.against, "commit": report.commit},
        "uncommitted": report.uncommitted,
        "notes": list(report.notes),
        "gate": list(report.stopped),
        "stacks": [
            {
                "stack": c.stack,
                "verdict": None if c.verdict is None else asdict(c.verdict) | {"text": str(c.verdict)},
                "nodes": [{"action": node.action, "node": node.node, "text": node.text} for node in c.nodes],
                "touched": c.touched,
                "failed": c.failed,
                "counts": {action: c.count(action) for action in ACTIONS} | {"same": c.same},
                "refused": list(c.refused),
                "policy": list(c.broken),
                "controlPlanes": list(c.control_planes),
                "notes": list(c.notes),
                "changes": [
                    {
                        "action": change.action,
                        "urn": change.urn,
                        "type": change.type,
                        "title": change.title,
                        "detail": change.detail,
                        "reasons": list(change.reasons),
                        "follows": change.follows,
                        "folded": change.folded,
                        "parts": [{"name": part.name, "diff": list(part.diff)} for part in change.parts],
                    }
                    for change in c.changes
                ],
            }
            for c in report.comparisons
        ],
    }

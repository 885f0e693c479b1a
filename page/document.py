"""The page as HTML: one file, from which no request leaves."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.spec.models import Lab
from engine.graph import Graph
from page.content.blocks import blocks, networks
from page.content.checks import checks, totals
from page.content.lesson import lesson
from page.content.modes import modes
from page.content.order import drawing, order, written_files
from page.content.source import Source
from page.content.things import NodeView, node_views, panels
from page.content.walks import walks
from page.picture.cards import detail_for
from page.picture.topology import NARROW, WIDE, topology

MARKER = "<!-- made by ./lab page -->"
"""The second line of every page: such a file may be written again."""

_HERE = Path(__file__).parent
_STYLES = ("base", "network", "panel", "walk", "tables", "order", "print")
_SCRIPTS = ("core", "network", "panel", "stage", "walk", "modes", "checks", "order", "start")
_COMPRESSION = 9


@dataclass(frozen=True)
class Page:
    """What a page is made from. `lab`: as the stack file has it. `lesson`: the file of the lab's lesson, which need not
    exist."""

    source: Source
    lab: Lab
    graph: Graph
    lesson: Path


def html(page: Page) -> str:
    """The page. The same input gives the same bytes."""
    source, lab = page.source, source_lab(page)
    views = node_views(source)
    rows = checks(source)
    files, texts = written_files(page.graph)
    found_walks = walks(source)
    data = {
        "things": panels(source, views) | {"written": files, "texts": texts},
        "walks": found_walks,
        "checks": rows,
        "order": order(page.graph),
    }
    style, script = _joined("style", _STYLES, "css"), _script()
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        marker=Markup(MARKER),
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data={name: _packed(value) for name, value in data.items()},
        stack=source.stack,
        source=source,
        facts=[*_facts(lab, views), ("expectations", str(len(rows)))],
        detail=detail_for(len(views)),
        tunnelled=any(view.tunnels for view in views),
        bridged=any(view.bridges for view in views),
        wide=Markup(topology(lab, source.stack, views, WIDE, sandbox=source.kind == "sandbox")),
        narrow=Markup(topology(lab, source.stack, views, NARROW, sandbox=source.kind == "sandbox")),
        nodes=views,
        walks=found_walks,
        modes=modes(page.lab, source.stack),
        blocks=blocks(source),
        networks=networks(lab),
        delegates=_delegates(lab),
        totals=totals(rows),
        graph=Markup(drawing(page.graph)),
        chain=[[node.wave, page.graph.title(node)] for node in page.graph.longest_chain()],
        size=(len(page.graph.custom), page.graph.wave_count),
        lesson=Markup(lesson(page.lesson)),
        problems=_problems(source),
    )


def source_lab(page: Page) -> Lab:
    """The lab that the page draws: what was read may differ from the stack file."""
    return page.source.live.spec


def _facts(lab: Lab, views: Sequence[NodeView]) -> list[tuple[str, str]]:
    """The lab in a few words, by what they are about."""
    own = sum(pod.own for view in views for pod in view.pods)
    words = list(dict.fromkeys(pool.encapsulation for pool in lab.calico.pools))
    between = ", ".join("no encapsulation" if word == "None" else word for word in words)
    found = [
        ("nodes", str(len(views))),
        ("pods of workloads", str(own)),
        ("between nodes", between + (", WireGuard" if lab.calico.wireguard else "")),
        ("Kubernetes", lab.kubernetes.version),
        ("Calico", lab.calico.version),
    ]
    if lab.multus:
        found.append(("Multus", lab.multus.version))
    return found


def _delegates(lab: Lab) -> list[tuple[str, str, str]]:
    """The delegates: name, numbers in the block, routes."""
    return [
        (d.name, f"{d.range_start} – {d.range_end}", ", ".join(map(str, d.routes)) or "default")
        for d in (lab.multus.delegates if lab.multus else ())
    ]


def _problems(source: Source) -> list[str]:
    """What could not be read."""
    found = [source.reading.no_api] if source.reading.no_api else []
    return found + [f"{node}: {why}" for node, why in sorted(source.reading.unreachable.items())]


# --- what the browser gets -------------------------------------------------------------------------------------------


def _joined(folder: str, names: Sequence[str], ending: str) -> str:
    return "\n".join((_HERE / folder / f"{name}.{ending}").read_text(encoding="utf-8") for name in names)


def _script() -> str:
    return f'"use strict";\n(() => {{\n{_joined("script", _SCRIPTS, "js")}\n}})();\n'


def _policy(style: str, script: str) -> str:
    """The content security policy: nothing is loaded, and no other style or script than these runs."""
    parts: Mapping[str, str] = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packed(value: Any) -> str:
    """JSON, compressed (zlib) and in base64: a large lab's tables repeat themselves very much."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), _COMPRESSION)).decode()


def unpacked(text: str) -> Any:
    """The value that `_packed` got."""
    return json.loads(zlib.decompress(base64.b64decode(text)))

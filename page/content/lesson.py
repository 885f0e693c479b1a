"""The page of a lab's lesson (docs/labs) as HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token


def lesson(path: Path) -> str:
    """The page at `path` as HTML, one level of headings lower; empty where there is none.

    Its own title is left out. A link to another page of the repository becomes its text, because that page does not
    come along; a picture becomes its description. Of raw HTML only the lines of folded answers stay; the rest is text.
    """
    if not path.is_file():
        return ""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.block.ruler.before("html_block", "folded", _folded, {"alt": ["paragraph", "reference", "blockquote"]})
    tokens = markdown.parse(path.read_text(encoding="utf-8"))
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        tokens = tokens[3:]
    for n, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag != "h6":
            token.attrSet("id", f"lesson-{_anchor(tokens[n + 1].content)}")
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
        if token.type == "inline" and token.children:
            token.children = _without_files(token.children)
    return str(markdown.renderer.render(tokens, markdown.options, {}))


_FOLDED = re.compile(r"<details>|</details>|<summary>(?P<question>[^<>]*)</summary>")


def _folded(state: StateBlock, line: int, end: int, silent: bool) -> bool:
    """A rule of the parser: a line that begins or ends a folded answer, or holds its question."""
    found = _FOLDED.fullmatch(state.getLines(line, line + 1, state.blkIndent, False).strip())
    if found is None or state.is_code_block(line):
        return False
    if not silent:
        state.line = line + 1
        question = found["question"]
        if question is None:
            opens = found[0] == "<details>"
            state.push("details_open" if opens else "details_close", "details", 1 if opens else -1).block = True
        else:
            state.push("summary_open", "summary", 1).block = True
            text = state.push("inline", "", 0)
            text.content, text.map, text.children = question, [line, line + 1], []
            state.push("summary_close", "summary", -1).block = True
    return True


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _without_files(children: Sequence[Token]) -> list[Token]:
    found: list[Token] = []
    closed: list[bool] = []
    for token in children:
        if token.type == "link_open":
            target = str(token.attrGet("href") or "")
            keep = target.startswith(("https://", "#"))
            closed.append(keep)
            if not keep:
                continue
            if target.startswith("#"):
                token.attrSet("href", f"#lesson-{target[1:]}")
            else:
                token.attrSet("rel", "noreferrer")
        elif token.type == "link_close" and closed and not closed.pop():
            continue
        elif token.type == "image":
            token = Token("text", "", 0, content=token.content)
        found.append(token)
    return found

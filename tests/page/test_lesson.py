"""The lesson on the page of a lab: folded answers open, everything else of HTML is text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from page.content.lesson import lesson
from tests.support.graphs import ROOT

LESSONS = sorted((ROOT / "docs/labs").glob("*.md"))
VOID = {"br", "hr", "img"}


class Nesting(HTMLParser):
    """Refuses elements that end in another order than they begin. `found`: each with the elements around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rendered(folder: Path, text: str) -> str:
    page = folder / "lab.md"
    page.write_text(f"# lab\n\n{text}", encoding="utf-8")
    return lesson(page)


def test_an_answer_is_folded_with_all_that_it_holds(tmp_path: Path) -> None:
    answer = "Because *so*.\n\n| a |\n|---|\n| 1 |\n\n```console\n$ x\n```\n\n"
    found = rendered(tmp_path, f"<details>\n<summary>Why?</summary>\n\n{answer}</details>\n")
    assert found.startswith("<details>\n<summary>Why?</summary>\n<p>Because <em>so</em>.</p>\n<table>")
    assert found.rstrip().endswith('<code class="language-console">$ x\n</code></pre>\n</details>')
    assert ("table", ("details",)) in Nesting(found).found


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<details onclick=alert(1)>",
        "<summary><img src=x></summary>",
        "text <details> in a line",
        "```\n<details>\n```",
        "    <details>",
        "<details><summary>both in one line</summary>",
    ],
)
def test_all_other_html_is_text(tmp_path: Path, text: str) -> None:
    elements = {tag for tag, _ in Nesting(rendered(tmp_path, text)).found}
    assert elements <= {"p", "pre", "code"}


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_the_shipped_lessons_are_whole(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = Nesting(lesson(page)).found
    tags = [tag for tag, _ in found]
    assert tags.count("details") == tags.count("summary") == text.count("<details>\n<summary>")
    assert {around[-1:] for tag, around in found if tag == "summary"} <= {("details",)}
    assert "table" in tags and "pre" in tags
    assert "&lt;details" not in lesson(page) and "```" not in lesson(page)


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_questions_are_plain_text_so_that_they_look_the_same_on_a_forge(page: Path) -> None:
    """There a question is raw HTML, in which Markdown is not read, and the answer needs an empty line before it."""
    text = page.read_text(encoding="utf-8")
    for question in re.findall(r"<summary>(.*)", text):
        assert re.fullmatch(r"[^`*_\[]+</summary>", question), question
    assert len(re.findall(r"</summary>\n\n", text)) == text.count("<summary>")
    assert len(re.findall(r"\n\n</details>\n", text)) == text.count("</details>")

"""What is wrong with a stack file: a Finding for each mistake, and all of them in one SpecError."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice


@dataclass(frozen=True, order=True)
class Finding:
    """One mistake in a stack file.

    `key` is the place, e.g. `nodes[2].address`. It is always whole, because programs and tests look findings up by it.
    `value` is what the file has there, shortened to one short line. `problem` and `fix` continue the sentence.
    `line` is counted from 1, and None if the lab comes from no file.
    """

    key: str
    value: str
    problem: str
    fix: str
    line: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        end = "" if self.fix.endswith(("?", ".")) else "."
        return f"{self.key}: {self.value} — {self.problem}. Fix: {self.fix}{end}"


class SpecError(Exception):
    """The stack file is not valid. `findings` has at least one mistake."""

    def __init__(self, findings: Iterable[Finding], source: str = "the stack file") -> None:
        self.findings = tuple(findings)
        self.source = source
        super().__init__(source, self.findings)

    def __str__(self) -> str:
        count = len(self.findings)
        head = f"{self.source} has {count} mistake{'' if count == 1 else 's'}:"
        return "\n".join([head, *(f"  {self._place(finding)}{finding}" for finding in self.findings)])

    def _place(self, finding: Finding) -> str:
        """`Pulumi.local.yaml:12: `, which editors and terminals turn into a link."""
        return f"{self.source}:{finding.line}: " if finding.line is not None else ""


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The word that was probably meant, regardless of its case. None if no word is similar.

    `cutoff`: the least similarity, from 0 to 1, by difflib's ratio.
    """
    # The search is slow, and a file may have thousands of names.
    by_lower = {w.lower(): w for w in islice(words, 200)}
    found = difflib.get_close_matches(word[:100].lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def shown_key(key: str) -> str:
    """A key on one line, never shortened. Spaces at an end and unprintable characters make it quoted and escaped."""
    return key if key and key.isprintable() and key == key.strip() else ascii(key)


def shown(value: object, limit: int = 60) -> str:
    """A value on one line of at most `limit` characters, as in YAML's flow style. Control characters are escaped."""
    match value:
        case None:
            text = "null"
        case bool():
            text = str(value).lower()
        case str():
            text = shown_key(value)
        case dict():
            text = "{" + ", ".join(map(str, list(value)[:5])) + "}"
        case list() | tuple():
            text = "[]" if not value else f"[{len(value)} items]" if len(value) > 1 else f"[{shown(value[0], limit)}]"
        case _:
            text = str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"

"""Broken stack files: each gives the findings that it expects, at their keys, and no others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from components.spec.findings import Finding, SpecError
from components.spec.load import load_stack_file
from components.spec.rules.core import Rule

BAD = sorted((Path(__file__).parents[1] / "data" / "bad").glob("*.yaml"))


def expected(path: Path) -> list[tuple[str, str]]:
    """Key and part of the message, from the file's lines `# expect: key | part`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.removeprefix("# expect: ").split(" | ", 1) for line in lines if line.startswith("# expect: ")]
    return [(key, words) for key, words in pairs]


def test_there_are_many_bad_files() -> None:
    assert len(BAD) >= 60


@dataclass(frozen=True)
class Refusal:
    """What a bad file gives. `broken`: the rules with a finding, as MODULE.FUNCTION."""

    error: SpecError
    broken: frozenset[str]


@cache
def refusal(path: Path) -> Refusal:
    """Once for all tests: they look at different sides of the same findings."""
    broken: set[str] = set()
    findings = Rule.findings

    def recorded(rule: Rule, *arguments: Any) -> Iterator[Finding]:
        for finding in findings(rule, *arguments):
            broken.add(name_of(rule.check))
            yield finding

    with patch.object(Rule, "findings", recorded), pytest.raises(SpecError) as caught:
        load_stack_file(path)
    return Refusal(caught.value, frozenset(broken))


def name_of(check: Callable[..., object]) -> str:
    return f"{check.__module__}.{check.__name__}"


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_gives_its_findings_and_no_others(path: Path) -> None:
    error = refusal(path).error
    check_findings(path, error)
    check_message(path, error)


def check_findings(path: Path, error: SpecError) -> None:
    left = list(error.findings)
    for key, words in expected(path):
        found = [finding for finding in left if finding.key == key and words in str(finding)]
        assert found, f"no finding at {key} with {words!r} in:\n{error}"
        left.remove(found[0])
    assert not left, f"findings beyond those expected:\n{error}"


def check_message(path: Path, error: SpecError) -> None:
    head, *lines = str(error).splitlines()
    count = len(error.findings)
    assert head == f"{path.name} has {count} mistake{'s' * (count != 1)}:"
    assert len(lines) == count, "one line for each finding"
    for line, finding in zip(lines, error.findings, strict=True):
        place = f"{path.name}:{finding.line}: {finding.key}: {finding.value}"
        assert line.startswith(f"  {place} — {finding.problem}. Fix: ")
        assert all((finding.key, finding.value, finding.problem, finding.fix))
        assert len(line) < 500
        assert line.isprintable()


def load_bytes(tmp_path: Path, data: bytes) -> SpecError:
    path = tmp_path / "Pulumi.made.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        load_stack_file(path)
    assert len(caught.value.findings) == 1
    return caught.value


@pytest.mark.parametrize(
    ("data", "key", "words"),
    [
        (b"", "Pulumi.made.yaml", "empty"),
        (b"# nothing but a comment\n", "Pulumi.made.yaml", "empty"),
        (b"\xef\xbb\xbf", "Pulumi.made.yaml", "empty"),
        (b"config:\n  cni-lab:lab: {owner: M\xfcller}\n", "line 2", "byte 0xfc — is not UTF-8"),
        ("config: {}\n".encode("utf-16"), "line 1", "is not UTF-8"),
        (b"\x00\x01", "Pulumi.made.yaml", "control character"),
        (b"config: '" + b"x" * (256 << 10) + b"'\n", "Pulumi.made.yaml", "too large for a stack file"),
        (b"[" * 100_000, "line 1", "levels deep"),
    ],
    ids=["empty", "comment", "bom", "latin-1", "utf-16", "binary", "large", "deep"],
)
def test_bytes_that_are_no_yaml(tmp_path: Path, data: bytes, key: str, words: str) -> None:
    error = load_bytes(tmp_path, data)
    assert error.findings[0].key == key
    assert words in str(error)


def test_random_bytes_give_one_finding(tmp_path: Path) -> None:
    generator = random.Random(1)
    for _ in range(50):
        load_bytes(tmp_path, generator.randbytes(200))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        load_stack_file(tmp_path / "Pulumi.gone.yaml")
    with pytest.raises(SpecError, match="directory"):
        load_stack_file(tmp_path)

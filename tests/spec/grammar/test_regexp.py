"""Regular expressions of Go, with examples and against Go's own compiler."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from components.spec.grammar.regexp import RegexpError, check, matches
from tests.spec.grammar import oracle

VALID = ("eth.*", "^(eth|en)[0-9]+$", r"\pL\d{1,3}", "(?i)ETH0", "(?P<n>a)", r"\Qa.b\E", r"\\C", "[[:alpha:]]", "")
INVALID = ("eth[", "(?!docker).*", "(?<=a)b", r"(a)\1", "a++", "(?>a)", r"\Z", "a{1001}", "*", r"\C", "(?x) a")


@pytest.mark.parametrize("pattern", VALID)
def test_a_valid_pattern(pattern: str) -> None:
    check(pattern)


@pytest.mark.parametrize("pattern", INVALID)
def test_an_invalid_pattern(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RegexpError) as caught:
        check(pattern)
    assert str(caught.value)
    assert not capfd.readouterr().err


def test_a_pattern_matches_anywhere() -> None:
    assert matches("th0", "eth0")
    assert not matches("^th0", "eth0")


PIECES = (
    *(r"\d", r"\w", r"\b", r"\z", r"\Z", r"\A", r"\1", r"\C", r"\x41", r"\u0041", r"\pN", r"\p{Greek}", r"\Q", r"\E"),
    *("a", "eth", ".", "*", "+", "?", "{2}", "{2,1}", "{1001}", "^", "$", "|", "(", ")", "[", "]", "[^a-z]", "[z-a]"),
    *(
        "(?:",
        "(?i)",
        "(?P<n>",
        "(?<m>",
        "(?=",
        "(?!",
        "(?#",
        "(?a)",
        "(?s)",
        "[[:digit:]]",
        "[[:nope:]]",
        "é",
        "-",
        "\\",
    ),
)


def test_our_parser_agrees_with_go(go_oracle: Path) -> None:
    generator = random.Random(14)
    patterns = list(VALID + INVALID)
    for _ in range(20_000):
        patterns.append("".join(generator.choice(PIECES) for _ in range(generator.randint(1, 6))))
    answers = oracle.ask(go_oracle, [{"regexp": pattern} for pattern in patterns])
    differing = []
    for pattern, answer in zip(patterns, answers, strict=True):
        try:
            check(pattern)
            valid = True
        except RegexpError:
            valid = False
        if valid != answer["valid"]:
            differing.append((pattern, valid))
    assert not differing

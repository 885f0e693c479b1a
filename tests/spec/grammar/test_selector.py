"""Calico's selector language, with examples and against Calico's own parser."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.spec.grammar.selector import SelectorError, parse
from tests.spec.grammar import oracle

ZONE = "topology.kubernetes.io/zone"


@pytest.mark.parametrize(
    ("text", "labels", "selected"),
    [
        ("all()", {}, True),
        ("global( )", {}, True),
        ("!all()", {"a": "b"}, False),
        ("", {}, True),
        (" \t", {}, True),
        (f"{ZONE} == 'a'", {ZONE: "a"}, True),
        (f'{ZONE} == "a"', {ZONE: "b"}, False),
        ("a != 'b'", {}, True),
        ("a != 'b'", {"a": "b"}, False),
        ("a in {'b', \"c\"}", {"a": "c"}, True),
        ("a in {}", {"a": ""}, False),
        ("a not in {'b',}", {}, True),
        ("a notin {'b'}", {"a": "b"}, False),
        ("a contains 'b'", {"a": "abc"}, True),
        ("a contains ''", {}, False),
        ("a starts with 'b'", {"a": "bc"}, True),
        ("a endswith 'b'", {"a": "bc"}, False),
        ("has( a )", {"a": ""}, True),
        ("!has(a) && b == 'c' || a == ''", {"a": ""}, True),
        ("!(has(a) || has(b))", {"b": "x"}, False),
        ("!!has(a)", {"a": "b"}, True),
        ("has == 'x'", {"has": "x"}, True),
    ],
)
def test_a_selector_selects(text: str, labels: dict[str, str], selected: bool) -> None:
    assert parse(text).selects(labels) is selected


def test_the_labels_that_a_selector_reads() -> None:
    assert parse("has(a) && !(b in {'c'}) || d ends with 'e' && all()").labels == {"a", "b", "d"}


@pytest.mark.parametrize(
    ("text", "problem", "suggestion"),
    [
        (f"{ZONE}=a", "= is not an operator; write == (character 28)", f"{ZONE} == 'a'"),
        (f"{ZONE} == a", "the value must be in quotes (character 32)", f"{ZONE} == 'a'"),
        ("zone in (b, c)", "the values must be in braces", "zone in {'b', 'c'}"),
        ("zone notin (b)", "the values must be in braces", "zone not in {'b'}"),
        ("a='b' && c!=d", "= is not an operator; write ==", "a == 'b' && c!= 'd'"),
        ("a", "needs an operator", None),
        ("all() all()", "&& or || is missing before this (character 7)", None),
        ("a == 'b')", "no parenthesis is open here (character 9)", None),
        ("(a == 'b'", "a closing parenthesis is missing (character 10)", None),
        ("a == 'b", "a quote that is opened here is never closed (character 6)", None),
        ("has(a", "has( is not closed (character 1)", None),
        ("a ==\n'b'", "does not belong here", None),
        ("a in {'b'", "a quoted value or a closing brace is missing here", None),
        ("a in {'b' 'c'}", "a quoted value or a closing brace is missing here", None),
        ("a == ", "the value must be in quotes", None),
        ("a is 'b'", "an operator must follow the label", None),
        ("a ('b')", "an operator must follow the label", None),
        ("all() &&", "is missing here", None),
        ("(" * 5000 + "all()", "parentheses are open", None),
    ],
)
def test_a_text_that_is_no_selector(text: str, problem: str, suggestion: str | None) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert problem in caught.value.problem
    assert caught.value.suggestion == suggestion


@given(st.text(alphabet=" ab/.-_=!&|(){},'\"hasincotk", max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        selector = parse(text)
    except SelectorError as error:
        assert error.problem
        # A suggestion is a valid selector.
        assert error.suggestion is None or parse(error.suggestion)
    else:
        assert selector.selects({"a": "b"}) in (True, False)


PIECES = (
    *("a", "b", "c/d", "has", "in", "'a'", '"b"', "''", "==", "!=", "=", "&", "&&", "||", "!", "(", ")", "{", "}", ","),
    *("contains", "starts with", "startswith", "ends  with", "in", "not in", "notin", "has(a)", "has( b )", "all()"),
    *("global()", "all(", "\n", "%", "a == 'a'", "b in {'a', 'b'}", "c/d not in {'x'}", "a contains 'a'"),
)
LABELS = [dict(pairs) for pairs in ([], [("a", "a")], [("a", "ba"), ("b", "b")], [("b", ""), ("c/d", "x")])]


def test_our_parser_agrees_with_calico(go_oracle: Path) -> None:
    generator = random.Random(14)
    texts = ["".join(pair) for pair in product(PIECES, repeat=2)]
    for _ in range(20_000):
        count = generator.randint(1, 9)
        texts.append(generator.choice(["", " "]).join(generator.choice(PIECES) for _ in range(count)))
    answers = oracle.ask(go_oracle, [{"selector": text, "labels": LABELS} for text in texts])
    accepted = 0
    for text, answer in zip(texts, answers, strict=True):
        try:
            found = [parse(text).selects(labels) for labels in LABELS]
        except SelectorError:
            assert not answer["valid"], text
        else:
            assert answer["valid"], text
            assert found == answer["matches"], text
            accepted += 1
    assert accepted > 500, "the texts say little about selectors that are valid"

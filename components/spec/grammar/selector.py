"""Calico's selector language, in which `nodeSelector` of pools and peers is written.

Source: projectcalico/calico libcalico-go/lib/selector (tokenizer and parser); the documentation describes it under
"Selectors" of each resource. Unlike in Kubernetes' language, values are in quotes, sets in braces, equality is `==`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

MAX_DEPTH: Final = 100
"""Levels of parentheses. Calico has no limit, but no selector needs more."""

Labels = Mapping[str, str]
_Test = Callable[[Labels], bool]


class SelectorError(ValueError):
    """The text is not a selector. `problem` says where and why, `suggestion` is a selector that was probably meant."""

    def __init__(self, problem: str, suggestion: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.suggestion = suggestion


@dataclass(frozen=True)
class Selector:
    """A parsed selector. `labels`: the keys that it reads."""

    text: str
    labels: frozenset[str]
    _test: _Test

    def selects(self, labels: Labels) -> bool:
        return self._test(labels)


def parse(text: str) -> Selector:
    """The selector in `text`. An empty text selects everything, as in Calico. Raises SelectorError."""
    try:
        parser = _Parser(_tokens(text))
        test = parser.whole()
    except SelectorError as error:
        raise SelectorError(error.problem, _suggestion(text)) from None
    return Selector(text, frozenset(parser.labels), test)


# --- tokens -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    """`kind`: a symbol or operator as it is written, or "label", "value", "has", "end"."""

    kind: str
    text: str
    position: int


# Spaces and tabs separate tokens. A line break does not.
_SPACES = " \t"
_LABEL = re.compile(r"[a-zA-Z0-9_./-]+")
_SYMBOL = re.compile(r"==|!=|&&|\|\||[(){},!]")
_STRING = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_CALL = re.compile(r"(all|global)\([ \t]*\)|has\([ \t]*([a-zA-Z0-9_./-]+)[ \t]*\)")
_OPEN_CALL = re.compile(r"(all|global|has)\(")
# Expected only after a label, where Calico needs no space after them.
_OPERATOR = re.compile(r"contains|starts[ \t]*with|ends[ \t]*with|not[ \t]*in|in")


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    while True:
        position += len(text[position:]) - len(text[position:].lstrip(_SPACES))
        if position == len(text):
            return [*found, _Token("end", "", position)]
        token, position = _next_token(text, position, found[-1].kind if found else "")
        found.append(token)


def _next_token(text: str, at: int, before: str) -> tuple[_Token, int]:
    """The token at `at`, and the position after it. `before`: the kind of the token before it, "" for none."""
    if match := _SYMBOL.match(text, at):
        return _Token(match[0], match[0], at), match.end()
    if match := _STRING.match(text, at):
        return _Token("value", match[1] if match[1] is not None else match[2], at), match.end()
    if text[at] in "\"'":
        raise _error("a quote that is opened here is never closed", at)
    if text[at] in "=&|":
        raise _error(f"{text[at]} is not an operator; write {text[at] * 2}", at)
    if before == "label":
        if match := _OPERATOR.match(text, at):
            return _Token(re.sub(r"[ \t]+", "", match[0]), match[0], at), match.end()
        raise _error("an operator must follow the label", at)
    if match := _CALL.match(text, at):
        kind = "has" if match[1] is None else f"{match[1]}()"
        return _Token(kind, match[2] or "", at), match.end()
    if match := _OPEN_CALL.match(text, at):
        raise _error(f"{match[0]} is not closed", at)
    match = _LABEL.match(text, at)
    # A label at the end has no operator. Calico's tokenizer refuses it as well.
    if match and match.end() < len(text):
        return _Token("label", match[0], at), match.end()
    if match and before in _COMPARISONS:
        raise _error("the value must be in quotes", at)
    raise _error("a label needs an operator, e.g. has(label)" if match else f"{text[at]!r} does not belong here", at)


def _error(problem: str, position: int) -> SelectorError:
    return SelectorError(f"{problem} (character {position + 1})")


# --- the grammar ------------------------------------------------------------------------------------------------------


def _equals(key: str, value: str) -> _Test:
    return lambda labels: labels.get(key) == value


def _contains(key: str, value: str) -> _Test:
    return lambda labels: key in labels and value in labels[key]


def _starts_with(key: str, value: str) -> _Test:
    return lambda labels: key in labels and labels[key].startswith(value)


def _ends_with(key: str, value: str) -> _Test:
    return lambda labels: key in labels and labels[key].endswith(value)


def _in(key: str, values: frozenset[str]) -> _Test:
    return lambda labels: labels.get(key) in values


def _negation(test: _Test) -> _Test:
    return lambda labels: not test(labels)


def _everything(_: Labels) -> bool:
    return True


_COMPARISONS: Mapping[str, Callable[[str, str], _Test]] = {
    "==": _equals,
    # Also true if the label is absent.
    "!=": lambda key, value: _negation(_equals(key, value)),
    "contains": _contains,
    "startswith": _starts_with,
    "endswith": _ends_with,
}


class _Parser:
    """Recursive descent. `||` binds weakest, then `&&`, then `!`."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._index = 0
        self._depth = 0
        self.labels: set[str] = set()

    def whole(self) -> _Test:
        if self._next.kind == "end":
            return _everything
        test = self._either()
        if self._next.kind != "end":
            raise _error(
                "&& or || is missing before this" if self._next.kind != ")" else "no parenthesis is open here", self._at
            )
        return test

    @property
    def _next(self) -> _Token:
        return self._tokens[self._index]

    @property
    def _at(self) -> int:
        return self._next.position

    def _take(self, *kinds: str) -> _Token | None:
        """The next token if it is of one of the kinds, else None."""
        if self._next.kind not in kinds:
            return None
        self._index += 1
        return self._tokens[self._index - 1]

    def _either(self) -> _Test:
        tests = [self._all_of()]
        while self._take("||"):
            tests.append(self._all_of())
        return tests[0] if len(tests) == 1 else lambda labels: any(test(labels) for test in tests)

    def _all_of(self) -> _Test:
        tests = [self._operation()]
        while self._take("&&"):
            tests.append(self._operation())
        return tests[0] if len(tests) == 1 else lambda labels: all(test(labels) for test in tests)

    def _operation(self) -> _Test:
        negated = False
        while self._take("!"):
            negated = not negated
        test = self._term()
        return _negation(test) if negated else test

    def _term(self) -> _Test:
        if self._take("all()", "global()"):
            return _everything
        if token := self._take("has"):
            key = token.text
            self.labels.add(key)
            return lambda labels: key in labels
        if token := self._take("label"):
            self.labels.add(token.text)
            return self._comparison(token.text)
        if self._take("("):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise _error(f"more than {MAX_DEPTH} parentheses are open", self._at)
            test = self._either()
            self._depth -= 1
            if not self._take(")"):
                raise _error("a closing parenthesis is missing", self._at)
            return test
        raise _error("a label, has(), all(), ! or ( is missing here", self._at)

    def _comparison(self, key: str) -> _Test:
        if token := self._take("in", "notin"):
            test = _in(key, self._set())
            return test if token.kind == "in" else _negation(test)
        if token := self._take(*_COMPARISONS):
            value = self._take("value")
            if value is None:
                raise _error("the value must be in quotes", self._at)
            return _COMPARISONS[token.kind](key, value.text)
        raise _error("an operator must follow the label", self._at)

    def _set(self) -> frozenset[str]:
        """`{'a', 'b'}`. Calico accepts an empty set, and a comma after the last value."""
        if not self._take("{"):
            raise _error("the values must be in braces, e.g. {'a', 'b'}", self._at)
        values: list[str] = []
        while value := self._take("value"):
            values.append(value.text)
            if not self._take(","):
                break
        if not self._take("}"):
            raise _error("a quoted value or a closing brace is missing here", self._at)
        return frozenset(values)


# --- suggestions ------------------------------------------------------------------------------------------------------

_WORD = r"[a-zA-Z0-9_./-]+"


def _suggestion(text: str) -> str | None:
    """A selector for a text that has the syntax of Kubernetes (`a=b`, `a in (b, c)`) or lacks quotes; else None."""
    found = re.sub(rf"({_WORD})\s+(not\s*in|in)\s*[({{]([^)}}]*)[)}}]", _braces, text)
    found = re.sub(r"\s*(?<![=!])=(?!=)\s*", " == ", found)
    found = re.sub(rf"(==|!=|\bcontains|\bstarts with|\bends with)\s*({_WORD})", r"\1 '\2'", found)
    if found == text:
        return None
    try:
        _Parser(_tokens(found)).whole()
    except SelectorError:
        return None
    return found


def _braces(match: re.Match[str]) -> str:
    values = [value.strip().strip("\"'") for value in match[3].split(",")]
    word = "in" if match[2] == "in" else "not in"
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"{match[1]} {word} {{{quoted}}}"

"""Regular expressions of Go (RE2 syntax), with which Calico matches interface names.

Unlike Python's, they have no lookaround and no backreferences. google-re2 has the same syntax as Go, except for `\\C`,
which Go does not have (pkg.go.dev/regexp/syntax).
"""

from __future__ import annotations

import re

import re2

# Text in which a backslash starts no escape sequence: \Q…\E, and an escaped backslash.
_QUOTED = re.compile(r"\\Q.*?(\\E|$)|\\\\", re.DOTALL)

_QUIET = re2.Options()
# Otherwise it writes every mistake to stderr.
_QUIET.log_errors = False


class RegexpError(ValueError):
    """The text is not a regular expression of Go. The message says what is wrong with it."""


def check(pattern: str) -> None:
    """Raises RegexpError if Go would not compile the pattern."""
    try:
        re2.compile(pattern, _QUIET)
    except re2.error as error:
        reason = error.args[0]
        raise RegexpError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None
    if r"\C" in _QUOTED.sub("", pattern):
        raise RegexpError(r"invalid escape sequence: \C")


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere in the text. Raises RegexpError."""
    check(pattern)
    return bool(re2.search(pattern, text, _QUIET))

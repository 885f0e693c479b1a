"""Go's regular expressions (RE2 syntax), which Calico matches interface names with.

They know no lookaround and no backreferences, unlike Python's. google-re2 is the library that Go's package follows;
one word of it, `\\C`, Go does not know (pkg.go.dev/regexp/syntax).
"""

from __future__ import annotations

import re

import re2

# Where a backslash means no escape sequence: \Q…\E, and the second of two.
_QUOTED = re.compile(r"\\Q.*?(\\E|$)|\\\\", re.DOTALL)

_QUIET = re2.Options()
# It would write every mistake to stderr, too.
_QUIET.log_errors = False


class RegexpError(ValueError):
    """The text is not a regular expression of Go's; the message says what is wrong with it."""


def check(pattern: str) -> None:
    """Raises RegexpError where Go would not compile the pattern."""
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

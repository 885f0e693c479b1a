"""Pieces of SVG as text. Sizes are in units of the drawing's viewBox; colours are in the style sheet, by class."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

SANS, MONO = 0.64, 0.605
"""The mean width of a character, as a part of the font size: in a wide font, because the reader's is not known."""


def rect(css: str, x: float, y: float, width: float, height: float, radius: float = 4) -> str:
    return f'<rect class="{css}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"/>'


def line(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{css}" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>'


def text(css: str, x: float, y: float, words: str) -> str:
    return f'<text class="{css}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def fitted(words: str, width: float, size: float, *, mono: bool = False) -> str:
    """The words, cut in the middle where they are too long: names differ at the end."""
    most = int(width / (size * (MONO if mono else SANS)))
    if len(words) <= most:
        return words
    tail = min(5, max(most - 2, 0))
    return f"{words[: max(most - tail - 1, 1)]}…{words[len(words) - tail :]}"


def attribute(name: str, value: str) -> str:
    return f" {name}={quoteattr(value)}"


def title(words: str) -> str:
    return f"<title>{escape(words)}</title>"

"""A factor for every limit on time: CNILAB_SLOWDOWN=5 lets each bounded wait last five times as long.

The limits suit an ordinary computer and ordinary machines. A slow laptop, or a machine whose processor is emulated,
needs more. Steps carry the factor to their machines (components/node/lib.sh).
"""

from __future__ import annotations

import os

VARIABLE = "CNILAB_SLOWDOWN"
MAXIMUM = 100


def factor() -> int:
    """The factor; 1 if the variable is not set. Raises ValueError with the variable, its value and the fix."""
    text = os.environ.get(VARIABLE, "").strip() or "1"
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= MAXIMUM:
        raise ValueError(
            f"{VARIABLE}={text} is not a whole number from 1 to {MAXIMUM}. "
            f"Fix: export {VARIABLE}=5 lets every wait last five times as long; unset it on an ordinary computer"
        )
    return int(text)


def scaled(seconds: float) -> float:
    """A limit in seconds for this computer. Raises ValueError as `factor` does."""
    return seconds * factor()

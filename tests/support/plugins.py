"""The plugins of pulumi's providers, which a test on the real CLI needs besides it."""

from __future__ import annotations

import re
import subprocess

import pytest

# Two messages of pulumi: no plugin is here, and none could be downloaded.
_MISSING = re.compile(r"(?:no|install) resource plugin '(pulumi-resource-(?:aws|command|kubernetes|random|tls))'")


def skip_without_plugins(done: subprocess.CompletedProcess[str]) -> None:
    """Skip the test if the CLI failed because it has no plugin of a provider."""
    if done.returncode and (found := _MISSING.search(done.stdout + done.stderr)):
        pytest.skip(f"{found[1]} is not on the PATH")

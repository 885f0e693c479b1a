"""Settings of every test."""

from __future__ import annotations

import os

from hypothesis import settings

# A run that judges a change draws the same examples each time; at a desk every run looks further.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

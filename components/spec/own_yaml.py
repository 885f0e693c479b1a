"""YAML that the project ships or writes, read by PyYAML's parser in C, which is ten times as fast as the one in Python.

A stack file is read by document.py instead: errors of the two parsers have different words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

SafeLoader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader in Python, where PyYAML was built without libyaml."""


def read_yaml(path: Path) -> Any:
    return yaml.load(path.read_bytes(), Loader=SafeLoader)

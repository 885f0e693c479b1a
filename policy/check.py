"""The rules asked of a whole stack, with the settings in config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from policy.model import PlannedResource, Settings, Violation
from policy.rules import RULES

CONFIG = Path(__file__).parent / "config.json"


class ConfigError(ValueError):
    """config.json cannot be used. The message says why and what to do."""


def load_config(path: Path = CONFIG) -> dict[str, dict[str, Any]]:
    """The settings of each rule, as the engine takes them from --policy-pack-config. Raises ConfigError."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: must be a mapping of rules to their settings, e.g. {{}}")
    known = {rule.name: {*rule.defaults, "enforcementLevel"} for rule in RULES}
    for name, settings in config.items():
        if name not in known:
            raise ConfigError(f"{path}: {name!r} is not a rule; the rules are {', '.join(known)}")
        if not isinstance(settings, dict) or not known[name] >= settings.keys():
            raise ConfigError(f"{path}: {name}: its settings are {', '.join(sorted(known[name]))}")
        if settings.get("enforcementLevel", "mandatory") not in ("mandatory", "advisory", "disabled"):
            raise ConfigError(f"{path}: {name}: enforcementLevel must be mandatory, advisory or disabled")
        for key in settings.keys() - {"enforcementLevel"}:
            if not isinstance(settings[key], list) or not all(isinstance(item, str) for item in settings[key]):
                raise ConfigError(f"{path}: {name}: {key} must be a list of strings")
    return config


def check(resources: Sequence[PlannedResource], config: Mapping[str, Settings] | None = None) -> list[Violation]:
    """Every violation of every rule in a stack. `config`: the settings of each rule. Default: config.json."""
    config = load_config() if config is None else config
    violations = []
    for rule in RULES:
        settings = config.get(rule.name, {})
        level: Literal["mandatory", "advisory", "disabled"] = settings.get("enforcementLevel", "mandatory")
        if level != "disabled":
            found = rule.run(resources, settings)
            violations += [Violation(rule, resource, message, level == "mandatory") for resource, message in found]
    return violations

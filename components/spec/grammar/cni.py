"""CNI configurations as the runtime reads them: the keys that must be there, and who speaks which cniVersion.

Sources: the CNI specification 1.1.0, section 1; containernetworking/cni v1.3.0 (libcni/conf.go, pkg/utils); the
versions that containernetworking/plugins v1.9.1 and projectcalico/calico v3.32 give to skel.PluginMainFuncs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

VERSIONS: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Every version of the specification, oldest first."""

_NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

# Oldest and newest version that a plugin speaks. Those of containernetworking and whereabouts that do not stand here
# speak all of them; of a plugin that is not known here nothing is said.
_SPOKEN: Final[Mapping[str, tuple[str, str]]] = {
    "calico": ("0.1.0", "1.0.0"),
    "calico-ipam": ("0.1.0", "1.0.0"),
    "bandwidth": ("0.3.0", "1.1.0"),
    "firewall": ("0.4.0", "1.1.0"),
    "vrf": ("0.3.1", "1.1.0"),
}
# Multus needs the result's list of interfaces, which came with 0.3.0.
_OLDEST: Final = "0.3.0"


@dataclass(frozen=True)
class Fault:
    """What is wrong at `key`, a dotted path inside the configuration; `value` None where the key is missing."""

    key: str
    value: object
    problem: str
    fix: str


def spoken_versions(plugin: str) -> tuple[str, ...]:
    """The versions that a plugin speaks, as far as Multus can use them."""
    oldest, newest = _SPOKEN.get(plugin, (_OLDEST, VERSIONS[-1]))
    first = max(VERSIONS.index(oldest), VERSIONS.index(_OLDEST))
    return VERSIONS[first : VERSIONS.index(newest) + 1]


def faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with a network's configuration: one plugin, or a list of them under `plugins`."""
    plugins = config.get("plugins")
    yield from _name_faults(config)
    if "plugins" not in config:
        if not _is_plugin(config):
            fix = "add type: with a plugin's name, e.g. bridge"
            yield Fault("type", config.get("type"), "a CNI configuration names its plugin", fix)
    elif not (isinstance(plugins, list) and plugins and all(map(_is_plugin, plugins))):
        problem = "must be a list of mappings, each with a type"
        yield Fault("plugins", plugins, problem, "write e.g. plugins: [{type: bridge}]")
    yield from _version_faults(config)


def _is_plugin(config: object) -> bool:
    """Whether the mapping names a plugin. libcni refuses one that is a path."""
    kind = config.get("type") if isinstance(config, dict) else None
    return isinstance(kind, str) and bool(kind) and "/" not in kind


def _name_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    name = config.get("name")
    if "name" in config and not (isinstance(name, str) and _NETWORK_NAME.fullmatch(name)):
        fix = "write letters, digits, _ . and -, a letter or digit first, or leave it out"
        yield Fault("name", name, "is not the name of a CNI network", fix)


def _version_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    version = config.get("cniVersion")
    if version is None:
        yield Fault("cniVersion", None, "a CNI configuration needs it", f"add cniVersion: {_default(config)}")
        return
    if version not in spoken_versions(""):
        fix = f"write {_default(config)}; known: {', '.join(spoken_versions(''))}"
        yield Fault("cniVersion", version, "is not a known version", fix)
        return
    for plugin in _plugin_types(config):
        spoken = spoken_versions(plugin)
        if version not in spoken:
            # One version stands for all plugins, so one answer is enough.
            problem = f"the plugin {plugin} speaks {spoken[0]} to {spoken[-1]}"
            yield Fault("cniVersion", version, problem, f"write {_default(config)}")
            return


def _default(config: Mapping[str, Any]) -> str:
    """0.3.1, which Calico's own configuration has, or the next that every plugin of the configuration speaks."""
    common = [v for v in VERSIONS if all(v in spoken_versions(plugin) for plugin in ("", *_plugin_types(config)))]
    later = [v for v in common if VERSIONS.index(v) >= VERSIONS.index("0.3.1")]
    return later[0] if later else "0.3.1"


def _plugin_types(config: Mapping[str, Any]) -> Iterator[str]:
    """The plugins that a configuration calls, IPAM's among them."""
    inner = config.get("plugins")
    for plugin in inner if isinstance(inner, list) else [config]:
        if _is_plugin(plugin):
            yield plugin["type"]
            if _is_plugin(plugin.get("ipam")):
                yield plugin["ipam"]["type"]

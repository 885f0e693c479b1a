"""CNI configurations as the runtime reads them: the required keys, and the cniVersions that each plugin supports.

Sources: the CNI specification 1.1.0, section 1; containernetworking/cni v1.3.0 (libcni/conf.go, pkg/utils); the
versions that containernetworking/plugins v1.9.1 and projectcalico/calico v3.32 pass to skel.PluginMainFuncs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

VERSIONS: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Every version of the specification, the oldest first."""

_NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

# The oldest and newest version that a plugin supports. All other plugins count as supporting every version; those of
# containernetworking and whereabouts do.
_SUPPORTED: Final[Mapping[str, tuple[str, str]]] = {
    "calico": ("0.1.0", "1.0.0"),
    "calico-ipam": ("0.1.0", "1.0.0"),
    "bandwidth": ("0.3.0", "1.1.0"),
    "firewall": ("0.4.0", "1.1.0"),
    "vrf": ("0.3.1", "1.1.0"),
}
# Multus needs the list of interfaces in the result, which version 0.3.0 introduced.
_OLDEST: Final = "0.3.0"


@dataclass(frozen=True)
class CniProblem:
    """What is wrong at `key`, a dotted path inside the configuration. `value` is None if the key is missing."""

    key: str
    value: object
    problem: str
    fix: str


def supported_versions(plugin: str) -> tuple[str, ...]:
    """The versions that a plugin supports and Multus can use."""
    oldest, newest = _SUPPORTED.get(plugin, (_OLDEST, VERSIONS[-1]))
    first = max(VERSIONS.index(oldest), VERSIONS.index(_OLDEST))
    return VERSIONS[first : VERSIONS.index(newest) + 1]


def problems(config: Mapping[str, Any]) -> Iterator[CniProblem]:
    """What is wrong with a network's configuration: one plugin, or a list of them under `plugins`."""
    plugins = config.get("plugins")
    yield from _name_problems(config)
    if "plugins" not in config:
        if not _is_plugin(config):
            fix = "add type: with a plugin's name, e.g. bridge"
            yield CniProblem("type", config.get("type"), "a CNI configuration must name its plugin", fix)
    elif not (isinstance(plugins, list) and plugins and all(map(_is_plugin, plugins))):
        problem = "must be a list of mappings, each with a type"
        yield CniProblem("plugins", plugins, problem, "write e.g. plugins: [{type: bridge}]")
    yield from _version_problems(config)


def _is_plugin(config: object) -> bool:
    """Whether the mapping names a plugin. libcni refuses a path."""
    kind = config.get("type") if isinstance(config, dict) else None
    return isinstance(kind, str) and bool(kind) and "/" not in kind


def _name_problems(config: Mapping[str, Any]) -> Iterator[CniProblem]:
    name = config.get("name")
    if "name" in config and not (isinstance(name, str) and _NETWORK_NAME.fullmatch(name)):
        fix = "write letters, digits, _ . and -, with a letter or digit first, or leave it out"
        yield CniProblem("name", name, "is not the name of a CNI network", fix)


def _version_problems(config: Mapping[str, Any]) -> Iterator[CniProblem]:
    version = config.get("cniVersion")
    if version is None:
        yield CniProblem("cniVersion", None, "a CNI configuration needs it", f"add cniVersion: {_default(config)}")
        return
    if version not in supported_versions(""):
        fix = f"write {_default(config)}; known: {', '.join(supported_versions(''))}"
        yield CniProblem("cniVersion", version, "is not a known version", fix)
        return
    for plugin in _plugin_types(config):
        supported = supported_versions(plugin)
        if version not in supported:
            # There is one version for all plugins, so one finding is enough.
            problem = f"the plugin {plugin} supports {supported[0]} to {supported[-1]}"
            yield CniProblem("cniVersion", version, problem, f"write {_default(config)}")
            return


def _default(config: Mapping[str, Any]) -> str:
    """The version of Calico's own configuration, 0.3.1, or the next one that every plugin of this one supports."""
    common = [v for v in VERSIONS if all(v in supported_versions(plugin) for plugin in ("", *_plugin_types(config)))]
    later = [v for v in common if VERSIONS.index(v) >= VERSIONS.index("0.3.1")]
    return later[0] if later else "0.3.1"


def _plugin_types(config: Mapping[str, Any]) -> Iterator[str]:
    """The plugins that a configuration calls, among them IPAM plugins."""
    inner = config.get("plugins")
    for plugin in inner if isinstance(inner, list) else [config]:
        if _is_plugin(plugin):
            yield plugin["type"]
            if _is_plugin(plugin.get("ipam")):
                yield plugin["ipam"]["type"]

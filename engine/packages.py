"""The modules of a large SDK package, each loaded when the program asks for one of its names.

An SDK of a provider loads a package such as `pulumi_aws.ec2` when the program first uses it, but then all of its
modules: more than 200, for the dozen types of resources that a lab is made of. That was a quarter of a plan's time.

Here `aws.ec2.Vpc` loads the module `vpc` alone. The SDKs' generator names a module after what it defines;
where there is no module of that name, the whole package is loaded.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pulumi import _utils

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Package(ModuleType):
    """A package whose `__init__.py` has not run."""

    def __getattr__(self, name: str) -> Any:
        """Python calls this for a name that the package does not have yet."""
        if not name.startswith("__"):
            for module in _modules(name):
                if any((Path(folder) / f"{module}.py").is_file() for folder in vars(self).get("__path__", ())):
                    loaded = import_module(f"{self.__name__}.{module}")
                    if name in vars(self) or name == module:
                        return vars(self).get(name, loaded)
        assert self.__spec__ and self.__spec__.loader
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Python sets each module as an attribute of its package. Add what `from .module import *` would."""
        super().__setattr__(name, value)
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}":
            vars(self).update({public: getattr(value, public) for public in getattr(value, "__all__", ())})


def _modules(name: str) -> tuple[str, ...]:
    """The modules that may define a name: `route_table` for RouteTable, `get_ami` for get_ami_output."""
    return (_WORD_START.sub("_", name).lower().removesuffix("_output"), "_inputs")


def install() -> None:
    """Let the SDKs that are imported from now on load their packages in this way."""
    _utils._LazyModule = Package  # type: ignore[misc,assignment]

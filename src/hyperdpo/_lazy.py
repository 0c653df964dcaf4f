"""Public names of a package, each imported from its module when it is first used."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str], *, deprecated: bool = False) -> Callable[[str], Any]:
    """A package's ``__getattr__``, so that ``import hyperdpo`` loads no torch.

    Args:
        package: its ``__name__``; or that of a module from which names have moved.
        homes: the module of each public name.
        deprecated: warn that the name is to be imported from its own module.
    """

    def lookup(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if deprecated:
            note = f"{package}.{name} is deprecated; import it from {homes[name]}"
            warnings.warn(note, DeprecationWarning, stacklevel=2)
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return lookup

"""Public names of a package, each imported from its module when it is first used."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_package(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's ``__getattr__``, ``__dir__`` and ``__all__``, so that ``import hyperdpo`` loads no torch.

    The names stand in one place, the ``__init__.pyi`` beside the package's file, where type checkers look too.

    Args:
        package, file: its ``__name__`` and ``__file__``.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}
    names = sorted(homes)
    return lazy_names(package, homes), lambda: names, names


def lazy_names(package: str, homes: Mapping[str, str], *, deprecated: bool = False) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package, or of a module from which names have moved.

    Args:
        package: its ``__name__``.
        homes: the module of each name.
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

"""The examples in core's docstrings: they run, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from hyperdpo import core

MODULES = sorted(module.name for module in pkgutil.iter_modules(core.__path__, "hyperdpo.core."))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", core.__all__)
def test_a_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(core, name).__doc__ or "")

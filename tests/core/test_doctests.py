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
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried > 0 or name == "hyperdpo.core.limits", "a module of constants alone needs none"


@pytest.mark.parametrize("name", core.__all__)
def test_a_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(core, name).__doc__ or "")

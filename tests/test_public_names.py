"""Public names can be imported from where a user looks, and from where they were."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from hyperdpo._moved import MOVED

PACKAGES = ("hyperdpo", "hyperdpo.core", "hyperdpo.alignment", "hyperdpo.alignment.data")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


def test_the_names_that_users_import_most_are_public() -> None:
    names = {package: set(importlib.import_module(package).__all__) for package in PACKAGES}
    assert {"HyperRanker", "HyperDPOTrainer", "HyperDPOConfig", "ConditionedLM", "choose"} <= names["hyperdpo"]
    assert {"HyperDPOTrainer", "HyperDPOConfig", "ConditionedLM"} <= names["hyperdpo.alignment"]
    assert {"listnet_dpo_loss", "hypernet_loss", "mixture_scores", "linear_transformation"} <= names["hyperdpo.core"]


@pytest.mark.parametrize("old", MOVED)
def test_an_old_module_is_the_new_one_with_a_note(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is deprecated; import {MOVED[old]} instead"):
        found = importlib.import_module(old)
    new = importlib.import_module(MOVED[old])
    name = next(name for name, value in vars(new).items() if getattr(value, "__module__", None) == new.__name__)
    assert getattr(found, name) is getattr(new, name)


def test_the_note_names_the_line_that_imports() -> None:
    program = "import hyperdpo\nfrom hyperdpo.ranking.ranker import HyperRanker\nprint(HyperRanker.__module__)\n"
    done = subprocess.run([sys.executable, "-W", "default", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "hyperdpo.ranking.estimator"
    assert "<string>:2: DeprecationWarning: hyperdpo.ranking.ranker is deprecated" in done.stderr

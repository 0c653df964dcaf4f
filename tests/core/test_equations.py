"""An equation of the paper is found by its number, which stands where it is computed and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hyperdpo.comparison import trainings
from hyperdpo.core import control, losses, sampling

PACKAGE = Path(losses.__file__).parents[1]
COMPUTED_BY = {
    7: losses.mean_losses,
    8: losses.plackett_luce_log_likelihood,
    9: losses.listnet_loss,
    10: losses.listnet_dpo_loss,
    11: losses.mean_losses,
    12: losses.scalarise,
    13: losses.hypernet_loss,
    14: control.linear_transformation,
    18: trainings.with_margin,
    19: control.temperature_transformation,
    20: sampling.sample_temperatures,
}
NUMBER = re.compile(r"(?:Eqs?\.|[Ee]quations?)\s*\(?(\d+)\)?")


def places(text: str) -> list[int]:
    return [int(number) for number in NUMBER.findall(text)]


@pytest.mark.parametrize("number", COMPUTED_BY)
def test_a_number_stands_in_the_docstring_of_the_function_that_computes_it(number: int) -> None:
    assert places(COMPUTED_BY[number].__doc__ or "").count(number) == 1


def test_a_number_stands_nowhere_else() -> None:
    found = [number for path in PACKAGE.rglob("*.py") for number in places(path.read_text())]
    assert sorted(found) == sorted(COMPUTED_BY)

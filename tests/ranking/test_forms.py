"""Which form a mixture gets where none is asked for."""

from __future__ import annotations

import pytest
from helpers import toy_config

from hyperdpo.errors import InputError
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import RankConfig, with_overrides
from hyperdpo.ranking.forms import main_column_line, with_form


def form(base: str = "trained", **overrides: object) -> tuple[str | None, str]:
    """The form, and what is said of it."""
    said: list[str] = []
    config: RankConfig = with_overrides(toy_config(mixture={"form": None}), overrides)
    return with_form(config, BaseSource(base), said.append).mixture.form, " ".join(said)


def test_expected_gains_where_the_base_is_trained_here() -> None:
    unread = "; targets, transforms and target temperatures are not read"
    assert form() == ("gain", f"mixture.form: gain, because the base is trained here{unread}")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"base": "given"}, "base scores are given"),
        ({"base": "column"}, "base scores are given"),
        ({"mixture": {"smoothing": 0.5}}, "mixture.smoothing is set"),
        ({"beta": "auto"}, "a temperature β is set"),
        ({"objectives": [{"name": "a", "beta": 0.5}, {"name": "b"}]}, "a temperature β is set"),
    ],
)
def test_the_product_where_gains_do_not_apply(arguments: dict, why: str) -> None:
    found, said = form(**arguments)
    assert found == "product"
    assert said == f"mixture.form: product, because {why}"


def test_trees_and_settings_of_gains_decide_for_gains() -> None:
    assert form("given", scorer={"kind": "gbdt"})[0] == "gain"
    assert form("given", mixture={"main_share": 0.3})[0] == "gain"
    with pytest.raises(InputError, match="expected gains"):
        form(mixture={"main_share": 0.3}, beta="auto")


def test_a_form_that_is_asked_for_stays() -> None:
    assert form(mixture={"form": "product"}) == ("product", "")
    assert form(parametrization="scratch") == (None, "")


def test_only_gains_without_a_main_label_have_a_main_column_of_the_base() -> None:
    gain = {"mixture": {"form": "gain"}}
    line = main_column_line(toy_config(main=None, **gain))
    assert line is not None
    assert line.startswith("main: there is no main label, so the main column is softmax(base score / spread)")
    for others in (gain, {"main": None}, {"main": None, **gain, "parametrization": "scratch"}):
        assert main_column_line(toy_config(**others)) is None

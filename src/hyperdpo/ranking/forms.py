"""Which form a mixture has where none is asked for: expected gains, or the product with the base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.betas import check_beta
from hyperdpo.ranking.config import WITH_TREES, MixtureConfig, RankConfig
from hyperdpo.ranking.mixture_config import Form

#: Settings of the form ``product`` alone.
PRODUCT_ONLY = ("distillation", "smoothing", "power")
#: Settings of the form ``gain`` alone.
GAIN_ONLY = ("members", "main_share", "learned_main")


def with_form(config: RankConfig, base_source: BaseSource, say: Callable[[str], None] | None = None) -> RankConfig:
    """The configuration with a form, where ``mixture.form`` is null.

    Args:
        say: called with the form that is taken, and why.

    Raises:
        InputError: a β and settings of expected gains.
    """
    if config.mixture.form is not None or config.parametrization != "mixture":
        return config
    form, why = _form(config, base_source)
    if say is not None:
        unread = "; targets, transforms and target temperatures are not read" if form == "gain" else ""
        say(f"mixture.form: {form}, because {why}{unread}")
    config = replace(config, mixture=replace(config.mixture, form=form))
    check_beta(config)
    return config


def main_column_line(config: RankConfig) -> str | None:
    """What the main column is, for a run of expected gains that has no main label to learn it from; else None."""
    if config.parametrization != "mixture" or config.mixture.form != "gain" or config.main is not None:
        return None
    return (
        "main: there is no main label, so the main column is softmax(base score / spread) in each list, not learned "
        "expected gains"
    )


def _form(config: RankConfig, base_source: BaseSource) -> tuple[Form, str]:
    """The form, and the reason."""
    usual = MixtureConfig()
    if config.scorer.kind in WITH_TREES:
        return "gain", f"scorer.kind is {config.scorer.kind}"
    own: dict[Form, tuple[str, ...]] = {"product": PRODUCT_ONLY, "gain": GAIN_ONLY}
    for form, names in own.items():
        for name in names:
            if getattr(config.mixture, name) != getattr(usual, name):
                return form, f"mixture.{name} is set"
    if config.beta is not None or any(objective.beta != 1 for objective in config.objectives):
        return "product", "a temperature β is set"
    if base_source.kind != "trained":
        return "product", "base scores are given"
    return "gain", "the base is trained here"

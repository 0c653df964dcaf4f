"""``beta: auto``: temperatures that suit the spread of the base's scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hyperdpo.errors import InputError
from hyperdpo.ranking.gbdt_config import WITH_TREES

if TYPE_CHECKING:
    from hyperdpo.ranking.config import RankConfig

AUTO = "auto"


def with_beta_of_objectives(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Settings where ``beta: auto`` of every objective has become the setting for all of them.

    Raises:
        InputError: some objectives have it and others do not.
    """
    objectives = values.get("objectives") if isinstance(values, Mapping) else None
    if not isinstance(objectives, list | tuple):
        return values
    asked = [isinstance(one, Mapping) and one.get("beta") == AUTO for one in objectives]
    if not any(asked):
        return values
    if not all(asked):
        raise InputError(
            f"{where}: objectives.{asked.index(True)}.beta is auto, but not the others'; set beta: auto for all, and "
            "numbers as multiples"
        )
    own = [{name: value for name, value in one.items() if name != "beta"} for one in objectives]
    return {**values, "objectives": own, "beta": AUTO}


def check_beta(config: RankConfig) -> None:
    """Refuse temperatures that a run of this configuration would not use.

    Raises:
        InputError: expected gains with a β, or ``beta: auto`` for a ranker that draws its temperatures.
    """
    gains = config.mixture.form == "gain" or (config.mixture.form is None and config.scorer.kind in WITH_TREES)
    if config.parametrization == "mixture" and gains:
        none = "but expected gains (mixture.form gain) have none; remove it"
        if config.beta is not None:
            raise InputError(f"beta is {config.beta}, {none}")
        for objective in config.objectives:
            if objective.beta != 1:
                raise InputError(f"objective {objective.name!r}: beta is {objective.beta:g}, {none}")
    if config.parametrization == "temperature" and config.beta is not None:
        raise InputError(
            f"beta is {config.beta}, but a temperature ranker draws β between temperatures.low and temperatures.high; "
            "set those"
        )


def with_numbers(config: RankConfig, spread: float, source: str) -> RankConfig:
    """The configuration with β_j divided by the base's spread, where ``beta`` is ``auto``.

    Args:
        spread: standard deviation of the base scores within training groups.
        source: the training data, for messages.

    Raises:
        InputError: the spread is 0.
    """
    if config.beta is None:
        return config
    if not spread > 0:
        raise InputError(
            f"{source}: beta is {config.beta}, but the base scores do not differ within any training group; set a "
            "number per objective"
        )
    objectives = tuple(replace(one, beta=one.beta / spread) for one in config.objectives)
    return replace(config, objectives=objectives, beta=None)

"""New rankers by configuration."""

from __future__ import annotations

from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.parametrizations import AugmentationRanker, MixtureRanker, Ranker, TemperatureRanker


def conditioned_ranker(config: RankConfig, num_features: int) -> Ranker:
    """The ranker for all weightings that the configuration asks for, with new weights."""
    m = len(config.objectives)
    if config.parametrization == "mixture":
        if config.mixture.form == "gain":
            return GainRanker(config.scorer, num_features, m, config.mixture, learns_main=config.main is not None)
        return MixtureRanker(config.scorer, num_features, m, config.mixture, [o.beta for o in config.objectives])
    if config.parametrization == "temperature":
        augmentation = config.temperatures.parametrization == "augmentation"
        return TemperatureRanker(config.scorer, num_features, m, augmentation=augmentation)
    kind = AugmentationRanker if config.parametrization == "augmentation" else Ranker
    return kind(config.scorer, num_features, m)


def fixed_ranker(config: RankConfig, num_features: int) -> Ranker:
    """The same network without w, for one weighting (a baseline); a base is one too.

    Only ``augmentation`` keeps its parametrisation: the others' baselines are trained from scratch, as in the paper.
    """
    kind = AugmentationRanker if config.parametrization == "augmentation" else Ranker
    return kind(config.scorer, num_features)

"""The paper's mathematics on tensors. Knows no files and no models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperdpo._lazy import lazy_names

if TYPE_CHECKING:
    from hyperdpo.core.control import (
        linear_transformation,
        normalised_temperatures,
        proportional_scale,
        temperature_transformation,
    )
    from hyperdpo.core.losses import (
        average_counts,
        cosine_penalty,
        hypernet_loss,
        listnet_dpo_loss,
        listnet_loss,
        mean_losses,
        plackett_luce_log_likelihood,
        scalarise,
        top_one_log_probabilities,
    )
    from hyperdpo.core.mixture import mixture_scores
    from hyperdpo.core.pareto import hypervolume, non_dominated
    from hyperdpo.core.point import Point, PointReader, check_temperatures, check_weights
    from hyperdpo.core.preferences import stream, weight_grid
    from hyperdpo.core.sampling import WeightSampler, sample_dirichlet, sample_temperatures, sample_weights
    from hyperdpo.core.targets import l1_targets, softmax_targets

__all__ = [
    "Point",
    "PointReader",
    "WeightSampler",
    "average_counts",
    "check_temperatures",
    "check_weights",
    "cosine_penalty",
    "hypernet_loss",
    "hypervolume",
    "l1_targets",
    "linear_transformation",
    "listnet_dpo_loss",
    "listnet_loss",
    "mean_losses",
    "mixture_scores",
    "non_dominated",
    "normalised_temperatures",
    "plackett_luce_log_likelihood",
    "proportional_scale",
    "sample_dirichlet",
    "sample_temperatures",
    "sample_weights",
    "scalarise",
    "softmax_targets",
    "stream",
    "temperature_transformation",
    "top_one_log_probabilities",
    "weight_grid",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Point": "hyperdpo.core.point",
        "PointReader": "hyperdpo.core.point",
        "WeightSampler": "hyperdpo.core.sampling",
        "average_counts": "hyperdpo.core.losses",
        "check_temperatures": "hyperdpo.core.point",
        "check_weights": "hyperdpo.core.point",
        "cosine_penalty": "hyperdpo.core.losses",
        "hypernet_loss": "hyperdpo.core.losses",
        "hypervolume": "hyperdpo.core.pareto",
        "l1_targets": "hyperdpo.core.targets",
        "linear_transformation": "hyperdpo.core.control",
        "listnet_dpo_loss": "hyperdpo.core.losses",
        "listnet_loss": "hyperdpo.core.losses",
        "mean_losses": "hyperdpo.core.losses",
        "mixture_scores": "hyperdpo.core.mixture",
        "non_dominated": "hyperdpo.core.pareto",
        "normalised_temperatures": "hyperdpo.core.control",
        "plackett_luce_log_likelihood": "hyperdpo.core.losses",
        "proportional_scale": "hyperdpo.core.control",
        "sample_dirichlet": "hyperdpo.core.sampling",
        "sample_temperatures": "hyperdpo.core.sampling",
        "sample_weights": "hyperdpo.core.sampling",
        "scalarise": "hyperdpo.core.losses",
        "softmax_targets": "hyperdpo.core.targets",
        "stream": "hyperdpo.core.preferences",
        "temperature_transformation": "hyperdpo.core.control",
        "top_one_log_probabilities": "hyperdpo.core.losses",
        "weight_grid": "hyperdpo.core.preferences",
    },
)


def __dir__() -> list[str]:
    return __all__

"""What each method trains, and which trained models answer for a w: the same for rankers and language models.

A method is a function from (P, m) weights, one w per row, to one :class:`Recipe` per row. It names trainings (jobs);
how a job is trained is written in :mod:`hyperdpo.comparison.rank` and :mod:`hyperdpo.comparison.align`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

# --- jobs


@dataclass(frozen=True)
class Conditioned:
    """One training of a model that takes w as an input."""

    @property
    def name(self) -> str:
        return "conditioned"


@dataclass(frozen=True)
class Fixed:
    """A model for one w, by linear scalarisation. At unit vectors: the single-objective experts."""

    weights: tuple[float, ...]

    @property
    def name(self) -> str:
        return "fixed-" + _text(self.weights)


@dataclass(frozen=True)
class Margin:
    """A model for one w, trained on one objective with the other objectives' experts as a margin."""

    weights: tuple[float, ...]
    objective: int
    """i, the objective that is trained on."""
    experts: tuple[Fixed, ...]
    """One per objective, frozen. The i-th, and those with a weight of 0, are not used."""

    @property
    def name(self) -> str:
        return "margin-" + _text(self.weights)


@dataclass(frozen=True)
class Trees:
    """A LightGBM model for one w, on labels that are summed with the weights w. For rankers only."""

    weights: tuple[float, ...]
    main_share: float | None = None
    """The main label's share in the sum; None: the share at which the main score matches HyperDPO's."""
    member: int | None = None
    """Its number among the models whose scores are averaged, each of which draws features with a seed of its own. None:
    there is one model, which sees all features."""


#: Trainings of neural networks.
NetworkJob: TypeAlias = Conditioned | Fixed | Margin
Job: TypeAlias = NetworkJob | Trees


@dataclass(frozen=True)
class Recipe:
    """Which trained models to combine for one w, and how: average their parameters, average their predictions, or use
    one as it is."""

    jobs: tuple[Job, ...]
    shares: tuple[float, ...] = (1.0,)
    """The weight of each job's model in the average."""
    average: Literal["parameters", "predictions"] = "parameters"


#: From (P, m) weights to P recipes.
Method = Callable[[np.ndarray], list[Recipe]]

# --- methods


def hyperdpo(weights: np.ndarray) -> list[Recipe]:
    """One conditioned model answers for every w."""
    return [Recipe((Conditioned(),)) for _ in weights]


def dpo_ls(weights: np.ndarray) -> list[Recipe]:
    """DPO-LS (linear scalarisation): one model for each w."""
    return [Recipe((Fixed(_row(w)),)) for w in weights]


def dpo_soup(weights: np.ndarray) -> list[Recipe]:
    """DPO Soup: the average, with the shares w, of the parameters of m experts that started from the same point."""
    return [Recipe(_experts(len(w)), _row(w)) for w in weights]


def mo_dpo(weights: np.ndarray) -> list[Recipe]:
    """MO-DPO: the m experts, then one model for each w, with the experts as a margin.

    The objective i that is trained on is free. With i = argmax w the factor 1 / w_i of the loss is at most m. At a
    vertex there is no margin: the model is the expert itself, and is not trained again.
    """

    def job(w: np.ndarray) -> Job:
        i, experts = int(w.argmax()), _experts(len(w))
        return experts[i] if w[i] == 1 else Margin(_row(w), i, experts)

    return [Recipe((job(w),)) for w in weights]


def logit_mixing(weights: np.ndarray) -> list[Recipe]:
    """Logit mixing: the average, with the shares w, of the predictions of the m experts.

    For language models: the next token's log-probabilities, normalised again, at every step. It costs m times the
    computation, and memory for m models.
    """
    return [Recipe(_experts(len(w)), _row(w), average="predictions") for w in weights]


def lightgbm_ls(weights: np.ndarray, main_share: float | None = None, models: int = 1) -> list[Recipe]:
    """LightGBM-LS: one LambdaMART model for each w, or the mean of several.

    Args:
        main_share: see :class:`Trees`.
        models: for each w.
    """
    members = [None] if models == 1 else range(models)
    shares = (1 / models,) * models
    return [
        Recipe(tuple(Trees(_row(w), main_share, member) for member in members), shares, "predictions") for w in weights
    ]


#: By the names that the command line uses.
METHODS: dict[str, Method] = {
    "hyperdpo": hyperdpo,
    "dpo-ls": dpo_ls,
    "dpo-soup": dpo_soup,
    "mo-dpo": mo_dpo,
    "logit-mixing": logit_mixing,
    "lightgbm-ls": lightgbm_ls,
}


def needs_lightgbm(method: str) -> bool:
    """Whether a method trains LightGBM models."""
    return METHODS[method] is lightgbm_ls


def jobs_of(recipes: Sequence[Recipe]) -> list[Job]:
    """Every training that the recipes need, once, in an order in which they can be run."""
    ordered: dict[Job, None] = {}
    for recipe in recipes:
        for job in recipe.jobs:
            if isinstance(job, Margin):
                ordered.update(dict.fromkeys(job.experts))
            ordered[job] = None
    return list(ordered)


def _experts(num_objectives: int) -> tuple[Fixed, ...]:
    """The single-objective fine-tunings e_1 to e_m."""
    return tuple(Fixed(_row(row)) for row in np.eye(num_objectives))


def _row(weights: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, weights))


def _text(weights: Sequence[float]) -> str:
    return "-".join(f"{w:.4g}" for w in weights)

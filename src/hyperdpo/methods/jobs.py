"""Trainings, and how trained models answer for a w."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np


@dataclass(frozen=True)
class Conditioned:
    """One training, Eq. (13), of a model that is asked with w."""

    @property
    def name(self) -> str:
        return "conditioned"


@dataclass(frozen=True)
class Fixed:
    """A model for one w: linear scalarisation, Eq. (12). Unit vectors give the single-objective fine-tunings."""

    weights: tuple[float, ...]

    @property
    def name(self) -> str:
        return "fixed-" + _text(self.weights)


@dataclass(frozen=True)
class Margin:
    """A model for one w, trained on objective i with the others' experts as a margin: Eq. (18)."""

    weights: tuple[float, ...]
    objective: int
    """i."""
    experts: tuple[Fixed, ...]
    """One per objective; frozen. Those with a weight of 0, and the i-th, are not asked."""

    @property
    def name(self) -> str:
        return "margin-" + _text(self.weights)


Job: TypeAlias = Conditioned | Fixed | Margin


@dataclass(frozen=True)
class Recipe:
    """The model for one w: the average of some models' parameters or predictions; of one model, the model itself."""

    jobs: tuple[Job, ...]
    shares: tuple[float, ...] = (1.0,)
    average: Literal["parameters", "predictions"] = "parameters"


#: Answers for (P, m) weights, one per row.
Method = Callable[[np.ndarray], list[Recipe]]


def jobs_of(answers: Sequence[Recipe]) -> list[Job]:
    """Every training that the answers rest on, once, in an order in which they can be run."""
    ordered: dict[Job, None] = {}
    for answer in answers:
        for job in answer.jobs:
            if isinstance(job, Margin):
                ordered.update(dict.fromkeys(job.experts))
            ordered[job] = None
    return list(ordered)


def expert(objective: int, num_objectives: int) -> Fixed:
    """The single-objective fine-tuning e_i."""
    return Fixed(tuple(float(j == objective) for j in range(num_objectives)))


def _text(weights: Sequence[float]) -> str:
    return "-".join(f"{w:.4g}" for w in weights)

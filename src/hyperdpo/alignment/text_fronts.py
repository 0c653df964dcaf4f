"""How good sampled texts are along w: mean scores at each weighting, the front they make, the mean inner product.

Shapes: P weightings, T prompts, S texts of each, m objectives. Scores are as scorers give them; an objective that is
minimised has the sign -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo.core.inner_product import inner_products
from hyperdpo.core.pareto import hypervolume
from hyperdpo.errors import InputError
from hyperdpo.files import read_json
from hyperdpo.fronts import named
from hyperdpo.objectives import Objective

#: The file of a round of ``align improve`` with its texts and their scores, and the directory of the base's beside it.
TEXTS, BASE_TEXTS = "texts.json", "base"
#: What the reference point of the hypervolume is.
REFERENCE = "the base's mean minus one standard deviation of its texts"


def signs_of(objectives: Sequence[Objective]) -> np.ndarray:
    """(m,): -1 for an objective that is minimised, else 1."""
    return np.array([-1.0 if one.direction == "minimize" else 1.0 for one in objectives])


def kept_front(round_directory: Path, objectives: Sequence[Objective]) -> TextFront | None:
    """What the texts of a round of ``align improve`` scored; None if they are not there, or not beside the base's."""
    paths = round_directory / TEXTS, round_directory.parent / BASE_TEXTS / TEXTS
    if not all(path.is_file() for path in paths):
        return None
    found, base = (read_json(path) for path in paths)
    names = tuple(one.name for one in objectives)
    scores, of_base = np.array(found["scores"]), np.array(base["scores"])[0]
    return TextFront(names, signs_of(objectives), np.array(found["weights"]), scores, of_base)


@dataclass(frozen=True)
class TextFront:
    """Scores of sampled texts at P weightings, beside those of the base.

    Attributes:
        objectives: m names.
        signs: (m,), see :func:`signs_of`.
        weights: (P, m).
        scores: (P, T, S, m).
        base: (T, S, m), of the base's texts.
    """

    objectives: tuple[str, ...]
    signs: np.ndarray
    weights: np.ndarray
    scores: np.ndarray
    base: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.weights), *self.base.shape)
        if self.scores.shape != expected or self.base.shape[-1] != len(self.objectives):
            raise InputError(f"scores of texts of shape {self.scores.shape}; expected {expected}")

    @property
    def inner(self) -> np.ndarray:
        """(P, T, S), see :func:`inner_products`."""
        turned = (self.base * self.signs).reshape(-1, len(self.objectives))
        return inner_products(self.weights, self.scores * self.signs, turned.mean(0), turned.std(0))

    @property
    def mean_inner_product(self) -> float:
        """The mean of all texts at all weightings."""
        return float(self.inner.mean())

    @property
    def error(self) -> float | None:
        """Standard error of the mean inner product over prompts; None for one prompt."""
        per_prompt = self.inner.mean((0, 2))
        return float(per_prompt.std(ddof=1) / np.sqrt(len(per_prompt))) if len(per_prompt) > 1 else None

    @property
    def hypervolume(self) -> float:
        """Of the P mean scores, from :data:`REFERENCE`."""
        turned = (self.base * self.signs).reshape(-1, len(self.objectives))
        means = (self.scores * self.signs).mean((1, 2))
        return hypervolume(means, turned.mean(0) - turned.std(0), ["maximize"] * len(self.objectives))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the measures, and the mean scores at each weighting."""
        names, flat = self.objectives, self.base.reshape(-1, len(self.objectives))
        return {
            "mean_inner_product": self.mean_inner_product,
            "mean_inner_product_error": self.error,
            "hypervolume": self.hypervolume,
            "reference": REFERENCE,
            "base": {"mean": named(names, flat.mean(0)), "standard_deviation": named(names, flat.std(0))},
            "points": [
                {"weights": w.tolist(), "scores": named(names, one), "inner_product": float(inner)}
                for w, one, inner in zip(self.weights, self.scores.mean((1, 2)), self.inner.mean((1, 2)), strict=True)
            ],
        }

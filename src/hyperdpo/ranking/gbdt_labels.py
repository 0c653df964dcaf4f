"""Labels for LightGBM: every label as a number in [0, 1], scalarised with w, cut into grades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyperdpo.core.point import check_weights
from hyperdpo.errors import InputError
from hyperdpo.objectives import Label
from hyperdpo.ranking.examples import Examples

#: Part of the values at either end that does not decide where a label's scale begins and ends.
TAIL = 0.001


@dataclass(frozen=True)
class LabelScale:
    """One label's gains as numbers in [0, 1].

    A dense label is scaled linearly. A sparse one (target l1) without a transform of its own goes through log(1 + z /
    unit), where the unit is its median positive value. Counts have a heavy tail: on a linear scale nearly all positive
    ones would fall into grade 0. The scale ends half its length beyond the 0.1% quantiles, or at the largest value if
    that is nearer. So one huge value is clipped, and the rare top of a graded label is not.
    """

    label: Label
    low: float
    high: float
    unit: float | None = None
    """None: linear."""

    @staticmethod
    def fit(label: Label, gains: np.ndarray) -> LabelScale:
        """The scale of a label that is itself fitted.

        Args:
            gains: (N,) of the training split.
        """
        values = np.asarray(label.target_inputs(gains[~np.isnan(gains)]), dtype=np.float64)
        unit = None
        if label.target == "l1":
            values = values[values > 0]
            if not len(values):
                return LabelScale(label, 0.0, 0.0)
            if label.transform == "none":
                unit = float(np.median(values))
                values = np.log1p(values / unit)
            low, first = 0.0, 0.0
        else:
            low, first = float(values.min()), float(np.quantile(values, TAIL, method="higher"))
        last, high = float(np.quantile(values, 1 - TAIL, method="lower")), float(values.max())
        if last > first:
            low, high = max(low, first - (last - first) / 2), min(high, last + (last - first) / 2)
        return LabelScale(label, low, high, unit)

    def __call__(self, gains: np.ndarray) -> np.ndarray:
        """(N,) gains of any split -> (N,) float64 in [0, 1]: 0 where an item is not judged, and for a label that did
        not vary in training."""
        values = np.nan_to_num(self.label.target_inputs(gains), nan=self.low).astype(np.float64)
        if not self.high > self.low:
            return np.zeros(len(values))
        if self.unit is not None:
            values = np.log1p(values / self.unit)
        return (np.clip(values, self.low, self.high) - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class LabelScaling:
    """The scales of the m objectives and, where there is one, of the main label."""

    objectives: tuple[LabelScale, ...]
    main: LabelScale | None

    @staticmethod
    def fit(train: Examples, main: Label | None) -> LabelScaling:
        """Scales of the training split.

        Args:
            main: the fitted main label, whose gains the examples hold; None: it takes no part.
        """
        scale = None
        if main is not None:
            if train.main_gains is None:
                raise InputError(f"main label {main.name!r}: the training examples do not hold it")
            scale = LabelScale.fit(main, train.main_gains)
        pairs = zip(train.labels, train.gains.T, strict=True)
        return LabelScaling(tuple(LabelScale.fit(label, gains) for label, gains in pairs), scale)

    def units(self, examples: Examples) -> np.ndarray:
        """(N, m + 1) float64 in [0, 1]: the objectives, then the main label (zeros where it takes no part)."""
        columns = [scale(gains) for scale, gains in zip(self.objectives, examples.gains.T, strict=True)]
        if self.main is None:
            columns.append(np.zeros(len(examples.gains)))
        elif examples.main_gains is None:
            raise InputError(f"main label {self.main.label.name!r}: the examples do not hold it")
        else:
            columns.append(self.main(examples.main_gains))
        return np.stack(columns, axis=1)


def scalarise(units: np.ndarray, weights: np.ndarray, main_share: float) -> np.ndarray:
    """(1 - λ) Σ_j w_j u_j + λ u_main.

    Args:
        units: (N, m + 1), from :meth:`LabelScaling.units`.
        weights: (m,) w.
        main_share: λ, from 0 to 1.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        InputError: weights that are not m numbers on the simplex, a share outside [0, 1].
    """
    w = check_weights(weights, units.shape[1] - 1)
    if w.ndim != 1:
        raise InputError(f"weights: found shape {w.shape}; expected ({units.shape[1] - 1},)")
    if not 0 <= main_share <= 1:
        raise InputError(f"main_share is {main_share}; expected a number from 0 to 1")
    return units @ np.append((1 - main_share) * w, main_share)


def grades(values: np.ndarray, top: float, levels: int) -> np.ndarray:
    """Scalarised labels cut evenly into LightGBM's grades.

    Args:
        values: (N,) >= 0.
        top: the largest training value; it gets the last grade, and so does what lies above.
        levels: number of grades.

    Returns:
        (N,) int32 from 0 to levels - 1.
    """
    if not top > 0:
        return np.zeros(len(values), dtype=np.int32)
    return np.rint(np.clip(values / top, 0, 1) * (levels - 1)).astype(np.int32)

"""Labels and objectives: which column, which direction, and how values become gains and targets.

A label's values pass through two steps. ``gains`` turns "smaller is better" around, and is what the metrics
see. ``target_inputs`` applies the transform, and is what the target t(z) sees. Whatever a step needs from
the data (the point to flip at, a mean) is fitted on the training split and stored in the label itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from hyperdpo.errors import InputError
from hyperdpo.validation import Float, NonNegativeFloat, PositiveFloat, settings

#: What the label columns of runs made from arrays began with until labels stood beside the table: kept to read them.
OLD_ARRAY_PREFIX = "label:"

Direction = Literal["maximize", "minimize"]
Transform = Literal["none", "log1p", "standardize"]
Target = Literal["softmax", "l1"]


@settings()
class Label:
    """One label column z."""

    name: str
    """What tables, plots, ``--weights`` and ``--maximize`` call it."""
    column: str = ""
    """The column that holds it; in LETOR text a feature's number. Default: the name."""
    direction: Direction = "maximize"
    """``minimize`` replaces z by max(flip_at - z, 0)."""
    flip_at: Float | None = None
    """Only for ``minimize``. Default: the training split's largest value."""
    transform: Transform | None = None
    """Applied before the target: ``none``, ``log1p`` (counts), or ``standardize`` (mean 0 and standard deviation 1 over
    the training split). Default: ``standardize`` for a softmax target (raw MSLR quality scores of 1 to 254 would make
    it one-hot), ``none`` for l1."""
    target: Target | None = None
    """t(z) over a group: ``softmax`` for dense labels, ``l1`` for sparse non-negative ones. Default: l1 if more than
    half of the values are 0 and none is negative, else softmax."""
    unjudged: Float | None = None
    """A value, such as -1, that means "not judged": the item takes no part in this label's target, loss and metric.
    With it, a missing value means the same."""
    target_temperature: PositiveFloat = 1.0
    """The τ of softmax(z / τ)."""
    propensity: str | None = None
    """Only for click data of rankers: the column with the chance, from 0 to 1, that the item was looked at. A label is
    divided by it, or by 0.1 where it is smaller. The target is then l1, without transform."""
    position: str | None = None
    """Instead of ``propensity``: the column with the place, from 1 on, at which the item was shown. The chance is 1 /
    position^η."""
    position_power: NonNegativeFloat | None = None
    """The η of ``position``. Default: fitted on training rows with the same features (the same document of a query),
    shown at several positions."""
    center: Float | None = None
    """What ``standardize`` subtracts. The fit fills it in."""
    spread: Float | None = None
    """What ``standardize`` divides by. The fit fills it in."""

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a label needs a name; found an empty one")
        object.__setattr__(self, "column", self.column or self.name)
        if self.target is not None and self.transform is None:
            object.__setattr__(self, "transform", "none" if self.target == "l1" else "standardize")
        if self.target == "l1" and self.transform == "standardize":
            raise InputError(
                f"label {self.name!r}: target l1 needs non-negative values, transform standardize makes negative ones; "
                "expected transform none or log1p"
            )
        if self.click_column is not None:
            self._check_clicks()
        elif self.position_power is not None:
            raise InputError(f"label {self.name!r}: position_power needs position: COLUMN")
        if self.flip_at is not None and self.direction != "minimize":
            raise InputError(f"label {self.name!r}: flip_at is set, but the direction is {self.direction}")

    @property
    def click_column(self) -> str | None:
        """The column that says how likely an item was looked at, its propensity or position; None: there is none."""
        return self.propensity if self.position is None else self.position

    def _check_clicks(self) -> None:
        """Refuse what cannot be corrected without bias: anything that is not linear in the label."""
        column = "propensity" if self.position is None else "position"
        if self.position is not None and self.propensity is not None:
            raise InputError(f"label {self.name!r}: propensity and position are both set; expected one of them")
        if self.position is None and self.position_power is not None:
            raise InputError(f"label {self.name!r}: position_power is set beside propensity; it needs position: COLUMN")
        for name, usual in (("direction", "maximize"), ("target", "l1"), ("transform", "none")):
            if (found := getattr(self, name)) not in (None, usual):
                raise InputError(f"label {self.name!r}: {name} is {found}; a label with {column} needs {usual}")

    def fitted(self, values: np.ndarray) -> Label:
        """The label with everything that comes from data filled in.

        Args:
            values: (N,) raw values of the training split; those that are missing are left aside.
        """
        label, judged = self, values[self.judged(values)]
        if self.target is None:
            label = replace(label, target=self.fitting_target(values)[0])
        if self.direction == "minimize" and self.flip_at is None:
            label = replace(label, flip_at=float(judged.max()))
        if label.transform == "standardize" and self.center is None:
            gains = label.gains(judged).astype(np.float64)
            spread = float(gains.std())
            label = replace(label, center=float(gains.mean()), spread=spread if spread > 0 else 1.0)
        return label

    def fitting_target(self, values: np.ndarray) -> tuple[Target, str]:
        """The target that suits (N,) raw values, and why: l1 where most are 0 and none is negative, else softmax."""
        if self.target is not None:
            return self.target, "set in the configuration"
        if self.click_column is not None:
            return "l1", "click data"
        values = values[self.judged(values)]
        zeros = float((values == 0).mean()) if len(values) else 0.0
        found = f"{zeros:.0%} of the values are 0"
        if self.direction == "minimize" or self.transform == "standardize":
            return "softmax", f"{'direction' if self.direction == 'minimize' else 'transform'} needs it"
        if len(values) and values.min() < 0:
            return "softmax", "some values are negative"
        return ("l1", f"{found} and none is negative") if zeros > 0.5 else ("softmax", found)

    def judged(self, values: np.ndarray) -> np.ndarray:
        """(N,) bool: whether there is a label. (N,) raw values."""
        there = ~np.isnan(values)
        return there if self.unjudged is None else there & (values != np.float32(self.unjudged))

    def gains(self, values: np.ndarray) -> np.ndarray:
        """Larger is better: z, or max(flip_at - z, 0); NaN where there is no label. (N,) -> (N,) float32."""
        if self.unjudged is not None:
            values = np.where(self.judged(values), values, np.float32(np.nan))
        if self.direction == "maximize":
            return np.asarray(values, dtype=np.float32)
        if self.flip_at is None:
            raise InputError(f"label {self.name!r}: flip_at is not known before the label is fitted")
        return np.maximum(np.float32(self.flip_at) - values, 0).astype(np.float32)

    def target_inputs(self, gains: np.ndarray) -> np.ndarray:
        """What t(z) is applied to. (N,) -> (N,) float32, NaN where a gain is.

        Raises:
            InputError: ``log1p`` of a negative value, ``l1`` of a negative value.
        """
        if self.transform is None:
            raise InputError(f"label {self.name!r}: the target is not known before the label is fitted")
        if self.transform == "log1p" or self.target == "l1":
            lowest = float(np.fmin.reduce(gains, initial=0.0))
            if lowest < 0:
                what = "target l1" if self.target == "l1" else "transform log1p"
                row = int(np.nanargmin(gains))
                raise InputError(
                    f"label {self.name!r}: {what} needs values of at least 0; row {row + 1} of its split has {lowest:g}"
                )
        if self.transform == "log1p":
            return np.log1p(gains)
        if self.transform == "standardize":
            if self.center is None or self.spread is None:
                raise InputError(f"label {self.name!r}: standardize is not known before the label is fitted")
            return ((gains - np.float32(self.center)) / np.float32(self.spread)).astype(np.float32)
        return gains


#: What tables, charts and ``--require`` call the main label, whatever its own name is.
MAIN = "main"


@settings()
class Objective(Label):
    """An auxiliary label that the model is fine-tuned for, with its temperature β_j.

    Raises:
        InputError: the name ``main``, which stands for the main label; a temperature that is not a number above 0.
    """

    beta: PositiveFloat = 1.0
    """β, the temperature: a larger one keeps the ranker nearer to the base."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name == MAIN:
            raise InputError(
                f"objective {MAIN!r}: this name stands for the main label in tables and charts; "
                f"expected another name, in a configuration such as name: other, column: {self.column}"
            )

"""Labels and objectives: which column, which direction, and how values become gains and targets.

A label's values pass through two steps. ``gains`` turns "smaller is better" around, and is what the metrics
see. ``target_inputs`` applies the transform, and is what the target t(z) sees. Whatever a step needs from
the data (the point to flip at, a mean) is fitted on the training split and stored in the label itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from hyperdpo.errors import InputError

#: What the label columns of runs made from arrays began with until labels stood beside the table: kept to read them.
OLD_ARRAY_PREFIX = "label:"

Direction = Literal["maximize", "minimize"]
Transform = Literal["none", "log1p", "standardize"]
Target = Literal["softmax", "l1"]

#: How pydantic reads a configuration's dataclasses: unknown settings are refused, ``column: 41`` is "41".
STRICT: Any = {"extra": "forbid", "coerce_numbers_to_str": True, "allow_inf_nan": False}


@dataclass(frozen=True, kw_only=True)
class Label:
    """One label column z.

    Attributes:
        name: what tables, plots and ``--maximize`` call it.
        column: the column that holds it; the name if left out. In LETOR text a feature's number.
        direction: ``minimize`` replaces z by max(flip_at - z, 0).
        flip_at: only for ``minimize``; the training split's largest value if left out.
        transform: applied before the target: ``none``, ``log1p`` (counts), or ``standardize`` (mean 0 and
            standard deviation 1 over the training split). Left out: ``standardize`` for a softmax
            target (raw MSLR quality scores of 1 to 254 would make it one-hot), ``none`` for l1.
        target: t(z) over a group: ``softmax`` for dense labels, ``l1`` for sparse non-negative ones. Left out:
            :meth:`fitted` chooses by the values.
        unjudged: a value, such as -1, that says "not judged": the item takes no part in this label's target, loss and
            metric. With it, a missing value says the same.
        target_temperature: the τ of softmax(z / τ).
        center, spread: what ``standardize`` subtracts and divides by; filled in by :meth:`fitted`.
    """

    __pydantic_config__ = STRICT

    name: str
    column: str = ""
    direction: Direction = "maximize"
    flip_at: float | None = None
    transform: Transform | None = None
    target: Target | None = None
    unjudged: float | None = None
    target_temperature: float = 1.0
    center: float | None = None
    spread: float | None = None

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
        if self.flip_at is not None and self.direction != "minimize":
            raise InputError(f"label {self.name!r}: flip_at is set, but the direction is {self.direction}")
        if not (np.isfinite(self.target_temperature) and self.target_temperature > 0):
            raise InputError(
                f"label {self.name!r}: target_temperature is {self.target_temperature}; expected a number above 0"
            )

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


@dataclass(frozen=True, kw_only=True)
class Objective(Label):
    """An auxiliary label that the model is fine-tuned for, with its temperature β_j.

    Raises:
        InputError: the name ``main``, which stands for the main label; a temperature that is not a number above 0.
    """

    __pydantic_config__ = STRICT

    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name == MAIN:
            raise InputError(
                f"objective {MAIN!r}: this name stands for the main label in tables and charts; "
                f"expected another name, in a configuration such as name: other, column: {self.column}"
            )
        if not (np.isfinite(self.beta) and self.beta > 0):
            raise InputError(f"objective {self.name!r}: beta is {self.beta}; expected a number above 0")

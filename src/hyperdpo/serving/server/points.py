"""A point, as requests name it: weights as a list or by name, a scale, temperatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperdpo.core.control import check_temperatures
from hyperdpo.core.preferences import check_weights
from hyperdpo.errors import InputError, shown

#: Least and largest scale and temperature: far beyond what makes a difference, and single precision bears it.
RANGE = (1e-6, 1e9)

#: How much of a wrong value a message shows.
SHOWN = 80


@dataclass(frozen=True)
class Point:
    """Where a request is answered.

    Attributes:
        weights: (m,) float64, sum 1; None where nothing is conditioned.
        scale: c > 0.
        temperatures: (m,) or None for the run's.
    """

    weights: np.ndarray | None
    scale: float = 1.0
    temperatures: np.ndarray | None = None


@dataclass(frozen=True)
class Points:
    """Reads points; what a request leaves out is taken from the server's own point, if it has one.

    Attributes:
        names: of the m objectives, in the order of the weights.
        default: the server's.
    """

    names: tuple[str, ...]
    default: Point

    def read(self, weights: Any, scale: Any = None, temperatures: Any = None, where: str = "") -> Point:
        """A point from plain values of JSON, None for those that are left out.

        Args:
            where: what messages begin with, such as ``groups[3].``.

        Raises:
            InputError: weights are missing or off the simplex, an unknown name, or a number out of its range.
        """
        try:
            w = self.default.weights if weights is None else self._weights(weights)
            betas = self.default.temperatures if temperatures is None else self._temperatures(temperatures)
        except InputError as error:
            raise InputError(where + str(error)) from None
        c = self.default.scale if scale is None else scale
        if isinstance(c, bool) or not isinstance(c, int | float) or not RANGE[0] <= c <= RANGE[1]:
            raise InputError(f"{where}scale: found {brief(c)}; expected a number from {RANGE[0]:g} to {RANGE[1]:g}")
        return Point(w, float(c), betas)

    def missing(self, where: str = "") -> InputError:
        """What to say where weights are needed."""
        return InputError(f"{where}weights: missing; expected one per objective, for {', '.join(self.names)}")

    def named(self, weights: np.ndarray) -> dict[str, float]:
        """Weights by objective."""
        return dict(zip(self.names, map(float, weights), strict=True))

    def described(self) -> dict[str, Any] | None:
        """The server's own point for JSON; None where requests have to bring weights."""
        own = self.default
        if own.weights is None:
            return None
        betas = {} if own.temperatures is None else {"temperatures": own.temperatures.tolist()}
        return {"weights": self.named(own.weights), "scale": own.scale, **betas}

    def _weights(self, value: Any) -> np.ndarray:
        if isinstance(value, Mapping):
            for name in value:
                if name not in self.names:
                    raise InputError(f"weights: no objective {brief(name)}; expected some of {', '.join(self.names)}")
            value = [value.get(name, 0.0) for name in self.names]
        return check_weights(self._numbers("weights", value), len(self.names))

    def _temperatures(self, value: Any) -> np.ndarray:
        betas = check_temperatures(self._numbers("temperatures", value), len(self.names))
        if betas.min() < RANGE[0] or betas.max() > RANGE[1]:
            raise InputError(f"temperatures: found {brief(value)}; expected from {RANGE[0]:g} to {RANGE[1]:g}")
        return betas

    def _numbers(self, what: str, value: Any) -> list[float]:
        expected = f"expected {len(self.names)} numbers, for {', '.join(self.names)}"
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(self.names):
            raise InputError(f"{what}: found {brief(value)}; {expected}")
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in value):
            raise InputError(f"{what}: found {brief(value)}; {expected}")
        try:
            return [float(number) for number in value]
        except OverflowError:
            raise InputError(f"{what}: found {brief(value)}; expected finite numbers") from None


def even_weights(objectives: int) -> list[float]:
    """Weights for an example: short numbers, all alike as far as their sum allows."""
    each = round(1 / objectives, 4)
    return [*[each] * (objectives - 1), round(1 - each * (objectives - 1), 4)]


def brief(value: Any) -> str:
    """A value of JSON in a message: short, on one line, however large or deep it is."""
    if value is None:
        return "null"
    if isinstance(value, Sequence) and not isinstance(value, str):
        plain = len(value) <= 8 and all(isinstance(one, int | float) for one in value)
        return shown(list(value)) if plain else f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "an object"
    text = shown(value[:SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."

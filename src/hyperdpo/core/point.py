"""A point (w, c, β): the weights, the scale and the temperatures at which a trained model answers. And their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hyperdpo.errors import InputError, brief, counted, shown
from hyperdpo.progress import note

if TYPE_CHECKING:
    from torch import Tensor

#: How far from 1 the sum of a user's weights may be (decimals, float32) before they are renormalised.
SUM_TOLERANCE = 1e-6
#: Least and largest scale and temperature of a request: far beyond what makes a difference, and single precision
#: bears it.
RANGE = (1e-6, 1e9)


@dataclass(frozen=True)
class Point:
    """Where a trained model answers. Points of the same numbers are equal.

    >>> point = Point((0.3, 0.7), scale=2.0)
    >>> point.describe(["clicks", "quality"])
    'clicks 0.3, quality 0.7; c = 2'

    Attributes:
        weights: the m numbers of w, on the simplex; empty where a model is not conditioned, or w is not known yet.
        scale: c > 0. Above 1 the scores are nearer to the base's, below 1 farther from them.
        temperatures: the m numbers of β, before the scale; empty for those of the training.
        main_share: λ, the main label's share, of a ranker that takes one; None for its own.
    """

    weights: tuple[float, ...] = ()
    scale: float = 1.0
    temperatures: tuple[float, ...] = ()
    main_share: float | None = None

    def to_dict(self, objectives: Sequence[str]) -> dict[str, Any]:
        """For JSON, weights and temperatures by the names of the m objectives."""
        betas = {"temperatures": _named(objectives, self.temperatures)} if self.temperatures else {}
        share = {} if self.main_share is None else {"main_share": self.main_share}
        return {"weights": _named(objectives, self.weights), "scale": self.scale, **betas, **share}

    def row(self) -> np.ndarray:
        """(2 m + 1,) numbers: w, c, β; with a share λ, it is one more."""
        share = () if self.main_share is None else (self.main_share,)
        return np.array([*self.weights, self.scale, *self.temperatures, *share])

    def describe(self, objectives: Sequence[str]) -> str:
        """In words, without the temperatures."""
        named = ", ".join(f"{name} {w:g}" for name, w in _named(objectives, self.weights).items())
        share = "" if self.main_share is None else f"; main {self.main_share:g}"
        return f"{named}{share}; c = {self.scale:g}"


@dataclass(frozen=True)
class PointReader:
    """Reads points from plain values, such as those of a request in JSON.

    >>> PointReader(("clicks", "quality")).read({"quality": 1}, scale=2)
    Point(weights=(0.0, 1.0), scale=2.0, temperatures=(), main_share=None)

    Attributes:
        names: the m objectives, in the order of the weights.
        default: used for what a request leaves out.
    """

    names: tuple[str, ...]
    default: Point = Point()

    def read(
        self,
        weights: Any = None,
        scale: Any = None,
        temperatures: Any = None,
        where: str = "",
        *,
        main_share: Any = None,
    ) -> Point:
        """A point; None stands for what is left out.

        Args:
            weights: a list of m numbers, or a mapping of names to numbers (0 for objectives that it does not name).
            scale: c, a number.
            temperatures: a list of m numbers.
            where: what messages begin with, such as ``groups[3].``.
            main_share: λ, a number from 0 to below 1.

        Raises:
            InputError: weights off the simplex, an unknown name, or a number out of its range.
        """
        w, betas = self.default.weights, self.default.temperatures
        try:
            if weights is not None:
                given = named_weights(weights, self.names) if isinstance(weights, Mapping) else weights
                w = _numbers(check_weights(self._plain("weights", given), len(self.names)))
            if temperatures is not None:
                betas = _numbers(check_temperatures(self._plain("temperatures", temperatures), len(self.names)))
                if min(betas) < RANGE[0] or max(betas) > RANGE[1]:
                    expected = f"expected from {RANGE[0]:g} to {RANGE[1]:g}"
                    raise InputError(f"temperatures: found {brief(temperatures)}; {expected}")
        except InputError as error:
            raise InputError(where + str(error)) from None
        c = self.default.scale if scale is None else scale
        if isinstance(c, bool) or not isinstance(c, int | float) or not RANGE[0] <= c <= RANGE[1]:
            raise InputError(f"{where}scale: found {brief(c)}; expected a number from {RANGE[0]:g} to {RANGE[1]:g}")
        share = self.default.main_share if main_share is None else main_share
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1):
            raise InputError(f"{where}main_share: found {brief(share)}; expected a number from 0 to below 1")
        return Point(w, float(c), betas, None if share is None else float(share))

    def missing(self, where: str = "") -> InputError:
        """The error for a request that needs weights and has none."""
        return InputError(f"{where}weights: missing; expected one per objective, for {', '.join(self.names)}")

    def _plain(self, what: str, value: Any) -> list[float]:
        """m numbers, which may still be out of range."""
        expected = f"expected {len(self.names)} numbers, for {', '.join(self.names)}"
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(self.names):
            raise InputError(f"{what}: found {brief(value)}; {expected}")
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in value):
            raise InputError(f"{what}: found {brief(value)}; {expected}")
        try:
            return [float(number) for number in value]
        except OverflowError:
            raise InputError(f"{what}: found {brief(value)}; expected finite numbers") from None


def check_weights(weights: ArrayLike, num_objectives: int) -> np.ndarray:
    """The weights as points of the simplex.

    >>> check_weights([0.25, 0.75], 2)
    array([0.25, 0.75])

    Args:
        weights: (..., m) numbers >= 0 that sum to 1 within 1e-6.
        num_objectives: m.

    Returns:
        (..., m) float64, a copy; rows renormalised to sum to 1 up to rounding.

    Raises:
        InputError: not numbers, not m of them, not finite, negative, or a wrong sum.
    """
    try:
        array = np.array(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"weights {shown(weights)}, expected {num_objectives} numbers per row") from None
    if array.ndim == 0 or array.shape[-1] != num_objectives:
        found = "a single number" if array.ndim == 0 else f"{array.shape[-1]} values"
        raise InputError(f"weights: found {found}, expected {num_objectives}, one per objective")
    sums = array.sum(-1)
    bad = ~(np.isfinite(array).all(-1) & (array >= 0).all(-1) & (np.abs(sums - 1) <= SUM_TOLERANCE))
    if bad.any():
        row = array[bad][0] if array.ndim > 1 else array
        values = ", ".join(f"{value:g}" for value in row)
        raise InputError(f"weights {values} (sum {row.sum():g}); expected finite numbers >= 0 that sum to 1")
    return array / sums[..., None]


def check_scales(scale: ArrayLike | Tensor, rows: int) -> np.ndarray:
    """One scale for all rows (the groups of a ranker, the prompts of a language model), or one for each.

    Args:
        scale: c, a finite number > 0, or (rows,) of them.
        rows: the number of groups or prompts.

    Returns:
        () or (rows,) float64.

    Raises:
        InputError: not numbers, another shape, not finite, or not > 0.
    """
    array = _per_row("scale", scale, rows)
    wrong = array[~(np.isfinite(array) & (array > 0))]
    if wrong.size:
        raise InputError(f"scale {wrong.flat[0]:g}, expected finite numbers > 0")
    return array


def check_shares(main_share: ArrayLike | Tensor, rows: int) -> np.ndarray:
    """One share λ of the main label for all groups, or one for each.

    Args:
        main_share: λ, a number from 0 to below 1, or (rows,) of them.
        rows: the number of groups.

    Returns:
        () or (rows,) float64.

    Raises:
        InputError: not numbers, another shape, or out of range.
    """
    array = _per_row("main share", main_share, rows)
    wrong = array[~((array >= 0) & (array < 1))]
    if wrong.size:
        raise InputError(f"main share {wrong.flat[0]:g}, expected numbers from 0 to below 1")
    return array


def _per_row(what: str, values: ArrayLike | Tensor, rows: int) -> np.ndarray:
    """() or (rows,) float64."""
    try:
        array = np.asarray(_on_cpu(values), dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what}: found {shown(values)}; expected one number or ({rows},) numbers") from None
    if array.shape not in ((), (rows,)):
        raise InputError(f"{what}: found shape {array.shape}; expected one number or ({rows},) numbers")
    return array


def check_temperatures(values: ArrayLike | Tensor, num_objectives: int) -> np.ndarray:
    """One temperature per objective, checked.

    >>> check_temperatures([1, 0.5], 2)
    array([1. , 0.5])

    Args:
        values: m finite numbers > 0.
        num_objectives: m.

    Returns:
        (m,) float64, a copy.

    Raises:
        InputError: not numbers, not m of them, not finite, or not > 0.
    """
    given = _on_cpu(values)
    try:
        array = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"temperatures {shown(given)}, expected {num_objectives} numbers") from None
    if array.shape != (num_objectives,):
        shapes = {0: "a single number", 1: f"{array.size} value{'s' * (array.size != 1)}"}
        found = shapes.get(array.ndim, f"an array of shape {array.shape}")
        raise InputError(f"temperatures: found {found}, expected {num_objectives}, one per objective")
    if not (np.isfinite(array) & (array > 0)).all():
        listed = ", ".join(f"{value:g}" for value in array)
        raise InputError(f"temperatures {listed}, expected finite numbers > 0")
    return array


def named_weights(weights: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """The weights of a mapping, in the order of the names; 0 for names that it does not have. Values are not checked.

    Raises:
        InputError: an unknown name.
    """
    for name in weights:
        if name not in names:
            raise InputError(f"weights: no objective {brief(name)}; expected some of {', '.join(names)}")
    return [weights.get(name, 0.0) for name in names]


def parse_weights(text: str, names: Sequence[str], chosen: Sequence[int]) -> np.ndarray:
    """(m,) weights from the text of ``--weights``: ``.3,.7`` or ``clicks=.3,quality=.7``.

    Args:
        names: the run's m objectives.
        chosen: the positions of those that plain numbers stand for, in order. Where there are fewer numbers, the rest
            is 0, with a note on stderr.

    Raises:
        InputError: not numbers, an unknown or repeated name, or not a point of the simplex.
    """
    pieces = [piece.strip() for piece in text.split(",")]
    labels = [names[i] for i in chosen]
    if len(pieces) > len(labels):
        raise InputError(
            f"--weights: found {counted(len(pieces), 'weight')}; expected {len(labels)}, for {', '.join(labels)}"
        )
    named = ["=" in piece for piece in pieces]
    if any(named) and not all(named):
        raise InputError(f"--weights: found {text!r}; expected either plain numbers or name=number for each")
    given: dict[str, float] = {}
    for label, piece in zip(labels, pieces, strict=False):
        name, equals, number = piece.rpartition("=")
        name = name.strip() if equals else label
        if name in given:
            raise InputError(f"--weights: {name} is named twice; name each objective once")
        try:
            given[name] = float(number)
        except ValueError:
            raise InputError(f"--weights: {piece!r} is not a number; expected such as .3,.7") from None
    try:
        weights = named_weights(given, labels)
    except InputError as error:
        raise InputError(f"--{error}") from None
    w = np.zeros(len(names))
    w[list(chosen)] = weights
    w = check_weights(w, len(names))
    if not any(named) and len(pieces) < len(labels):
        said = ", ".join(f"{name} {share:g}" for name, share in zip(labels, w[list(chosen)], strict=True))
        note(f"{counted(len(pieces), 'weight')} for {counted(len(labels), 'objective')}, the rest count 0: {said}")
    return w


def even_weights(num_objectives: int) -> list[float]:
    """Weights for an example: short numbers, as equal as their sum of 1 allows."""
    each = round(1 / num_objectives, 4)
    return [*[each] * (num_objectives - 1), round(1 - each * (num_objectives - 1), 4)]


def _named(objectives: Sequence[str], numbers: Sequence[float]) -> dict[str, float]:
    return dict(zip(objectives, numbers, strict=True))


def _numbers(array: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, array))


def _on_cpu(values: Any) -> Any:
    """The numbers of a tensor as an array; anything else as it is."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values

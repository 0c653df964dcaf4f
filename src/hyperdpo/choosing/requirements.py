"""Requirements that a point has to meet, such as ``main>=0.45``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hyperdpo.errors import InputError

Sense = Literal[">=", "<="]


@dataclass(frozen=True)
class Requirement:
    """A bound on the mean of one metric."""

    name: str
    sense: Sense
    threshold: float

    @property
    def sign(self) -> float:
        """1 where more is safer, -1 where less is."""
        return 1.0 if self.sense == ">=" else -1.0

    def __str__(self) -> str:
        return f"{self.name}{self.sense}{self.threshold:g}"


def parse_requirement(text: str) -> Requirement:
    """``NAME>=X`` or ``NAME<=X``; the last of these signs counts, so a name may hold one.

    Raises:
        InputError: no such sign, no name, or not a finite number.
    """
    at = max(text.rfind(">="), text.rfind("<="))
    name, number = (text[:at].strip(), text[at + 2 :].strip()) if at >= 0 else ("", "")
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if not name or not math.isfinite(threshold):
        raise InputError(f"requirement: found {text!r}; expected NAME>=NUMBER or NAME<=NUMBER, such as main>=0.45")
    return Requirement(name, ">=" if text[at] == ">" else "<=", threshold)


def check_metrics(
    requirements: Sequence[Requirement],
    goal: str,
    *,
    maximize: bool,
    names: Sequence[str],
    larger_is_better: Sequence[bool],
) -> None:
    """Refuse unknown metrics, and a goal in the wrong direction.

    Args:
        goal: the metric to be made as good as possible.
        names: the K metrics that can be measured.
        larger_is_better: (K,).

    Raises:
        InputError: an unknown metric, or a goal in the direction in which it gets worse.
    """
    for name in (*(r.name for r in requirements), goal):
        if name not in names:
            raise InputError(f"no metric {name!r}; expected one of {', '.join(names)}")
    larger = larger_is_better[list(names).index(goal)]
    if maximize != larger:
        better, option = ("larger", "maximize") if larger else ("smaller", "minimize")
        raise InputError(f"{goal}: {better} values are better; use {option} for it")

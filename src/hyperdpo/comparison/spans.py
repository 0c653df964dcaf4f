"""One method's control over another's: a ratio of spans, where the other's are large enough to divide by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class SpanRatio(NamedTuple):
    """A ratio, or the reason why there is none."""

    value: float | None
    reason: str | None = None

    def __str__(self) -> str:
        return "-" if self.value is None else f"{self.value:.2f}"


def span_ratios(result: Mapping[str, Any], of: str, to: str, least: float = 0.0) -> dict[str, SpanRatio]:
    """One entry's control span over another's, averaged over objectives, then over the repeats that both have.

    There is a ratio only where every span of the other entry is larger than its standard error, for each objective in
    each repeat. The error is over groups, and in texts over prompts. A ratio to a span that may as well be 0 says
    nothing.

    Args:
        result: the content of ``compare.json``.
        of, to: labels of entries.
        least: no ratio, either, where a span of the other entry in cross-entropy is smaller than this, in nats: where
            models for one w differ so little, nothing can be controlled.

    Returns:
        ``cross_entropy``, and ``generated`` where texts were sampled.
    """
    others = {seed["repeat"]: seed for seed in result["methods"][to]["seeds"]}
    seeds = result["methods"][of]["seeds"]
    pairs = [(own, others[own["repeat"]]) for own in seeds if own["repeat"] in others]
    found = {"cross_entropy": _ratio([(own, other, other["repeat"]) for own, other in pairs], to, least)}
    if all("generated" in own for own, _ in pairs):
        texts = [(own["generated"], other["generated"], other["repeat"]) for own, other in pairs]
        found["generated"] = _ratio(texts, to)
    return found


def _ratio(measured: list[tuple[Mapping[str, Any], Mapping[str, Any], str]], to: str, least: float = 0.0) -> SpanRatio:
    """From pairs of what was measured, each with the name of its repeat."""
    values = []
    for own, other, repeat in measured:
        for name, span in other["control_span"].items():
            error = other["control_span_error"].get(name)
            if error is None:
                return SpanRatio(None, f"{to}'s span of {name} in {repeat} has no standard error, being of one group")
            if not span > error:
                found = f"{to}'s own span of {name} in {repeat} is {span:.3g}, its standard error {error:.3g}"
                return SpanRatio(None, f"{found}: not clearly above 0")
            if span < least:
                found = f"{to}'s own span of {name} in {repeat} is {span:.3g} nats, below {least:g}"
                return SpanRatio(None, f"{found}: there is nothing to control")
            values.append(own["control_span"][name] / span)
    return SpanRatio(float(np.mean(values)))

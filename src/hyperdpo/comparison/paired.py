"""One method's figures over another's, with how sure the ratio is: a bootstrap over prompts, the same for both.

A resample draws the held-out prompts with replacement. Every method, weighting and seed is measured on the same draws:
what makes a prompt easy for both methods leaves their ratio. The interval is that of percentiles. It tells how much the
ratio depends on which prompts are at hand, not how much it depends on the training's seed.

Shapes: P weightings, G prompts, m objectives, B resamples.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperdpo.alignment.evaluation import control_spans
from hyperdpo.choosing.bootstrap import Resamples
from hyperdpo.comparison.entries import DEFAULT_ADAPTER
from hyperdpo.comparison.spans import span_ratios
from hyperdpo.core.inner_product import mean_inner_product
from hyperdpo.core.pareto import hypervolume

#: Draws of the prompts; the part of the resampled ratios that an interval holds.
RESAMPLES, CONFIDENCE = 1000, 0.95
#: What is divided by is clearly above 0 if the lower end of its own interval is more than this part of it.
LEAST = 0.01
#: Keys of a pair in ``compare.json``'s ``ratios``, with their headings.
RATIOS = {
    "hypervolume": "hypervolume",
    "control_span": "control span",
    "texts_hypervolume": "texts: hypervolume",
    "texts_control_span": "texts: control span",
    "inner_product": "texts: mean inner product",
}


@dataclass(frozen=True)
class Measured:
    """A metric of one method on one seed, prompt by prompt; more is better.

    Attributes:
        weights: (P, m).
        values: (P, G, m).
        known: (G, m) bool, the prompts that say something about an objective.
        reference: (m,), from which hypervolumes are measured.
        base: (2, m), mean and standard deviation of the base's own texts; None for what is not a score of texts.
    """

    weights: np.ndarray
    values: np.ndarray
    known: np.ndarray
    reference: np.ndarray
    base: np.ndarray | None = None


@dataclass(frozen=True)
class Quantities:
    """What one method reaches on one seed: on the prompts themselves (the first entry), then on each resample.

    Attributes:
        hypervolume: (1 + B,).
        spans: (1 + B, m).
        inner_product: (1 + B,), or None.
    """

    hypervolume: np.ndarray
    spans: np.ndarray
    inner_product: np.ndarray | None


@dataclass(frozen=True)
class Ratio:
    """A ratio with the ends of its interval, or the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.3f}" + ("" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "reason": self.reason}


def quantities(measured: Measured, *, resamples: int = RESAMPLES, seed: int = 0) -> Quantities:
    """Hypervolume, control spans and mean inner product, on the prompts and on draws of them.

    Args:
        seed: of the draws: measurements on the same prompts have the same.
    """
    m = measured.values.shape[-1]
    draws = Resamples(measured.known.T, seed, resamples)
    sums = np.where(measured.known, measured.values, 0.0)
    whole = draws.means(sums.transpose(0, 2, 1))  # (P, m)
    means = np.stack([draws.resampled(sums[:, :, j], j) for j in range(m)], -1)  # (P, B, m)
    means = np.concatenate([whole[:, None], np.where(np.isfinite(means), means, whole[:, None])], 1)
    directions: list[Any] = ["maximize"] * m
    volumes = np.array([hypervolume(means[:, b], measured.reference, directions) for b in range(means.shape[1])])
    product = None
    if measured.base is not None and (measured.base[1] > 0).all():
        product = mean_inner_product(measured.weights, means.transpose(1, 0, 2), *measured.base)
    return Quantities(volumes, control_spans(measured.weights, means), product)


def ratio_of(own: Sequence[np.ndarray], other: Sequence[np.ndarray], named: str) -> Ratio:
    """The mean over seeds, divided by another method's, with its interval.

    Args:
        own, other: for each seed, (1 + B,) values.
        named: what is divided by, for the reason.
    """
    above, below = np.mean(own, 0), np.mean(other, 0)
    if not np.quantile(below[1:], (1 - CONFIDENCE) / 2) > LEAST * below[0] > 0:
        return Ratio(None, reason=f"{named} is {below[0]:.3g}, not clearly above 0")
    return _interval(above / below)


def span_ratio_of(own: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> Ratio:
    """The mean over objectives and seeds of one method's span over another's, with its interval.

    Args:
        own, other: for each seed, (1 + B, m) spans; whether they can be divided by is the caller's to know, see
            :func:`~hyperdpo.comparison.spans.span_ratios`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.stack(own) / np.stack(other)
    return _interval(ratios.mean((0, 2)))


def _interval(values: np.ndarray) -> Ratio:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values[1:], [tail, 1 - tail])
    return Ratio(float(values[0]), float(low), float(high))


# --- of a comparison


def references(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The entries that others are compared with: the models for one w, their soups, and HyperDPO by default.

    Args:
        methods: of ``compare.json``.
    """
    first: dict[str, str] = {}
    for label, one in methods.items():
        own = {name: value for name, value in one["settings"].items() if name != "soup"}
        if one["method"] == "hyperdpo" and own == DEFAULT_ADAPTER:
            own = {}
        if one["method"] == "dpo-soup" or (one["method"] in ("dpo-ls", "hyperdpo") and not own):
            first.setdefault(f"{one['method']} {own}", label)
    return list(first.values())


def compared_ratios(
    result: Mapping[str, Any],
    prompts: Mapping[str, Mapping[str, Mapping[str, Measured]]],
    held_out: Mapping[str, str],
    least_span: float = 0.0,
) -> list[dict[str, Any]]:
    """Entries over each of :func:`references`, on the repeats that both have: all over the first one, the models that
    take w as an input over the others, too.

    Args:
        result: the content of ``compare.json`` so far.
        prompts: by repeat, by entry: ``cross_entropy``, and ``generated`` where texts were sampled.
        held_out: by repeat, what tells its held-out prompts from others. Repeats on the same prompts share their draws.
        least_span: see :func:`~hyperdpo.comparison.spans.span_ratios`.

    Returns:
        For each pair ``of``, ``to``, ``repeats`` (their number), and ``value``, ``low``, ``high``, ``reason`` of
        ``hypervolume``, ``control_span`` and, of texts, ``texts_hypervolume``, ``texts_control_span`` and
        ``inner_product``.
    """
    sets = list(dict.fromkeys(held_out.values()))

    @functools.cache
    def reached(repeat: str, label: str, kind: str) -> Quantities:
        return quantities(prompts[repeat][label][kind], seed=sets.index(held_out[repeat]))

    found = []
    for number, to in enumerate(references(result["methods"])):
        for of, one in result["methods"].items():
            both = [repeat for repeat, known in prompts.items() if of in known and to in known]
            if of == to or not both or (number and not one["one_shot"]):
                continue
            pair: dict[str, Any] = {"of": of, "to": to, "repeats": len(both)}
            spans = span_ratios(result, of, to, least_span)
            for kind in prompts[both[0]][of]:
                text = "texts_" if kind == "generated" else ""
                own, other = ([reached(repeat, label, kind) for repeat in both] for label in (of, to))
                above, below = ([one.hypervolume for one in side] for side in (own, other))
                pair[f"{text}hypervolume"] = ratio_of(above, below, f"{to}'s hypervolume").to_dict()
                reason = spans[kind].reason
                ratio = span_ratio_of([o.spans for o in own], [o.spans for o in other]) if reason is None else None
                pair[f"{text}control_span"] = (ratio or Ratio(None, reason=reason)).to_dict()
                above, below = (
                    [one.inner_product for one in side if one.inner_product is not None] for side in (own, other)
                )
                if len(above) == len(below) == len(both):
                    pair["inner_product"] = ratio_of(above, below, f"{to}'s mean inner product").to_dict()
            found.append(pair)
    return found


def ratio_of_pair(comparison: Mapping[str, Any], of: str, to: str) -> Mapping[str, Any]:
    """What ``ratios`` of ``compare.json`` holds of two entries; empty where there is nothing."""
    found: Sequence[Mapping[str, Any]] = comparison.get("ratios", ())
    return next((one for one in found if (one["of"], one["to"]) == (of, to)), {})

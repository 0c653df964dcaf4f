"""Ratios of two methods and their intervals, on cases whose answers are known without a bootstrap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hyperdpo.comparison.entries import DEFAULT_ADAPTER
from hyperdpo.comparison.paired import (
    Measured,
    Ratio,
    compared_ratios,
    quantities,
    ratio_of,
    references,
    span_ratio_of,
)
from hyperdpo.core.pareto import hypervolume

WEIGHTS = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])


def measured(values: np.ndarray, known: np.ndarray | None = None, base: np.ndarray | None = None) -> Measured:
    known = np.ones(values.shape[1:], dtype=bool) if known is None else known
    return Measured(WEIGHTS, values, known, np.array([-5.0, -5.0]), base)


def normal(prompts: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, prompts, 2))


def test_what_stands_first_is_the_quantity_itself() -> None:
    values, known = normal(), np.random.default_rng(1).random((400, 2)) > 0.3
    found = quantities(measured(values, known, np.array([[0.5, 0.1], [2.0, 3.0]])), resamples=20)
    means = np.stack([values[:, known[:, j], j].mean(1) for j in (0, 1)], 1)
    assert found.hypervolume[0] == pytest.approx(hypervolume(means, [-5, -5], ["maximize"] * 2))
    assert found.spans[0] == pytest.approx([means[0, 0] - means[2, 0], means[2, 1] - means[0, 1]])
    assert found.inner_product is not None
    rewards = (means - [0.5, 0.1]) / [2.0, 3.0]
    assert found.inner_product[0] == pytest.approx((WEIGHTS * rewards).sum(1).mean())
    assert found.hypervolume.shape == found.inner_product.shape == (21,)


def test_resamples_spread_as_the_mean_does() -> None:
    """A span is a mean over prompts: its standard error is known."""
    values = normal()
    found = quantities(measured(values), resamples=4000)
    spans = values[0, :, 0] - values[2, :, 0]
    assert found.spans[1:, 0].std() == pytest.approx(spans.std() / math.sqrt(400), rel=0.05)
    assert found.spans[1:, 0].mean() == pytest.approx(spans.mean(), abs=0.01)


def test_an_interval_is_that_of_the_ratio_of_two_means() -> None:
    """The delta method: var(a / b) = (var a + r^2 var b - 2 r cov(a, b)) / b^2."""
    rng = np.random.default_rng(2)
    a = rng.normal(3.0, 1.0, 1000)
    b = 2.0 + 0.5 * (a - 3.0) + rng.normal(0, 0.4, 1000)
    draws = np.random.default_rng(3).integers(1000, size=(4000, 1000))
    own, other = (np.concatenate([[x.mean()], x[draws].mean(1)]) for x in (a, b))
    ratio = ratio_of([own], [other], "b")
    r, covariance = a.mean() / b.mean(), np.cov(a, b)
    error = math.sqrt((covariance[0, 0] + r**2 * covariance[1, 1] - 2 * r * covariance[0, 1]) / 1000) / b.mean()
    assert ratio.value == pytest.approx(r)
    assert ratio.low == pytest.approx(r - 1.96 * error, abs=0.1 * error)
    assert ratio.high == pytest.approx(r + 1.96 * error, abs=0.1 * error)


def test_methods_that_differ_by_a_factor_have_no_uncertainty_because_the_draws_are_the_same() -> None:
    values = normal() + np.array([[[4.0, 0.0]], [[2.0, 2.0]], [[0.0, 4.0]]])
    one, two = quantities(measured(values)), quantities(measured(values * 1.5))
    ratio = span_ratio_of([two.spans], [one.spans])
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.5, 1.5, 1.5), rel=1e-5)
    apart = quantities(measured(values * 1.5), seed=1)
    other = span_ratio_of([apart.spans], [one.spans])
    assert other.low is not None
    assert other.low < 1.49


def test_nothing_is_divided_by_what_may_be_0() -> None:
    own, other = np.full(101, 1.0), np.concatenate([[0.1], np.linspace(-0.1, 0.3, 100)])
    ratio = ratio_of([own], [other], "DPO-LS's hypervolume")
    assert ratio.value is None
    assert ratio.reason == "DPO-LS's hypervolume is 0.1, not clearly above 0"
    assert str(ratio) == "-"
    for nothing in (0.0, -1e-17):  # resamples of rounding errors may all be above it
        barely = np.concatenate([[nothing], np.full(100, 1e-16)])
        assert ratio_of([np.zeros(101)], [barely], "the mean inner product").value is None
    assert str(Ratio(0.9, 0.85, 0.961)) == "0.900 [0.850, 0.961]"


def comparison(labels: dict[str, tuple[str, int]], span: float = 1.0) -> dict[str, Any]:
    """What a comparison holds of entries: their method, and on how many repeats each is."""
    return {
        "methods": {
            label: {
                "method": method.partition(":")[0],
                "settings": {"conditioning": {"x": 1}} if ":" in method else {},
                "one_shot": method.startswith("hyperdpo"),
                "seeds": [
                    {
                        "repeat": f"seed-{number}",
                        "control_span": {"a": span, "b": span},
                        "control_span_error": {"a": 0.001, "b": 0.001},
                    }
                    for number in range(repeats)
                ],
            }
            for label, (method, repeats) in labels.items()
        }
    }


def test_pairs_are_compared_on_the_repeats_that_both_have() -> None:
    labels = {"LS": ("dpo-ls", 2), "soup": ("dpo-soup", 2), "own": ("hyperdpo", 2), "lora": ("hyperdpo:lora", 1)}
    values = {label: normal(50, seed) + 3 for seed, label in enumerate(labels)}
    prompts = {
        f"seed-{number}": {
            label: {"cross_entropy": measured(values[label] * (1 + number))}
            for label, (_, repeats) in labels.items()
            if number < repeats
        }
        for number in range(2)
    }
    result = comparison(labels)
    assert references(result["methods"]) == ["LS", "soup", "own"]
    found = {(one["of"], one["to"]): one for one in compared_ratios(result, prompts, {"seed-0": "x", "seed-1": "x"})}
    assert set(found) == {
        ("soup", "LS"), ("own", "LS"), ("lora", "LS"), ("own", "soup"), ("lora", "soup"), ("lora", "own"),
    }  # fmt: skip
    assert {pair: one["repeats"] for pair, one in found.items()} == {pair: 1 if "lora" in pair else 2 for pair in found}
    result["methods"]["own"]["settings"] = DEFAULT_ADAPTER  # named, since the comparison's own settings have another
    assert references(result["methods"]) == ["LS", "soup", "own"]

    def volume(label: str, number: int) -> float:
        return hypervolume(values[label].mean(1) * (1 + number), [-5, -5], ["maximize"] * 2)

    both = sum(volume("own", n) for n in (0, 1)) / sum(volume("LS", n) for n in (0, 1))
    assert found["own", "LS"]["hypervolume"]["value"] == pytest.approx(both)
    assert found["lora", "LS"]["hypervolume"]["value"] == pytest.approx(volume("lora", 0) / volume("LS", 0))
    assert "texts_hypervolume" not in found["own", "LS"]


def test_spans_too_small_to_control_anything_are_no_divisor() -> None:
    labels = {"LS": ("dpo-ls", 1), "own": ("hyperdpo", 1)}
    prompts = {"seed-0": {label: {"cross_entropy": measured(normal(50) + 3)} for label in labels}}
    (pair,) = compared_ratios(comparison(labels, span=0.04), prompts, {"seed-0": "x"}, 0.05)
    assert pair["control_span"]["value"] is None
    assert "0.04 nats, below 0.05: there is nothing to control" in pair["control_span"]["reason"]
    assert pair["hypervolume"]["value"] == pytest.approx(1)
    (pair,) = compared_ratios(comparison(labels, span=0.06), prompts, {"seed-0": "x"}, 0.05)
    assert pair["control_span"]["value"] == pytest.approx(1)

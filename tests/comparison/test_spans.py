"""Control spans, how sure they are, and one method's over another's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hyperdpo.alignment.evaluation import control_spans, span_errors
from hyperdpo.comparison.spans import span_ratios


def compared_spans(own: list[tuple[float, float]], other: list[tuple[float, float]], error: float | None) -> Any:
    """What a comparison holds of two methods' spans, of two objectives in some repeats."""

    def seeds(spans: list[tuple[float, float]]) -> list[dict[str, Any]]:
        return [
            {
                "repeat": f"seed-{number}",
                "control_span": {"low": low, "high": high},
                "control_span_error": {"low": error, "high": error},
            }
            for number, (low, high) in enumerate(spans)
        ]

    return {"methods": {"hyperdpo": {"seeds": seeds(own)}, "dpo-ls": {"seeds": seeds(other)}}}


def test_a_ratio_of_spans_is_the_mean_over_objectives_and_repeats():
    result = compared_spans([(0.2, 0.1), (0.3, -0.1)], [(0.1, 0.2), (0.3, 0.4)], 0.05)
    ratio = span_ratios(result, "hyperdpo", "dpo-ls")["cross_entropy"]
    assert ratio.value == pytest.approx(np.mean([2, 0.5, 1, -0.25]))
    assert ratio.reason is None
    assert str(ratio) == "0.81"


@pytest.mark.parametrize("error", [0.01, None])
def test_a_ratio_to_a_span_that_may_be_0_is_none_with_the_reason(error):
    result = compared_spans([(-0.034, 0.107)], [(-0.002, 0.009)], error)
    ratio = span_ratios(result, "hyperdpo", "dpo-ls")["cross_entropy"]
    assert (ratio.value, str(ratio)) == (None, "-")
    words = (
        ["dpo-ls", "low", "seed-0", "one group"] if error is None else ["dpo-ls", "low", "-0.002", "0.01", "above 0"]
    )
    assert all(word in ratio.reason for word in words), ratio.reason
    assert (
        span_ratios(compared_spans([(1, 1)], [(0.1, 0.009)], 0.01), "hyperdpo", "dpo-ls")["cross_entropy"].value is None
    )


def test_the_standard_error_of_a_span_is_that_of_the_mean_over_groups_with_signal():
    rng = np.random.default_rng(0)
    weights, metrics = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), rng.normal(size=(3, 9, 2))
    signal = np.ones((9, 2), dtype=bool)
    signal[:4, 1] = False
    own = metrics[2, 4:, 1] - metrics[0, 4:, 1]
    np.testing.assert_allclose(control_spans(weights, metrics)[4:, 1], own)
    np.testing.assert_allclose(span_errors(weights, metrics, signal)[1], np.std(own, ddof=1) / np.sqrt(5))
    signal[:8, 0] = False
    assert np.isnan(span_errors(weights, metrics, signal)[0])

"""Measures of sampled texts along w against numbers written out."""

from __future__ import annotations

import numpy as np
import pytest

from hyperdpo.alignment.text_fronts import TextFront, signs_of
from hyperdpo.core.inner_product import inner_products
from hyperdpo.errors import InputError
from hyperdpo.objectives import Objective


def test_the_inner_product_weights_standardised_scores():
    weights = np.array([[1.0, 0.0], [0.25, 0.75]])
    scores = np.array([[[3.0, 0.0], [5.0, 2.0]], [[1.0, 10.0], [2.0, 6.0]]])  # (P, T, m)
    found = inner_products(weights, scores, np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    np.testing.assert_allclose(found[0], [(3 - 1) / 2, (5 - 1) / 2])
    np.testing.assert_allclose(found[1], [0.25 * 0 + 0.75 * 2, 0.25 * 0.5 + 0.75 * 1])
    # A score that the base never varies is left in its own unit.
    assert inner_products(weights[:1], scores[:1, :1], np.zeros(2), np.zeros(2)).item() == 3


def test_the_measures_of_a_front_are_those_of_its_texts():
    rng = np.random.default_rng(0)
    weights, base = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), rng.normal(size=(4, 2, 2))
    scores = rng.normal(size=(3, 4, 2, 2)) + 1
    signs = signs_of([Objective(name="a"), Objective(name="b", direction="minimize")])
    front = TextFront(("a", "b"), signs, weights, scores, base)
    flat = base.reshape(-1, 2)
    mean, spread = flat.mean(0), flat.std(0)
    expected = np.zeros((3, 4, 2))
    for p, w in enumerate(weights):
        better = (scores[p] - mean) / spread * [1, -1]  # less of b is better
        expected[p] = better @ w
    np.testing.assert_allclose(front.inner, expected)
    assert front.mean_inner_product == pytest.approx(expected.mean())
    per_prompt = expected.mean(axis=(0, 2))
    assert front.error == pytest.approx(np.std(per_prompt, ddof=1) / 2)
    # Two objectives: the volume is a sum of rectangles, from the base's mean minus one standard deviation.
    points = scores.mean(axis=(1, 2)) * [1, -1] - (mean * [1, -1] - spread)
    volume, reached = 0.0, 0.0
    for x, y in sorted(points.tolist(), reverse=True):
        volume, reached = volume + max(x, 0) * max(y - reached, 0), max(reached, y)
    assert front.hypervolume == pytest.approx(volume)
    told = front.to_dict()
    assert told["points"][1]["scores"] == pytest.approx(dict(zip("ab", scores[1].mean((0, 1)), strict=True)))
    assert told["points"][1]["inner_product"] == pytest.approx(expected[1].mean())
    assert told["base"]["standard_deviation"] == pytest.approx(dict(zip("ab", spread, strict=True)))
    # The base's own texts are worth 0 at every weighting.
    own = TextFront(("a", "b"), signs, weights, np.repeat(base[None], 3, 0), base)
    np.testing.assert_allclose(own.inner.mean(axis=(1, 2)), 0, atol=1e-12)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(InputError, match="shape"):
        TextFront(("a", "b"), np.ones(2), np.eye(2), np.zeros((2, 3, 1, 2)), np.zeros((4, 1, 2)))

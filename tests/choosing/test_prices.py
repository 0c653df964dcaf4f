"""What requirements cost: against fronts of known slope, written-out values and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fronts import SCALES, chosen, parabola, sphere

from hyperdpo.choosing.choice import Sample, choose_point
from hyperdpo.choosing.requirements import parse_requirement
from hyperdpo.choosing.search import Space
from hyperdpo.choosing.tables import print_choice


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
def test_on_a_parabola_the_price_is_the_slope_upwards_and_the_gain_the_slope_downwards(t):
    """(1 - t^2) - (1 - (t + h)^2) = h (2 t + h), and as much with -h; h is 5% of b's range, which is 1."""
    (verdict,) = chosen(parabola(), f"b>={t}").requirements
    assert verdict.tightening.step == verdict.loosening.step == 0.05
    assert verdict.price == pytest.approx(2 * t + 0.05, abs=0.01)
    assert verdict.gain == pytest.approx(2 * t - 0.05, abs=0.01)
    assert verdict.tightening.interval == pytest.approx((verdict.price, verdict.price), rel=1e-3)  # groups are alike


def test_where_less_can_be_met_the_step_is_what_can_be_met():
    (verdict,) = chosen(parabola(), "b>=0.98").requirements
    assert verdict.tightening.step == pytest.approx(0.02)
    assert verdict.price == pytest.approx((1 - 0.98**2) / 0.02, abs=0.01)
    assert verdict.loosening.step == 0.05


def test_what_cannot_be_tightened_has_no_price_but_a_gain(capsys):
    found = chosen(parabola(), "b>=1")
    (verdict,) = found.requirements
    assert (verdict.price, verdict.tightening) == (None, None)
    assert verdict.gain == pytest.approx((1 - 0.95**2) / 0.05, abs=0.01)
    (written,) = found.to_dict()["requirements"]
    assert (written["price"], written["price_interval"], written["price_step"]) == (None, None, None)
    assert written["gain"] == verdict.gain
    print_choice(found)
    assert "b>=1: cannot be tightened; 0.05 less gains 0.09750 a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("threshold", "price"),
    [
        (-0.3, 0.0),  # a slack of 0.3
        (-0.05, 0.0),  # as much slack as the step
        (-0.02, 0.03**2 / 0.05),  # a slack of 0.02, then 0.03 at what they cost
    ],
)
def test_slack_costs_nothing(threshold, price):
    """All weight on a: b is 0."""
    (verdict,) = chosen(parabola(), f"b>={threshold}").requirements
    assert verdict.value == 0
    assert verdict.price == pytest.approx(price, abs=1e-4)
    assert verdict.gain == 0
    if price == 0:
        assert (verdict.price, verdict.tightening.interval) == (0, (0, 0))


@pytest.mark.parametrize("t", [0.3, 0.8])
def test_on_a_circle_prices_follow_the_circle(t):
    (verdict,) = chosen(sphere(2), f"b>={t}").requirements
    step = verdict.tightening.step
    assert verdict.price == pytest.approx((math.sqrt(1 - t**2) - math.sqrt(1 - (t + step) ** 2)) / step, rel=0.05)


def test_of_an_error_less_is_tighter():
    (verdict,) = chosen(sphere(2, sign=-1.0), "b<=-0.6", maximize=False).requirements
    step = verdict.tightening.step
    assert verdict.price == pytest.approx((0.8 - math.sqrt(1 - (0.6 + step) ** 2)) / step, rel=0.05)
    assert verdict.gain == pytest.approx((math.sqrt(1 - (0.6 - step) ** 2) - 0.8) / step, rel=0.05)


def test_every_requirement_has_a_price_of_its_own_as_brute_force_finds_it():
    """On the sphere, against all weights of a fine grid."""
    found = chosen(sphere(3), "b>=0.3", "c>=0.6")
    share = np.linspace(0, 1, 1001)
    x, y = (axis.ravel() for axis in np.meshgrid(share, share))
    weights = np.column_stack([1 - x - y, x, y])[x + y <= 1]
    values = weights / np.linalg.norm(weights, axis=1, keepdims=True)

    def best(b, c):
        return values[(values[:, 1] >= b) & (values[:, 2] >= c), 0].max()

    for verdict, (b, c) in zip(found.requirements, [(1, 0), (0, 1)], strict=True):
        step = verdict.tightening.step
        tighter, looser = best(0.3 + step * b, 0.6 + step * c), best(0.3 - step * b, 0.6 - step * c)
        assert verdict.price == pytest.approx((best(0.3, 0.6) - tighter) / step, abs=0.1)
        assert verdict.gain == pytest.approx((looser - best(0.3, 0.6)) / step, abs=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_neither_price_nor_gain_is_negative_on_a_rough_front(seed):
    """Every point has values of its own, drawn with the point."""

    def measure(points):
        noise = np.sin(points[:, :3] @ np.array([[971.0, 613.0, 777.0]] * 3) * (1 + seed) + points[:, 3:4] * 91.0)
        return (points[:, :3] + 0.3 * noise)[:, :, None] * np.linspace(0.5, 1.5, 24)

    sample = Sample(("a", "b", "c"), (True,) * 3, np.ones((3, 24)), measure, np.zeros((3, 24)))
    found = chosen(sample, "b>=0.35", "c>=0.2", seed=seed)
    assert found.met
    for verdict in found.requirements:
        slopes = [s for s in (verdict.tightening, verdict.loosening) if s is not None]
        assert slopes
        assert all(s.per_unit >= 0 and 0 <= s.interval[0] <= s.interval[1] and s.step > 0 for s in slopes)


def test_where_confidence_is_asked_for_it_is_the_bound_that_rises():
    """The bound is x less what the noise takes off, at every point the same: h more of it is h more of x."""
    noise = np.random.default_rng(3).normal(size=100) * 0.5
    found = chosen(parabola(noise - noise.mean()), "b>=0.5", certain=True)
    (verdict,) = found.requirements
    assert verdict.value > 0.55
    assert verdict.price == pytest.approx(2 * verdict.value + 0.05, abs=0.01)


def test_the_interval_of_a_price_is_that_of_the_difference():
    """a differs between the points by h (2 x + h) times the groups' factor, whose mean has a known spread."""
    factor = 1 + np.random.default_rng(4).normal(size=400)

    def measure(points):
        x = points[:, 1, None]
        return np.stack([-(x**2) * factor, x + 0 * factor], axis=1)

    sample = Sample(("a", "b"), (True, True), np.ones((2, 400)), measure, np.zeros((2, 400)))
    (verdict,) = choose_point(
        sample, Space((1.0, 1.0), SCALES), ("a", "b"), [parse_requirement("b>=0.5")], "a"
    ).requirements
    middle, error = 1.05 * factor.mean(), 1.05 * factor.std() / 20
    assert verdict.price == pytest.approx(middle, abs=0.02)
    assert verdict.tightening.interval == pytest.approx((middle - 1.96 * error, middle + 1.96 * error), abs=0.03)


@pytest.mark.parametrize(
    ("required", "said"),
    [
        ("b>=0.5", "b>=0.5: 0.05 more costs 0.05250 a (0.05250 to 0.05250); 0.05 less gains 0.04750 a"),
        ("b>=0.98", "b>=0.98: 0.02 more, the most there is, costs 0.03960 a"),
        ("b>=-0.3", "b>=-0.3: 0.05 more costs nothing; 0.05 less gains nothing"),
    ],
)
def test_prices_are_said_for_the_step_they_were_measured_with(capsys, required, said):
    print_choice(chosen(parabola(), required))
    assert said in capsys.readouterr().out

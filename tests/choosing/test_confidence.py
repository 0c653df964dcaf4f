"""How sure a choice is: shares, bounds and verdicts against counting, closed forms and simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from fronts import POINT, chosen, single, sphere
from helpers import is_one_line

from hyperdpo import InputError
from hyperdpo.choosing.bootstrap import Resamples, bound, number_of_resamples
from hyperdpo.choosing.tables import print_choice


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.97, 0.995])
def test_a_bound_meets_exactly_the_thresholds_whose_share_is_large_enough(confidence):
    rng = np.random.default_rng(int(1000 * confidence))
    turned = np.concatenate([np.full(7, -np.inf), rng.normal(size=1500).round(2), np.full(493, 0.25)])
    edge = bound(turned, confidence)
    for threshold in [*np.unique(turned)[1:], *rng.normal(size=200)]:
        met = sum(1 for x in turned if x >= threshold)
        assert (edge >= threshold) == (met / 2000 >= confidence)


def test_a_resample_without_the_metric_meets_nothing():
    """Two of 30 groups have it, with a value of 1: (28 / 30)^30 of the resamples have neither."""
    counts = np.zeros((2, 30))
    counts[0], counts[1, :2] = 1, 1
    found = chosen(single(np.ones((2, 30)), counts), "b>=0.2", space=POINT)
    (verdict,) = found.requirements
    assert 1 - verdict.share == pytest.approx((28 / 30) ** 30, abs=0.03)
    assert (verdict.bound, verdict.holds, verdict.groups) == (None, None, 2)
    assert found.met
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["requirements"][0]["bound"] is None
    below = chosen(single(np.ones((2, 30)), counts), "b<=2", space=POINT).requirements[0]
    assert below.share == verdict.share
    unsure = chosen(single(np.ones((2, 30)), counts), "b>=0.2", space=POINT, certain=True)
    assert not unsure.met
    assert unsure.requirements[0].attainable is None
    assert chosen(single(np.ones((2, 30)), counts), "b>=0.2", space=POINT, confidence=0.8, certain=True).met


@pytest.mark.parametrize(("groups", "holds"), [(19, None), (20, True), (21, True)])
def test_of_fewer_than_20_groups_nothing_is_said(capsys, groups, holds):
    counts = np.ones((2, 40))
    counts[1, groups:] = 0
    found = chosen(single(np.ones((2, 40)), counts), "b>=0.5", space=POINT)
    assert (found.requirements[0].holds, found.holds, found.requirements[0].share) == (holds, holds, 1)
    print_choice(found)
    assert ("too few groups to say more (19 have b; 20 are needed)" in capsys.readouterr().out) == (holds is None)


@pytest.mark.parametrize(
    ("confidence", "groups", "asked", "number"),
    [
        (0.95, 1000, None, 2000),
        (0.95, 40_000, None, 500),
        (0.95, 1_000_000, None, 200),  # 10 / 0.05
        (0.99, 1_000_000 // 4, None, 1000),  # 10 / 0.01
        (0.999, 100, None, 10_000),
        (0.95, 100, 200, 200),
        (0.5, 100, 20, 20),
    ],
)
def test_ten_resamples_lie_beyond_a_bound_at_least(confidence, groups, asked, number):
    assert number_of_resamples(confidence, groups, asked) == number


@pytest.mark.parametrize(
    ("confidence", "groups", "asked", "words"),
    [
        (0.95, 100, 199, ["resamples", "199", "at least 200"]),
        (0.999, 100, 2000, ["resamples", "2,000", "10,000"]),
        (0.9999, 100_000, None, ["confidence", "0.9999", "100,000 groups", "4,000"]),
    ],
)
def test_too_few_resamples_are_refused(confidence, groups, asked, words):
    with pytest.raises(InputError) as error:
        number_of_resamples(confidence, groups, asked)
    assert is_one_line(error.value, *words)
    with pytest.raises(InputError):
        chosen(sphere(2), "b>=0.1", resamples=199)


def test_several_requirements_are_judged_together(capsys):
    """Each is met in 96% of the resamples, 1.75 standard errors from the mean; independent ones in 92% together."""
    values = np.random.default_rng(5).normal(size=(3, 400))
    values -= values.mean(1, keepdims=True)
    values /= values.std(1, keepdims=True)
    values[2] -= (values[1] @ values[2]) / 400 * values[1]
    edge = -1.75 / 20
    found = chosen(single(values), f"b>={edge}", f"c>={edge}", space=POINT)
    assert [v.holds for v in found.requirements] == [True, True]
    assert [v.share for v in found.requirements] == [pytest.approx(0.96, abs=0.01)] * 2
    assert found.joint_share == pytest.approx(0.96**2, abs=0.015)
    assert found.holds is False
    print_choice(found)
    assert f"met in {math.floor(found.joint_share * 1000) / 10:.1f}% of 2,000 resamples: not" in capsys.readouterr().out
    assert chosen(single(values), "b>=-0.3", "c>=-0.3", space=POINT).holds is True


def test_judging_on_the_groups_of_the_choice_is_said_to_flatter(capsys):
    print_choice(chosen(sphere(2), "b>=0.5"))
    assert "which flatters: --holdout" in capsys.readouterr().out
    print_choice(chosen(sphere(2), "b>=0.5", holdout=sphere(2, np.zeros((2, 60)))))
    assert "flatters" not in capsys.readouterr().out


def test_a_share_is_never_rounded_up_to_the_confidence(capsys):
    """At a confidence of 0.95, 1,899 of 2,000 resamples are not enough."""
    values = np.random.default_rng(6).normal(size=(2, 60))
    drawn = np.sort(Resamples(np.ones((2, 60)), 0).resampled(values[1:], 1)[0])
    between = (drawn[100] + drawn[101]) / 2  # 1,899 lie above
    found = chosen(single(values), f"b>={between}", space=POINT)
    assert found.requirements[0].share == 0.9495
    assert not found.holds
    print_choice(found)
    assert "no (94.9%)" in capsys.readouterr().out


def test_bounds_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    below, inside = [], []
    for trial in range(400):
        counts = (rng.random((1, 80)) < 0.8).astype(float)
        values = rng.beta(2, 3, (1, 80))  # mean 0.4
        resamples = Resamples(counts, trial, 600)
        drawn = resamples.resampled(values * counts, 0)[0]
        below.append(np.quantile(drawn, 0.05) <= 0.4)
        low, high = np.quantile(drawn, [0.05, 0.95])
        inside.append(low <= 0.4 <= high)
        edge = float(bound(resamples.turned(values * counts, 0, 1.0), 0.95)[0])
        assert edge == np.sort(drawn)[30]  # 570 of 600 are not below
    assert 0.92 <= np.mean(below) <= 0.98
    assert 0.86 <= np.mean(inside) <= 0.94


def test_resampled_means_have_the_spread_of_a_mean():
    values = np.random.default_rng(1).normal(size=(1, 1, 400))
    resamples = Resamples(np.ones((1, 400)), 0)
    assert resamples.means(values)[0, 0] == pytest.approx(values.mean())
    assert resamples.resampled(values[:, 0], 0).std() == pytest.approx(values.std() / 20, rel=0.06)


def test_groups_without_a_metric_count_in_no_mean():
    counts = np.array([[1.0, 1, 0, 0], [1, 1, 1, 3]])
    sums = np.array([[[0.2, 0.4, 0, 0], [1, 1, 1, 0]]])
    assert Resamples(counts).means(sums)[0] == pytest.approx([0.3, 0.5])


def test_on_average_is_not_with_confidence_unless_it_is_asked_for():
    noise = np.random.default_rng(2).normal(size=(2, 100)) * 0.3
    noise -= noise.mean(1, keepdims=True)
    (loose,) = chosen(sphere(2, noise), "b>=0.5").requirements
    assert loose.value == pytest.approx(0.5, abs=1e-3)
    assert not loose.holds
    assert loose.share == pytest.approx(0.5, abs=0.1)
    found = chosen(sphere(2, noise), "b>=0.5", certain=True)
    (sure,) = found.requirements
    assert sure.holds
    assert sure.bound == pytest.approx(0.5, abs=1e-3)
    assert sure.value == pytest.approx(0.5 + 1.645 * 0.03, abs=0.01)
    assert found.metrics["a"].value < math.sqrt(0.75) - 0.01

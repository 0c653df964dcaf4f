"""All weights of two objectives at once: against every weight by itself, and what `choose` says because of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fronts import chosen, sphere
from helpers import fit_toy, toy_table
from sklearn.metrics import ndcg_score

from hyperdpo.choosing.choice import Sample, choose_point
from hyperdpo.choosing.edge import edge_sums, order_keys, pieces
from hyperdpo.choosing.rankers import rank_sample
from hyperdpo.choosing.requirements import parse_requirement
from hyperdpo.choosing.search import Effort, Space
from hyperdpo.choosing.tables import print_choice
from hyperdpo.data.splits import Part
from hyperdpo.ranking.evaluation import evaluate_front, ranker_scores
from hyperdpo.ranking.metrics import NdcgSettings, ndcg

CLICKED = [{"name": "a", "target": "l1", "propensity": "seen"}, {"name": "b", "target": "softmax"}]
NO_SEARCH = Effort(points=2, rounds=0, price_rounds=0)


@pytest.mark.parametrize(
    ("first", "second", "k", "same"),
    [
        ([3, 2, 1], [9, 8, 7], None, True),
        ([3, 2, 1], [3, 1, 2], None, False),
        ([3, 2, 1, 0], [3, 2, 0, 1], 2, True),  # only the first two places count
        ([3, 2, 1, 0], [2, 3, 1, 0], 2, False),
        ([3, 2, 2, 0], [3, 2, 1, 0], 2, False),  # a tie across the second place
        ([3, 2, 2, 2], [3, 2, 2, 0], 2, False),  # of more items
        ([3, 2, 2, 2], [5, 4, 4, 4], 2, True),
        ([3, 3, 1, 0], [3, 2, 1, 0], 2, False),
        ([3, 3, 1, 0], [4, 4, 0, 1], 2, True),
        ([0, 0, 0, 0], [1, 1, 1, 1], 3, True),
    ],
)
def test_rankings_share_a_key_where_their_first_places_are_the_same(first, second, k, same):
    scores = torch.tensor([first, second], dtype=torch.float64)
    ((one, other),) = order_keys(scores, torch.ones_like(scores, dtype=torch.bool), k)
    assert (one == other) == same


def test_items_that_are_not_judged_have_no_place():
    scores = torch.tensor([[3.0, 9.0, 1.0], [2.0, 0.0, 1.0]])
    judged = torch.ones(2, 2, 3, dtype=torch.bool)
    judged[1, :, 1] = False
    keys = order_keys(scores, judged, None)
    assert keys.shape == (2, 2)
    assert (keys[:, 0] == keys[:, 1]).tolist() == [False, True]


@pytest.mark.parametrize("k", [1, 3, None])
def test_the_edge_has_at_every_weight_what_sklearn_measures_there(k):
    """Of whole numbers, so that many documents are tied throughout, at an end, or where they swap."""
    rng, parts, lists, n = np.random.default_rng(k), 120, 8, 9
    columns, labels = rng.integers(0, 4, (2, lists, n)), rng.integers(0, 3, (lists, n))
    labels[:, 0] += 1
    sizes = rng.integers(2, n + 1, lists)
    mask = torch.from_numpy(np.arange(n) < sizes[:, None])
    measured = []

    def scores(rows, at):
        return at[:, None] * columns[0, rows] + (parts - at[:, None]) * columns[1, rows]

    def keys(rows, at):
        measured.append(len(rows))
        return order_keys(torch.from_numpy(scores(rows, at)).double(), mask[rows], k).numpy()

    def metrics(rows, at):
        found = torch.from_numpy(scores(rows, at)).double()
        return ndcg(found, torch.from_numpy(labels[None, rows]).double(), mask[rows], NdcgSettings(k=k)).numpy()

    found = edge_sums(keys, metrics, lists, parts)
    assert found.shape == (1, parts + 1)
    for part in range(parts + 1):
        at = scores(np.arange(lists), np.full(lists, part))
        each = [ndcg_score([labels[i, :s]], [at[i, :s]], k=k) for i, s in enumerate(sizes)]
        assert found[0, part] == pytest.approx(sum(each), abs=1e-9), part
    assert sum(measured) < lists * parts / 2
    rows, begins = pieces(keys, lists, parts)
    assert (begins[np.diff(rows, prepend=-1) > 0] == 0).all()
    assert (np.diff(begins)[np.diff(rows) == 0] > 0).all()


@pytest.mark.parametrize(
    ("overrides", "share", "scale"),
    [
        ({"mixture": {"form": "gain"}}, [0.2], 1.0),
        ({"mixture": {"form": "gain"}}, [0.0], 2.0),
        ({}, [], 1.0),
        ({}, [], 0.7),
        ({"weight": "times"}, [], 1.0),
        ({"weight": "times", "mixture": {"form": "gain"}, "objectives": CLICKED}, [0.2], 1.0),
    ],
)
def test_the_edge_of_a_run_has_the_metrics_of_its_front_at_all_weights(overrides, share, scale):
    table = toy_table(12, largest=8)
    table.values[:, 1:7] = table.values[:, 1:7].round()  # some documents are alike, so tied at all weights
    if "weight" in overrides:
        more = {
            "times": np.repeat(np.arange(12) % 5, table.group_sizes),
            "seen": 1 / (1 + np.arange(table.num_rows) % 4),
        }
        values = np.column_stack([table.values, *more.values()]).astype(np.float32)
        table = replace(table, values=values, columns=(*table.columns, *more))
    run = fit_toy(table, **overrides)
    examples = run.examples(Part.whole(table))
    sample = rank_sample(run, examples)
    found = sample.edge(np.array([0.5, 0.5, scale, *run.betas, *share])) / sample.counts.sum(1)[:, None]
    first = np.arange(10_001) / 10_000
    weights = np.column_stack([first, 1 - first])
    score = ranker_scores(run.ranker, weights, run.betas, main_share=share[0] if share else None)
    settings = run.config.metric
    front = evaluate_front(score, examples, weights, [scale], run.betas, settings, with_losses=False)
    apart = np.abs(found - np.column_stack([front.metrics, front.main]).T).max(0) > 1e-6
    # In single precision two documents may be tied, or not, at the one weight where they swap.
    assert apart.sum() <= 3


def test_rankings_that_are_no_weighted_sum_have_no_edge():
    part = Part.whole(toy_table())
    for run in (fit_toy(parametrization="scratch"), fit_toy(mixture={"power": 0.5})):
        assert rank_sample(run, run.examples(part)).edge(np.array([0.5, 0.5, 1, 1, 1])) is None
    run = fit_toy()
    assert rank_sample(run, run.examples(part)).edge(np.array([0.5, 0.5, 1, 1, 1.2])) is None


# --- what choose makes of it


def steps(first, seed=0):
    """(P, 2) metrics a and b of (P,) first weights: rough steps, so that a search of few points misses the best."""
    rng = np.random.default_rng(seed)
    heights = rng.random((2, 37)) * 0.3
    at = np.minimum((first * 37).astype(int), 36)
    return np.stack([first + heights[0, at], 1 - first + heights[1, at]], axis=1)


def stepped(groups=30, **changes):
    """A sample whose metrics do not depend on the scale, and whose edge is known."""
    ones = np.ones(groups)
    sample = Sample(
        names=("a", "b"),
        larger_is_better=(True, True),
        counts=np.ones((2, groups)),
        measure=lambda points: steps(points[:, 0])[:, :, None] * ones,
        base=np.zeros((2, groups)),
        description="steps",
        edge=lambda _: groups * steps(np.arange(10_001) / 10_000).T,
    )
    return replace(sample, **changes)


@pytest.mark.parametrize("threshold", [0.35, 0.5, 0.83])
def test_a_choice_is_the_best_of_all_weights(capsys, threshold):
    found = chosen(stepped(), f"b>={threshold}", space=Space((1.0, 1.0), (1.0,)), effort=NO_SEARCH)
    values = steps(np.arange(10_001) / 10_000)
    best = values[values[:, 1] >= threshold, 0].max()
    assert found.metrics["a"].value == pytest.approx(best, abs=1e-9)
    assert found.metrics["b"].value >= threshold
    assert found.best_of_all_weights
    assert json.loads(json.dumps(found.to_dict()))["best_of_all_weights"]
    print_choice(found)
    assert "best of all weights in steps of 1/10,000 at this scale\n" in capsys.readouterr().out
    without = chosen(stepped(edge=None), f"b>={threshold}", space=Space((1.0, 1.0), (1.0,)), effort=NO_SEARCH)
    assert without.metrics["a"].value < best
    assert not without.best_of_all_weights
    print_choice(without)
    assert "best of all weights" not in capsys.readouterr().out


def test_where_requirements_cannot_be_met_it_is_the_nearest_of_all_weights():
    found = chosen(stepped(), "b>=0.9", "a>=0.9", space=Space((1.0, 1.0), (1.0,)), effort=NO_SEARCH)
    values = steps(np.arange(10_001) / 10_000)
    ends = values[[0, -1]]  # the grid, whose ranges are the units
    short = np.maximum(0.9 - values, 0) / np.abs(ends[0] - ends[1])
    chosen_short = np.maximum(0.9 - np.array([found.metrics[name].value for name in "ab"]), 0) / np.abs(
        ends[0] - ends[1]
    )
    assert found.best_of_all_weights
    assert np.linalg.norm(chosen_short) == pytest.approx(np.linalg.norm(short, axis=1).min(), abs=1e-9)
    assert found.met == (np.linalg.norm(short, axis=1).min() == 0)


def test_the_point_is_measured_before_it_is_given():
    """An edge that promises more than is measured is not believed."""
    wrong = stepped(edge=lambda _: 30 * (steps(np.arange(10_001) / 10_000).T + 0.1))
    found = chosen(wrong, "b>=0.5", space=Space((1.0, 1.0), (1.0,)), effort=NO_SEARCH)
    assert not found.best_of_all_weights
    assert found.metrics["a"].value == pytest.approx(steps(np.array([found.weights["a"]]))[0, 0])


def test_bounds_make_no_such_claim():
    found = chosen(stepped(), "b>=0.5", space=Space((1.0, 1.0), (1.0,)), effort=NO_SEARCH, certain=True)
    assert not found.best_of_all_weights
    assert not chosen(sphere(2), "b>=0.5").best_of_all_weights


def test_a_run_of_two_objectives_answers_with_the_best_of_all_weights():
    table = toy_table(20)
    run = fit_toy(table, mixture={"form": "gain"})
    examples = run.examples(Part.whole(table))
    space, required = Space((1.0, 1.0), (1.0,), shares=(0.2,)), [parse_requirement("main>=0.7")]
    found = choose_point(rank_sample(run, examples), space, run.objectives, required, "a", effort=NO_SEARCH)
    assert found.best_of_all_weights
    first = np.arange(10_001) / 10_000
    weights = np.column_stack([first, 1 - first])
    score = ranker_scores(run.ranker, weights, run.betas, main_share=0.2)
    front = evaluate_front(score, examples, weights, [1.0], run.betas, run.config.metric, with_losses=False)
    assert found.met
    assert found.metrics["a"].value == pytest.approx(front.metrics[front.main >= 0.7, 0].max(), abs=1e-6)
    assert found.metrics["main"].value >= 0.7

"""The attainable front of generated data: above every ranker, and only for the data that it belongs to."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import CLICKS, TINY_OPTIONS, is_one_line

from hyperdpo.cli import main as cli
from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.batching import GroupBatch
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.errors import InputError
from hyperdpo.files import read_json
from hyperdpo.objectives import Label
from hyperdpo.ranking.evaluation import Front, evaluate_front
from hyperdpo.ranking.examples import Batch, Examples, Features, build_examples
from hyperdpo.ranking.metrics import NdcgSettings
from hyperdpo.ranking.oracle import expected_gains, gain_oracle_front, oracle_front
from hyperdpo.ranking.run import RankRun

GRID = weight_grid(2, 5)


@pytest.fixture(scope="module")
def run(fitted) -> RankRun:
    return RankRun.load(fitted)


@pytest.fixture(scope="module")
def truth(generated) -> GroupedTable:
    return read_table(generated[1])


@pytest.fixture(scope="module")
def examples(run, generated) -> Examples:
    return run.examples(Part.whole(read_table(generated[0])))


def front_of(examples: Examples, oracle: GroupedTable, run: RankRun, grid: np.ndarray = GRID) -> Front:
    return oracle_front(examples, oracle, grid, [1.0], run.betas, run.config.metric)


def test_no_ranker_attains_more_than_the_oracle(run, examples, truth):
    attainable = front_of(examples, truth, run)
    trained = run.front(examples, GRID)
    base = run.base_front(examples)
    rng = np.random.default_rng(0)

    def chance(group_batch: GroupBatch, batch: Batch) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(len(GRID), *batch.mask.shape))).float()

    random = evaluate_front(chance, examples, GRID, [1.0], run.betas, run.config.metric)
    for other in (trained, base, random):
        assert other.hypervolume < attainable.hypervolume
        assert other.hypervolume_with_main < attainable.hypervolume_with_main
        assert (other.metrics.max(0) < attainable.metrics.max(0)).all()


def test_each_vertex_of_the_oracle_is_the_best_for_its_objective(run, examples, truth):
    attainable = front_of(examples, truth, run)
    assert attainable.metrics[0, 0] == attainable.metrics[:, 0].max()
    assert attainable.metrics[-1, 1] == attainable.metrics[:, 1].max()
    assert attainable.metrics[0, 1] < attainable.metrics[-1, 1] - 0.1, "the two objectives conflict"


def test_the_oracle_knows_less_than_the_labels_themselves(run, examples, truth):
    """It holds expectations; a ranker that saw the observed labels would be perfect."""
    assert front_of(examples, truth, run).metrics.max() < 0.999


def test_the_oracle_of_some_groups_is_measured_on_those_groups(run, generated, truth):
    table = read_table(generated[0])
    some = Part(table, np.arange(5, 25))
    front = front_of(run.examples(some), truth, run)
    alone = GroupedTable(
        table.values[some.rows()], table.columns, table.qids[5:25], table.offsets[5:26] - table.offsets[5]
    )
    lone_truth = replace(truth, values=truth.values[some.rows()], qids=truth.qids[5:25], offsets=alone.offsets)
    expected = front_of(run.examples(Part.whole(alone)), lone_truth, run)
    np.testing.assert_allclose(front.metrics, expected.metrics, atol=1e-6)


def test_the_oracle_file_of_other_data_is_refused(run, examples, tmp_path):
    generate(tmp_path / "other.txt", 40, seed=99, oracle=tmp_path / "other.csv")
    with pytest.raises(InputError) as error:
        front_of(examples, read_table(tmp_path / "other.csv"), run)
    assert is_one_line(error.value, "other.csv", "data.txt", "do not match")


def test_an_oracle_without_a_label_column_is_refused(run, examples, truth):
    bare = replace(truth, columns=tuple(c if c != "135" else "something" for c in truth.columns))
    with pytest.raises(InputError) as error:
        front_of(examples, bare, run)
    assert is_one_line(error.value, "135")


def test_the_oracle_of_different_temperatures_leaves_the_vertices_where_they_are(run, examples, truth):
    """At a vertex one objective counts, and NDCG does not see that its distance from the base is stretched."""
    far = [oracle_front(examples, truth, GRID, [1e-6], betas, run.config.metric) for betas in ([1.0, 1.0], [1.0, 2.0])]
    np.testing.assert_allclose(far[1].metrics[[0, -1]], far[0].metrics[[0, -1]], atol=1e-9)
    assert not np.allclose(far[1].metrics[1:-1], far[0].metrics[1:-1])


# --- expected gains


@pytest.fixture(scope="module")
def gain_run(generated, tmp_path_factory) -> RankRun:
    path = tmp_path_factory.mktemp("oracle") / "gains"
    arguments = ["rank", "fit", str(generated[0]), "--out", str(path), "--preset", "mslr", "--cpu"]
    arguments += ["--objectives", ",".join(CLICKS), "--set", "mixture.form=gain", *TINY_OPTIONS]
    assert cli(arguments) == 0
    return RankRun.load(path)


def gain_front_of(examples: Examples, oracle: GroupedTable, run: RankRun, share: float) -> Front:
    where = (examples, oracle, GRID, [1.0], run.betas, run.config.metric)
    return gain_oracle_front(run.ranker, *where, main=run.config.main, main_share=share)


def one_click_lists(groups: int) -> tuple[Examples, GroupedTable, np.ndarray]:
    """Lists in which one item at most is clicked, so that the gain is the click and its expectation is known."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 12, groups)
    offsets = np.append(0, np.cumsum(sizes))
    clicks, chances = np.zeros(offsets[-1], np.float32), np.zeros(offsets[-1])
    for a, b in itertools.pairwise(offsets):
        chances[a:b] = rng.dirichlet(np.ones(b - a)) * rng.uniform(0.2, 0.9)
        clicked = rng.choice(b - a + 1, p=[*chances[a:b], 1 - chances[a:b].sum()])
        if clicked < b - a:
            clicks[a + clicked] = 1
    table, oracle = (
        GroupedTable(values[:, None].astype(np.float32), ("clicks",), np.arange(groups), offsets)
        for values in (clicks, chances)
    )
    part, label = Part.whole(table), Label(name="clicks", target="l1", transform="none")
    features = Features(part, FeatureTransform((), np.zeros(0, np.float32), np.ones(0, np.float32)), 0)
    return build_examples(part, [label], None, features=features), oracle, chances


@pytest.mark.parametrize("empty", ["skip", "zero"])
def test_gains_of_lists_with_one_click_at_most_are_the_chances(empty):
    examples, oracle, chances = one_click_lists(3000)
    found = expected_gains(examples, oracle, None, NdcgSettings(empty=empty))
    expected = chances / examples.signal.mean() if empty == "skip" else chances
    np.testing.assert_allclose(found[:, 0], expected, rtol=0.12)
    assert found.sum() == pytest.approx(expected.sum(), rel=0.03)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_no_ranker_of_gains_attains_more_at_its_share(gain_run, generated, truth, share):
    table = read_table(generated[0])
    _, part = gain_run.part(table)
    examples = gain_run.examples(part)
    attainable = gain_front_of(examples, truth, gain_run, share)
    trained = gain_run.front(examples, GRID, main_share=share)
    assert trained.hypervolume < attainable.hypervolume
    assert trained.hypervolume_with_main < attainable.hypervolume_with_main


def test_the_share_of_the_oracle_trades_objectives_for_main(gain_run, examples, truth):
    fronts = [gain_front_of(examples, truth, gain_run, share) for share in (0.0, 0.2, 0.5, 0.9)]
    assert (np.diff([front.main.mean() for front in fronts]) > 0).all()
    assert (np.diff([front.metrics[0, 0] for front in fronts]) < 0).all()
    mains, objectives = ([getattr(front, name).max() for front in fronts] for name in ("main", "metrics"))
    assert mains[-1] < 0.999, "it holds expectations"
    assert objectives[0] < 0.999


def test_the_oracle_of_gains_is_the_front_of_an_actual_order(gain_run, examples, truth):
    """NDCG of the lists sorted by sum_j v_j E[g_j], written out, for one weighting."""
    front = gain_front_of(examples, truth, gain_run, 0.3)
    columns = expected_gains(examples, truth, gain_run.config.main, gain_run.config.metric)
    v = np.append(0.7 * GRID[1], 0.3)
    values, found = examples.measured_gains, []
    for a, b in itertools.pairwise(examples.part.table.offsets):
        label = values[a:b, 0][np.argsort(-(columns[a:b] @ v), kind="stable")][:10]
        best = np.sort(values[a:b, 0])[::-1][:10]
        discounts = 1 / np.log2(np.arange(2, len(best) + 2))
        if best[0] > 0:
            found.append(label @ discounts / (best @ discounts))
    assert front.metrics[1, 0] == pytest.approx(np.mean(found), abs=1e-6)


def test_the_command_says_what_a_run_of_gains_attains(gain_run, generated, tmp_path, command):
    out = tmp_path / "front.json"
    arguments = ["--oracle", generated[1], "--main-share", "0.4", "--points", "5", "--out", out, "--cpu"]
    done = command("rank", "front", gain_run.path, generated[0], *arguments)
    assert done.code == 0, done.err
    assert "of the attainable front" in done.out
    table = read_table(generated[0])
    _, part = gain_run.part(table)
    attainable = gain_front_of(gain_run.examples(part), read_table(generated[1]), gain_run, 0.4)
    written = read_json(out)["oracle"]
    assert written["hypervolume_with_main"] == pytest.approx(attainable.hypervolume_with_main)
    assert 0 < written["fraction"] < 1

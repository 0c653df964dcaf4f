"""The attainable front of generated data: above every ranker, and only for the data that it belongs to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import is_one_line

from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.batching import GroupBatch
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.errors import InputError
from hyperdpo.ranking.evaluation import Front, evaluate_front
from hyperdpo.ranking.examples import Batch, Examples
from hyperdpo.ranking.oracle import oracle_front
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

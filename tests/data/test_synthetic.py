"""The generator: MSLR's shape, labels that conflict, and an oracle that tells the truth about them."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import is_one_line

from hyperdpo.core.preferences import stream
from hyperdpo.data.cache import read_table
from hyperdpo.data.synthetic import (
    LARGEST_GROUP,
    SMALLEST_GROUP,
    SyntheticWorld,
    _labels,
    generate,
)
from hyperdpo.errors import InputError

#: Positions in the labels: relevance, 132, 133 (dense), 134, 135, 136 (sparse).
MAIN, DENSE, SPARSE = 0, (1, 2), (3, 4, 5)


@pytest.fixture(scope="module")
def queries():
    world = SyntheticWorld(5)
    return [world.query(stream(5, 1, number)) for number in range(300)]


@pytest.fixture(scope="module")
def labels(queries):
    return np.concatenate([q.labels for q in queries])


@pytest.fixture(scope="module")
def expected(queries):
    return np.concatenate([q.expected for q in queries])


# --- shape


def test_a_file_has_131_features_then_five_labels(generated):
    table = read_table(generated[0])
    assert table.columns == ("relevance", *(str(k) for k in range(1, 137)))
    assert table.num_groups == 40
    first = generated[0].read_text().split("\n", 1)[0].split(" ")
    assert first[1] == "qid:1"
    assert [int(pair.split(":")[0]) for pair in first[2:]] == list(range(1, 137))


def test_groups_have_5_to_200_documents(queries):
    sizes = [len(q.labels) for q in queries]
    assert min(sizes) >= SMALLEST_GROUP == 5
    assert max(sizes) <= LARGEST_GROUP == 200
    assert np.std(sizes) > 10


def test_features_vary_and_have_scales_of_their_own(queries):
    features = np.concatenate([q.features for q in queries])
    assert features.shape[1] == 131
    assert np.isfinite(features).all()
    assert (features.std(0) > 0).all()
    assert features.max(0).max() > 1000 * np.median(features.max(0))


# --- labels


def test_two_labels_are_dense_from_1_to_254(labels):
    for j in DENSE:
        assert labels[:, j].min() >= 1
        assert labels[:, j].max() <= 254
        assert len(np.unique(labels[:, j])) > 150


def test_three_labels_are_counts_and_mostly_zero(labels):
    for j in SPARSE:
        assert (labels[:, j] >= 0).all()
        assert (labels[:, j] == np.round(labels[:, j])).all()
        assert 0.6 < (labels[:, j] == 0).mean() < 0.99
        assert labels[:, j].max() >= 5


def test_some_queries_have_no_click_at_all(queries):
    silent = np.mean([(q.labels[:, 3] == 0).all() for q in queries])
    assert 0.05 < silent < 0.4


def test_relevance_is_graded_0_to_4(labels):
    assert sorted(np.unique(labels[:, MAIN])) == [0, 1, 2, 3, 4]


def within_queries(queries, what, i, j) -> float:
    """Mean correlation of two labels within a query."""
    values = [getattr(q, what) for q in queries if len(q.labels) > 20]
    pairs = [np.corrcoef(v[:, i], v[:, j])[0, 1] for v in values if v[:, i].std() and v[:, j].std()]
    return float(np.mean(pairs))


def test_the_dense_pair_and_a_sparse_pair_conflict(queries):
    assert within_queries(queries, "labels", 1, 2) < -0.3
    assert within_queries(queries, "expected", 1, 2) < -0.3
    assert within_queries(queries, "expected", 3, 4) < -0.1
    assert within_queries(queries, "labels", 3, 4) < -0.02


# --- the oracle


def test_observed_labels_average_to_what_the_oracle_expects():
    """The law of large numbers, document by document: one hidden state, 4,000 draws."""
    utilities = stream(1).normal(size=(12, 6))
    rng = stream(2)
    draws = np.stack([_labels(utilities, rng)[0] for _ in range(4000)])
    expected = _labels(utilities, rng)[1]
    error = draws.std(0) / np.sqrt(len(draws))
    unclipped = np.ones_like(expected, dtype=bool)
    unclipped[:, DENSE] = np.abs(expected[:, DENSE] - 127.5) < 80  # clipping to 1..254 bends the ends a little
    assert unclipped[:, DENSE].any()
    assert (np.abs(draws.mean(0) - expected) < 4.5 * error + 1e-3)[unclipped].all()
    np.testing.assert_allclose(draws.mean(0)[:, DENSE], expected[:, DENSE], atol=3)


def test_observed_labels_average_to_what_the_oracle_expects_over_whole_queries(queries):
    """Documents of a query are clicked together or not at all, so queries are what is independent."""
    errors = np.array([(q.labels - q.expected).sum(0) for q in queries])
    assert (np.abs(errors.mean(0)) < 4 * errors.std(0) / np.sqrt(len(errors))).all()


def test_the_oracle_knows_the_labels_better_than_any_constant(labels, expected):
    for j in range(6):
        assert ((labels[:, j] - expected[:, j]) ** 2).mean() < 0.9 * labels[:, j].var()


def test_the_oracle_file_is_aligned_with_the_data(generated):
    data, oracle = (read_table(path) for path in generated)
    np.testing.assert_array_equal(oracle.offsets, data.offsets)
    np.testing.assert_array_equal(oracle.qids, data.qids)
    assert oracle.columns == ("relevance", "132", "133", "134", "135", "136")
    for name in ("relevance", "132", "133"):
        assert np.corrcoef(data.column(name), oracle.column(name))[0, 1] > 0.8


# --- files


def test_a_file_holds_the_values_of_the_world_it_was_drawn_from(generated):
    data, oracle = (read_table(path) for path in generated)
    world = SyntheticWorld(3)
    for number in (0, 17, 39):
        query = world.query(stream(3, 1, number))
        rows = slice(data.offsets[number], data.offsets[number + 1])
        written = np.column_stack([query.labels[:, 0], query.features, query.labels[:, 1:]])
        np.testing.assert_array_equal(data.values[rows], written.astype(np.float32))
        np.testing.assert_allclose(oracle.values[rows], query.expected, atol=1e-6, rtol=1e-6)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, generated):
    generate(tmp_path / "again.txt", 40, seed=3, oracle=tmp_path / "again.csv")
    generate(tmp_path / "other.txt", 40, seed=4)
    assert (tmp_path / "again.txt").read_bytes() == generated[0].read_bytes()
    assert (tmp_path / "again.csv").read_bytes() == generated[1].read_bytes()
    assert (tmp_path / "other.txt").read_bytes() != generated[0].read_bytes()


def test_fewer_queries_are_the_first_of_more(tmp_path, generated):
    documents = generate(tmp_path / "few.txt", 10, seed=3)
    few = (tmp_path / "few.txt").read_text()
    assert generated[0].read_text().startswith(few)
    assert documents == few.count("\n")


def test_progress_counts_the_queries(tmp_path):
    seen: list[int] = []
    generate(tmp_path / "data.txt", 130, progress=seen.append)
    assert seen[-1] == 130
    assert seen == sorted(seen)


@pytest.mark.parametrize("queries", [0, -3])
def test_fewer_than_one_query_is_refused(tmp_path, queries):
    with pytest.raises(InputError) as error:
        generate(tmp_path / "data.txt", queries)
    assert is_one_line(error.value, str(queries), "at least 1")


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(InputError):
        generate(tmp_path / "data.txt", 3, seed=-1)


@pytest.mark.parametrize("which", ["data", "oracle"])
@pytest.mark.parametrize("kind", ["a file in the way", "a directory of that name"])
def test_a_place_that_cannot_be_written_to_is_named_and_nothing_is_left(tmp_path, which, kind):
    if kind == "a file in the way":
        (tmp_path / "blocked").write_text("")
        bad = tmp_path / "blocked" / "out.txt"
    else:
        bad = tmp_path / "blocked"
        bad.mkdir()
    before = sorted(tmp_path.iterdir())
    data, oracle = (bad, tmp_path / "o.csv") if which == "data" else (tmp_path / "d.txt", bad)
    with pytest.raises(InputError) as error:
        generate(data, 3, oracle=oracle)
    assert is_one_line(error.value, "blocked", "cannot be written")
    assert sorted(tmp_path.iterdir()) == before


def test_one_file_cannot_be_data_and_oracle(tmp_path):
    with pytest.raises(InputError):
        generate(tmp_path / "same", 3, oracle=tmp_path / "same")
    assert list(tmp_path.iterdir()) == []

"""A saved run: what it gives back, what it computes once, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CLICKS, change_json, cpu, fit_toy, is_one_line, read, toy_config, toy_table, without_checksums

from hyperdpo import __version__
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.ranking.base_scores import BaseSource, read_scores
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.run_files import FORMAT_VERSION

HALF = [0.5, 0.5]


@pytest.fixture(scope="module")
def table() -> GroupedTable:
    return toy_table()


@pytest.fixture(scope="module")
def saved(table: GroupedTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy run on disk, not to be changed."""
    path = tmp_path_factory.mktemp("toy") / "run"
    fit_toy(table, out=path)
    return path


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> RankRun:
    """A toy run of its own directory."""
    return RankRun.load(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture(scope="module")
def given_run(table: GroupedTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose base scores came from the caller."""
    config = toy_config(parametrization="augmentation")
    parts = split_table(table, config)
    out = tmp_path_factory.mktemp("given") / "run"
    given = {name: table.column("f1") for name in parts}
    fit_run(config, parts, cpu(), out=out, base_source=BaseSource("given"), given_base=given)
    return out


def refusal(action: Any) -> str:
    with pytest.raises(InputError) as error:
        action()
    assert is_one_line(error.value)
    return str(error.value)


# --- saved and loaded


@pytest.mark.parametrize("parametrization", ["scratch", "augmentation"])
def test_a_loaded_run_scores_as_the_one_that_was_saved(table, tmp_path, parametrization):
    first = fit_toy(table, out=tmp_path / "run", parametrization=parametrization)
    second = RankRun.load(tmp_path / "run")
    other = Part.whole(toy_table(seed=8))
    for part in (Part.whole(table), other):
        np.testing.assert_array_equal(first.score(part, HALF, 2.0), second.score(part, HALF, 2.0))
    assert second.config == first.config
    assert second.metrics == first.metrics


def test_a_run_loads_and_scores_without_the_training_data(generated, fitted, tmp_path):
    moved = shutil.copytree(fitted, tmp_path / "elsewhere")
    shutil.rmtree(moved / "checkpoints")
    shutil.rmtree(moved / "base_scores")
    copy = tmp_path / "other-name.txt"
    shutil.copy(generated[0], copy)
    part = Part.whole(read_table(copy))
    expected = RankRun.load(fitted).score(part, HALF, 2.0)
    np.testing.assert_array_equal(RankRun.load(moved).score(part, HALF, 2.0), expected)


def test_the_directory_says_what_it_was_made_from(saved, table):
    about, metrics = read(saved / "run.json"), read(saved / "metrics.json")
    assert about["format_version"] == FORMAT_VERSION
    assert about["versions"]["hyperdpo"] == __version__
    assert about["versions"]["torch"] == torch.__version__
    assert about["seed"] == 0
    assert about["data"]["fingerprint"] == table.fingerprint
    assert sum(about["data"]["groups"].values()) == table.num_groups
    assert about["features"] == [f"f{i}" for i in range(6)]
    assert metrics["parameters"] == sum(t.numel() for t in RankRun.load(saved).ranker.parameters())
    assert metrics["history"].keys() == {"base", "ranker"}


def test_a_run_of_another_format_version_is_refused_with_both_versions(run):
    change_json(run.path / "run.json", format_version=FORMAT_VERSION + 41)
    message = refusal(lambda: RankRun.load(run.path))
    assert f"version {FORMAT_VERSION + 41}" in message
    assert f"versions 2 to {FORMAT_VERSION} " in message
    assert "run.json" in message


def test_an_empty_directory_and_an_unfinished_training_are_told_apart(tmp_path):
    assert "no run there" in refusal(lambda: RankRun.load(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    assert "training has not finished" in refusal(lambda: RankRun.load(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "metrics.json"])
def test_a_missing_file_is_named(run, name):
    (run.path / name).unlink()
    assert name in refusal(lambda: RankRun.load(run.path))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "metrics.json", "run.json"])
@pytest.mark.parametrize("keep", [0, 9, -7], ids=["empty", "first bytes", "all but the last bytes"])
def test_a_truncated_file_is_named(run, name, keep):
    path = run.path / name
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(lambda: RankRun.load(run.path))
    assert name in message
    assert "truncated" in message


@pytest.mark.parametrize("name", ["config.json", "run.json"])
@pytest.mark.parametrize("content", ["[]", "7", '"text"', "{}", "null"])
def test_json_that_is_not_a_run_is_refused(run, name, content):
    (run.path / name).write_text(content)
    assert str(run.path) in refusal(lambda: RankRun.load(run.path))


def test_files_of_two_runs_are_refused(run, tmp_path):
    other = fit_toy(out=tmp_path / "other", scorer={"width": 12})
    shutil.copy(other.path / "model.safetensors", run.path)
    assert "model.safetensors: damaged, truncated or changed" in refusal(lambda: RankRun.load(run.path))
    without_checksums(run.path, 3)
    with pytest.warns(UserWarning, match="written without checksums"):
        assert "do not belong together" in refusal(lambda: RankRun.load(run.path))


# --- weights


def test_weights_per_group_score_each_group_as_a_call_of_its_own(run, table):
    part = Part.whole(table)
    weights = np.random.default_rng(0).dirichlet([1, 1], table.num_groups)
    scales = np.linspace(0.5, 3, table.num_groups)
    together = run.score(part, weights, scales)
    for g in range(0, table.num_groups, 5):
        rows = slice(table.offsets[g], table.offsets[g + 1])
        alone = run.score(part, weights[g], float(scales[g]))[rows]
        np.testing.assert_allclose(together[rows], alone, rtol=1e-4, atol=1e-5)


def test_scores_of_some_groups_are_those_of_all(run, table):
    some = Part(table, np.array([3, 4, 17]))
    np.testing.assert_allclose(
        run.score(some, HALF, 2.0), run.score(Part.whole(table), HALF, 2.0)[some.rows()], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "weights",
    [[0.5, 0.6], [1.5, -0.5], [1.0], [0.3, 0.3, 0.4], [math.nan, 1.0], [math.inf, 0.0], "half", 0.5, [], [0.0, 0.0]],
)
def test_weights_off_the_simplex_are_refused(run, table, weights):
    assert "weights" in refusal(lambda: run.score(Part.whole(table), weights))


def test_a_row_of_weights_for_another_number_of_groups_is_refused(run, table):
    message = refusal(lambda: run.score(Part.whole(table), np.full((3, 2), 0.5)))
    assert "(3, 2)" in message
    assert "(30, 2)" in message


# --- the scale


@pytest.mark.parametrize("c", [0.5, 2.0, 10.0])
def test_the_score_at_a_scale_is_a_mixture_with_the_base(run, table, c):
    part = Part.whole(table)
    expected = (1 - 1 / c) * run.base_scores(table) + run.score(part, HALF) / c
    np.testing.assert_allclose(run.score(part, HALF, c), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [None, 0, -1, math.nan, math.inf, "two", [1.0, 2.0]])
def test_a_scale_that_is_no_positive_number_is_refused(run, table, scale):
    assert "scale" in refusal(lambda: run.score(Part.whole(table), HALF, scale))


def test_one_bad_scale_among_those_of_the_groups_is_refused(run, table):
    scales = np.ones(table.num_groups)
    scales[4] = -2.0
    assert "-2" in refusal(lambda: run.score(Part.whole(table), HALF, scales))


# --- base scores


def test_base_scores_that_are_needed_and_absent_are_asked_for(given_run):
    run, other = RankRun.load(given_run), Part.whole(toy_table(seed=8))
    message = refusal(lambda: run.score(other, HALF))
    assert "--base-scores" in message
    base = other.table.column("f1")
    np.testing.assert_allclose(run.score(other, HALF, 1e6, base_scores=base), base, atol=1e-4)


def test_given_base_scores_of_the_training_data_are_kept_with_the_run(given_run, table):
    run = RankRun.load(given_run)
    np.testing.assert_array_equal(run.base_scores(table), table.column("f1"))


@pytest.mark.parametrize(
    "scores", [np.zeros(3), np.zeros((2, 2)), "nan"], ids=["too few", "two dimensions", "not a number"]
)
def test_base_scores_that_do_not_fit_are_refused(run, table, scores):
    if isinstance(scores, str):
        scores = np.full(table.num_rows, math.nan)
    assert "base scores" in refusal(lambda: run.score(Part.whole(table), HALF, 2.0, base_scores=scores))


def test_base_scores_are_computed_once_and_kept_on_disk(run):
    other, calls = toy_table(seed=8), []
    first = run.base_scores(other)
    again = RankRun.load(run.path)
    for one in (run, again):
        one.base.scorer.register_forward_pre_hook(lambda *_: calls.append(1))
        np.testing.assert_array_equal(one.base_scores(other), first)
    assert not calls
    run.base_scores(toy_table(seed=9))
    assert calls, "other data has other base scores"


def test_scores_given_for_once_do_not_replace_those_of_the_runs_own_base(run, table):
    own = run.base_scores(table)
    run.score(Part.whole(table), HALF, 2.0, base_scores=table.column("f5"))
    np.testing.assert_array_equal(run.base_scores(table), own)
    np.testing.assert_array_equal(RankRun.load(run.path).base_scores(table), own)


def test_other_base_scores_of_the_training_data_are_refused(given_run, table):
    """A file of scores at the same place that another base has written."""
    given = table.column("f1")
    RankRun.load(given_run).score(Part.whole(table), HALF, 2.0, base_scores=given)
    other = given.copy()
    other[7] += 1
    message = refusal(lambda: RankRun.load(given_run).score(Part.whole(table), HALF, 2.0, base_scores=other))
    assert "for row 8 of memory, on which this run was trained with" in message
    new = toy_table(seed=8)
    RankRun.load(given_run).score(Part.whole(new), HALF, 2.0, base_scores=new.column("f1"))


def test_a_run_in_a_directory_that_cannot_be_written_still_scores(run, saved):
    shutil.rmtree(run.path / "base_scores")
    (run.path / "base_scores").write_text("in the way")
    other = Part.whole(toy_table(seed=8))
    np.testing.assert_array_equal(run.score(other, HALF, 2.0), RankRun.load(saved).score(other, HALF, 2.0))


def test_the_base_scores_may_be_a_column_that_is_then_no_feature(table):
    config = toy_config()
    run = fit_run(config, split_table(table, config), cpu(), base_source=BaseSource("column", "f1"))
    assert "f1" not in run.transform.columns
    np.testing.assert_array_equal(run.base_scores(table), table.column("f1"))


# --- files of scores


@pytest.mark.parametrize("text", ["1\n2.5\n-3e2\n", "1\n2.5\n-3e2", "1\r\n2.5\r\n-3e2\r\n"])
def test_a_score_file_holds_one_number_per_line(tmp_path, text):
    (tmp_path / "s.txt").write_bytes(text.encode())
    np.testing.assert_array_equal(read_scores(tmp_path / "s.txt"), np.float32([1, 2.5, -300]))


def test_a_score_file_may_be_npy(tmp_path):
    np.save(tmp_path / "s.npy", np.array([1, 2, 3]))
    np.testing.assert_array_equal(read_scores(tmp_path / "s.npy"), np.float32([1, 2, 3]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\nword\n3\n", [":2", "word"]),
        ("1\n\n3\n", [":2"]),
        ("1\nnan\n", [":2", "nan"]),
        ("1\n2\ninf\n", [":3", "inf"]),
        ("1 2\n", [":1", "1 2"]),
    ],
)
def test_a_bad_line_of_a_score_file_is_named(tmp_path, text, words):
    (tmp_path / "s.txt").write_text(text)
    message = refusal(lambda: read_scores(tmp_path / "s.txt"))
    assert all(word in message for word in ["s.txt", *words])


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array", b"PK\x03\x04"])
def test_a_damaged_npy_file_of_scores_is_named(tmp_path, content):
    (tmp_path / "s.npy").write_bytes(content)
    assert "s.npy" in refusal(lambda: read_scores(tmp_path / "s.npy"))


def test_an_npy_file_of_another_shape_or_kind_is_refused(tmp_path):
    np.save(tmp_path / "two.npy", np.zeros((3, 2)))
    assert "(3, 2)" in refusal(lambda: read_scores(tmp_path / "two.npy"))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    assert "words.npy" in refusal(lambda: read_scores(tmp_path / "words.npy"))


# --- what a run may be judged on


def test_the_training_file_is_judged_on_its_test_groups_and_other_files_on_all(run, table):
    name, part = run.part(table)
    assert name == "test"
    trained = split_table(table, run.config)
    np.testing.assert_array_equal(part.groups, trained["test"].groups)
    assert not set(part.groups) & (set(trained["train"].groups) | set(trained["validation"].groups))
    name, part = run.part(toy_table(seed=8))
    assert (name, len(part.groups)) == ("all", 30)


def test_a_copy_of_the_training_file_under_another_name_is_still_the_training_file(generated, fitted, tmp_path):
    copy = shutil.copy(generated[0], tmp_path / "renamed.txt")
    name, part = RankRun.load(fitted).part(read_table(copy))
    assert (name, len(part.groups)) == ("test", 8)


# --- fronts


def test_the_front_runs_through_all_weights_at_each_scale(run, table):
    grid = np.array([[1, 0], [0.5, 0.5], [0, 1]])
    front = run.front(run.examples(Part.whole(table)), grid, (1.0, 3.0))
    np.testing.assert_array_equal(front.weights, np.concatenate([grid, grid]))
    assert front.scales.tolist() == [1, 1, 1, 3, 3, 3]
    for w, c, metrics in zip(front.weights, front.scales, front.metrics, strict=True):
        alone = run.front(run.examples(Part.whole(table)), [w], (c,))
        np.testing.assert_allclose(metrics, alone.metrics[0], atol=1e-6)


def test_at_a_huge_scale_the_front_is_the_base(run, table):
    examples = run.examples(Part.whole(table))
    front, base = run.front(examples, [HALF], (1e6,)), run.base_front(examples)
    np.testing.assert_allclose(front.metrics, base.metrics, atol=1e-6)
    np.testing.assert_allclose(front.main, base.main, atol=1e-6)


def test_a_front_of_data_without_the_main_label_has_no_main(run, table):
    keep = [i for i, name in enumerate(table.columns) if name != "relevance"]
    bare = GroupedTable(table.values[:, keep], tuple(table.columns[i] for i in keep), table.qids, table.offsets)
    front = run.front(run.examples(Part.whole(bare)), [HALF])
    assert front.main is None
    assert front.hypervolume_with_main is None
    json.dumps(front.to_dict(), allow_nan=False)


def test_a_front_where_no_group_has_a_positive_label_is_null_and_not_nan(run, table):
    values = np.array(table.values)
    values[:, [0, table.column_index("a")]] = 0
    zeros = GroupedTable(values, table.columns, table.qids, table.offsets)
    front = run.front(run.examples(Part.whole(zeros)), [HALF])
    written = front.to_dict()
    json.dumps(written, allow_nan=False)
    assert written["points"][0]["metrics"]["a"] is None
    assert written["points"][0]["main"] is None
    assert written["groups_counted"] == {"a": 0, "b": 30}


def test_a_fit_whose_validation_groups_have_no_relevant_item_is_saved(table, tmp_path):
    """Small data sets have such splits."""
    config = toy_config()
    parts = split_table(table, config)
    values = np.array(table.values)
    values[parts["validation"].rows(), 0] = 0
    run = fit_toy(GroupedTable(values, table.columns, table.qids, table.offsets, fingerprint="z"), out=tmp_path / "run")
    assert run.metrics["history"]["ranker"]["main"][0] is None
    assert RankRun.load(tmp_path / "run").objectives == ("a", "b")


def test_the_objectives_of_a_run_have_the_order_of_the_weights(fitted):
    assert list(RankRun.load(fitted).objectives) == CLICKS

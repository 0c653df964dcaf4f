"""Points that are copied give the scores and texts of the point, when they are run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import CLICKS

from hyperdpo import HyperRanker
from hyperdpo.core.point import Point
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.explorer.snippets import align_snippets, rank_snippets
from hyperdpo.ranking.run import RankRun


@pytest.mark.parametrize("temperatures", [(1.0, 1.0), (0.7, 1.6)])
def test_a_rankers_point_is_the_same_in_all_three_ways(product_run, generated, command, temperatures):
    run, table = RankRun.load(product_run), read_table(generated[0])
    point = Point((0.1234, 0.8766), 2.35, temperatures)
    expected = run.score(Part.whole(table), point.weights, point.scale, temperatures=temperatures)
    texts = rank_snippets(product_run, generated[0], run.objectives, point, tuple(run.betas))

    done = command(*shlex.split(texts.command)[1:])
    assert done.code == 0, done.err
    assert np.array(done.out.split(), float) == pytest.approx(expected, rel=1e-5)
    assert ("--beta" in texts.command) == (temperatures != (1.0, 1.0))

    features = table.take(np.arange(table.num_rows), table.column_indices(run.transform.columns))
    names = {"X": features, "qid": np.repeat(table.qids, table.group_sizes)}
    exec(texts.python, names)
    assert names["scores"] == pytest.approx(expected, rel=1e-5)

    told = json.loads(texts.json)
    assert Path(told["run"]) == product_run
    assert list(told["weights"]) == CLICKS
    found = HyperRanker.load(told["run"]).predict(
        features, qid=names["qid"], weights=told["weights"], scale=told["scale"],
        temperatures=list(told["temperatures"].values()),
    )  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-5)


def test_base_scores_that_were_given_are_asked_for():
    point = Point((1.0,), 1.0, (1.0,))
    texts = rank_snippets(Path("run"), Path("my data.txt"), ("a",), point, (1.0,), "scores.npy")
    assert shlex.split(texts.command)[-2:] == ["--base-scores", "scores.npy"]
    assert "my data.txt" in shlex.split(texts.command)
    assert texts.python.endswith("base_scores=base_scores)")


def test_a_language_models_point_is_the_same_in_all_three_ways(language, command):
    from hyperdpo.alignment.run import AlignRun

    path, _ = language
    run = AlignRun.load(path)
    point, prompt = Point((0.25, 0.75), 1.5, (0.1, 0.1)), "w5 w7 w9"
    texts = align_snippets(path, run.names, point, prompt)
    (expected,) = run.generate([prompt], np.array([0.25, 0.75]), 1.5, max_new_tokens=64, do_sample=False)

    done = command(*shlex.split(texts.command)[1:], "--cpu", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out.strip().splitlines()[-1])["text"] == expected

    names: dict = {}
    exec(texts.python.replace(", 1.5)", ", 1.5, max_new_tokens=64, do_sample=False)"), names)
    assert names["texts"] == [expected]
    told = json.loads(texts.json)
    assert told["weights"] == {"low": 0.25, "high": 0.75}

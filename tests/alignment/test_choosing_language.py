"""Choosing a point of a language model's front."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import read

import hyperdpo
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.run import AlignRun
from hyperdpo.choosing.bootstrap import Resamples
from hyperdpo.choosing.language import align_sample
from hyperdpo.cli import main


@pytest.fixture(scope="module")
def run_path(place: Path) -> Path:
    options = ["--epochs", "1", "--cpu", "--set", "training.disable_tqdm=true", "--set", "conditioning.prompt_tokens=2"]
    where = [str(place / "data.jsonl"), "--model", str(place / "model"), "--out", str(place / "run")]
    assert main(["align", "fit", *where, *options]) == 0
    return place / "run"


def test_points_have_the_metrics_of_the_front(place, run_path):
    run = AlignRun.load(run_path)
    preferences = read_preferences(place / "data.jsonl", objectives=run.names)
    sample = align_sample(run, preferences)
    weights = np.array([[1, 0], [0.3, 0.7]])
    front = run.front(preferences, weights, (1.0, 0.5))
    points = np.array([[*w, c, *front.temperatures] for c in (1.0, 0.5) for w in weights])
    means = Resamples(sample.counts).means(sample.measure(points))
    assert means[:, :2] == pytest.approx(front.losses, abs=1e-9)
    assert means[:, 2:] == pytest.approx(front.accuracies, abs=1e-6)
    base = Resamples(sample.counts).means(sample.base[None])[0]
    assert base == pytest.approx([*front.base_losses, 0.5, 0.5])
    assert sample.names == ("low", "high", "accuracy:low", "accuracy:high")


def test_scores_are_kept_up_to_a_size_and_found_again(place, run_path):
    run = AlignRun.load(run_path)
    preferences = read_preferences(place / "data.jsonl", objectives=run.names)
    points = np.array([[w, 1 - w, c, 0.1, 0.1] for c in (1.0, 2.0) for w in (0.0, 0.25, 0.5, 1.0)])
    expected = align_sample(run, preferences).measure(points)
    size = 8 * len(preferences) * max(len(group.completions) for group in preferences.groups)
    measure = align_sample(run, preferences, kept_bytes=3 * size - 1).measure
    passes: list[int] = []
    run.model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = []
    for some in (slice(8), slice(2, 4), slice(1)):  # all four weightings; the last two, which are kept; the first
        passes.clear()
        assert measure(points[some]) == pytest.approx(expected[some])
        found.append(len(passes))
    each = found[2]
    assert found == [4 * each, 0, each]
    assert each > 0


def test_groups_of_one_prompt_are_drawn_together(place, run_path):
    run = AlignRun.load(run_path)
    preferences = read_preferences(place / "data.jsonl", objectives=run.names)
    twice = preferences.select([*range(4), *range(4)])
    once, both = (align_sample(run, p) for p in (preferences.select(range(4)), twice))
    assert both.counts.shape == once.counts.shape
    assert (both.counts == 2 * once.counts).all()
    point = np.array([[0.5, 0.5, 1.0, 0.1, 0.1]])
    assert both.measure(point) == pytest.approx(2 * once.measure(point), rel=1e-5)


def test_a_point_is_chosen_from_the_command_line(place, run_path, tmp_path, command):
    required = ["--require", "low<=1.5", "--require", "accuracy:low>=0.1", "--minimize", "high"]
    options = ["--points", 3, "--split", "all", "--cpu", "--out", tmp_path / "p.json"]
    done = command("choose", run_path, place / "data.jsonl", *required, *options)
    assert done.code == 0, done.err
    point = read(tmp_path / "p.json")
    assert point["goal"] == {"metric": "high", "direction": "minimize"}
    assert point["met"]
    assert point["metrics"]["low"]["value"] <= 1.5
    assert point["chosen_on"]["groups"] == 20
    assert point["command"].startswith(f"hyperdpo align generate {run_path} --weights")
    assert point["command"] in done.out


def test_without_validation_prompts_the_test_prompts_serve(place, run_path):
    choice = hyperdpo.choose(
        run_path, place / "data.jsonl", maximize="accuracy:high", points=2, scales=[1.0], cpu=True, resamples=200
    )
    assert choice.chosen_on["groups"] == 4
    assert "test prompts" in choice.chosen_on["description"]
    run = AlignRun.load(run_path)
    given = read_preferences(place / "data.jsonl", objectives=run.names)
    again = hyperdpo.choose(
        run, given, ["low<=0.1"], maximize="accuracy:high", holdout=0.5, split="all", points=2, scales=[1.0], cpu=True
    )
    assert not again.met
    assert again.reported_on["groups"] == 10
    assert again.details["command"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--maximize", "low"], ["low", "smaller values are better", "minimize"]),
        (["--minimize", "accuracy:low"], ["accuracy:low", "maximize"]),
        (["--minimize", "main"], ["no metric 'main'", "accuracy:low"]),
        (["--minimize", "low", "--base-scores", "x"], ["base_scores"]),
        (["--minimize", "low", "--holdout", "validation"], ["held out as validation"]),
    ],
)
def test_mistakes_get_one_line(place, run_path, command, arguments, words):
    done = command("choose", run_path, place / "data.jsonl", *arguments, "--cpu")
    assert done.refused(*words), (done.code, done.err)

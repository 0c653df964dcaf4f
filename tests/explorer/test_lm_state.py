"""What a language model's page shows, against the package's other ways to the same figures and texts."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from helpers import is_one_line

from hyperdpo.alignment.data.groups import PreferenceGroup, Preferences
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.run import AlignRun
from hyperdpo.core.point import Point
from hyperdpo.errors import InputError
from hyperdpo.explorer.lm_state import AlignExplorer, example_prompts

BETAS = (0.1, 0.1)


@pytest.fixture(scope="module")
def explorer(language) -> AlignExplorer:
    path, data = language
    run = AlignRun.load(path)
    return AlignExplorer(run, path, read_preferences(data, objectives=run.names), "all")


@pytest.mark.parametrize("sample", [False, True])
def test_answers_of_one_batch_are_streamed_and_equal_those_one_by_one(explorer, sample):
    points = [Point((1.0, 0.0), 1.0, BETAS), Point((0.2, 0.8), 1.0, BETAS), Point((0.5, 0.5), 3.0, BETAS)]
    steps: list[list[str]] = []
    settings = {"max_new_tokens": 12, "do_sample": sample}
    found = explorer.answers("w5 w7 w9", points, steps.append, threading.Event(), seed=3, **settings)
    assert len(steps) >= 6
    assert steps[-1] == found
    for early, late in pairwise(steps):
        assert all(b.startswith(a) for a, b in zip(early, late, strict=True))
    assert len(set(found)) > 1
    if not sample:
        for point, text in zip(points, found, strict=True):
            (alone,) = explorer.run.generate(["w5 w7 w9"], np.array(point.weights), point.scale, **settings)
            assert text == alone


def test_answers_can_be_stopped(explorer):
    stop, steps = threading.Event(), []

    def tell(texts: list[str]) -> None:
        steps.append(texts)
        stop.set()

    explorer.answers("w5 w7", explorer.starts(2), tell, stop, max_new_tokens=40, do_sample=False, eos_token_id=None)
    assert 1 <= len(steps) < 6  # a token or two, and the end
    assert all(len(text.split()) < 10 for text in steps[-1]), "far fewer than the 40 tokens asked for"


def test_an_empty_prompt_is_refused(explorer):
    with pytest.raises(InputError) as error:
        explorer.answers(" ", explorer.starts(1), print, threading.Event())
    assert is_one_line(error.value, "prompt", "empty")


def test_metrics_are_those_of_the_front_of_the_run(explorer, language):
    preferences = read_preferences(language[1], objectives=explorer.objectives)
    front = explorer.run.front(preferences, np.array([[0.3, 0.7]]), (1.0, 3.0))
    value, curve = explorer.here(Point((0.3, 0.7), 3.0, BETAS))
    assert value == pytest.approx([*front.losses[1], *front.accuracies[1]], abs=1e-6)
    assert curve[0] == pytest.approx([*front.losses[0], *front.accuracies[0]], abs=1e-6)
    assert curve[-1] == pytest.approx([*front.base_losses, 0.5, 0.5])
    whole = explorer.front()
    assert len(whole.points) == 11
    assert whole.values.shape == (11, 4)
    assert whole.values[3] == pytest.approx(explorer.here(whole.points[3])[0], abs=1e-6)
    assert whole.base == pytest.approx(curve[-1])
    assert explorer.metrics == ("low", "high", "accuracy:low", "accuracy:high")


def test_without_data_there_is_nothing_to_measure(language):
    explorer = AlignExplorer(AlignRun.load(language[0]), language[0], None)
    assert explorer.prompts == []
    with pytest.raises(InputError):
        explorer.front()


def test_columns_start_where_answers_differ(explorer):
    assert [p.weights for p in explorer.starts(3)] == [(1, 0), (0, 1), (0.5, 0.5)]


def test_examples_are_the_prompts_of_the_data_each_once():
    def group(prompt):
        return PreferenceGroup(prompt, ("x", "y"), {"a": (0.0, 1.0)})

    turns = [{"role": "user", "content": "hello"}]
    longer = [*turns, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "bye"}]
    groups = tuple(map(group, ("one", "two", "one", turns, longer)))
    assert example_prompts(Preferences(groups, ("a",), "memory")) == ["one", "two", "hello"]

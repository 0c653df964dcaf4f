"""Preferences sampled from a language model itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import is_one_line

from hyperdpo.errors import InputError
from hyperdpo.scorers.text_measures import measure
from hyperdpo.stories.language_model import train_demo_lm
from hyperdpo.stories.preferences import (
    DEFAULT_OBJECTIVES,
    sample_preferences,
    sample_prompts,
    sample_responses,
)

transformers = pytest.importorskip("transformers")

STORIES = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[3] / "shared" / "data").parent / "models"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A model that has seen a little, and its tokenizer."""
    path = train_demo_lm(tmp_path_factory.mktemp("demo") / "lm", steps=25, stories=60)
    return (
        transformers.AutoModelForCausalLM.from_pretrained(path),
        transformers.AutoTokenizer.from_pretrained(path),
    )


@pytest.fixture(scope="module")
def stories260k():
    path = STORIES / "stories260k"
    if not path.is_dir():
        pytest.skip(f"{path} is absent; HYPERDPO_DATA names another place (models/ lies beside it)")
    return (
        transformers.AutoModelForCausalLM.from_pretrained(path),
        transformers.AutoTokenizer.from_pretrained(path),
    )


def sampled(pair, **settings):
    model, tokenizer = pair
    return sample_preferences(
        model, tokenizer, **{"prompts": 6, "prompt_tokens": 12, "response_tokens": 10, "batch_size": 8, **settings}
    )


def test_groups_hold_different_responses_and_their_measures(demo):
    found = sampled(demo, responses=3, objectives=("dialogue", "word_count"), seed=4)
    assert len(found) == 6
    assert found.objectives == ("dialogue", "word_count")
    assert len({group.prompt for group in found.groups}) == 6
    for group in found.groups:
        assert len(set(group.completions)) == 3
        for name in found.objectives:
            assert group.labels[name] == tuple(map(measure(name), group.completions))


def test_prompt_and_response_are_tokenized_apart_as_together(demo):
    tokenizer = demo[1]
    for group in sampled(demo).groups:
        prompt = tokenizer(group.prompt)["input_ids"]
        for text in group.completions:
            assert tokenizer(group.prompt + text)["input_ids"][: len(prompt)] == prompt
            assert text == text.rstrip()
            assert not (group.prompt[-1].isalnum() and text[0].isalnum())
            assert "\ufffd" not in group.prompt + text  # the model samples broken bytes now and then


def test_the_seed_decides_and_the_caller_s_generator_and_mode_stay(demo):
    model = demo[0].train()
    before = torch.get_rng_state()
    first = sampled(demo, seed=1)
    torch.manual_seed(99)
    assert sampled(demo, seed=1) == first
    assert sampled(demo, seed=2).groups != first.groups
    torch.set_rng_state(before)
    sampled(demo, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    model.eval()


def test_prompts_begin_a_text(demo):
    """A prompt is what the tokenizer makes of it: BOS, then whole words."""
    model, tokenizer = demo
    for prompt in sample_prompts(model, tokenizer, 5, tokens=10, seed=0):
        ids = tokenizer(prompt)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert prompt == prompt.strip() != ""


def test_a_model_that_repeats_itself_is_told_so(demo, monkeypatch):
    """Every response to one prompt is the same: there are no two different ones."""
    model, tokenizer = demo
    full_stop = tokenizer(".", add_special_tokens=False)["input_ids"][-1:]
    monkeypatch.setattr(
        "hyperdpo.alignment.answers.decoded", lambda model, prompts, owner, *_: [full_stop] * len(owner)
    )
    with pytest.raises(InputError) as error:
        sample_responses(model, tokenizer, ["One day, a"], responses=2, tokens=4, progress=False)
    assert is_one_line(error.value, "prompt 1 ('One day, a')", "1 different responses", "expected 2")


def test_responses_do_not_depend_on_other_prompts(demo):
    model, tokenizer = demo
    prompts = ["One day, a", "The", "Once upon a time there was"]
    found = sample_responses(model, tokenizer, prompts, responses=2, tokens=8, seed=3, progress=False)
    alone = [
        sample_responses(model, tokenizer, [p], responses=2, tokens=8, seed=3, batch_size=2, progress=False)[0]
        for p in prompts
    ]
    assert alone == found
    assert sample_responses(model, tokenizer, [], responses=2) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompts": 0}, ["prompts is 0", "at least 1"]),
        ({"responses": 1}, ["responses is 1", "at least 2"]),
        ({"batch_size": 3}, ["batch_size is 3", "at least 4"]),
        ({"response_tokens": 500}, ["prompt 1", "500 for the response", "at most 160"]),
        ({"prompt_tokens": 500}, ["prompt_tokens is 500", "160"]),
        ({"objectives": ("rudeness",)}, ["'rudeness'", "positive_words"]),
        (
            {"prompt_tokens": 1, "prompts": 60, "batch_size": 60},
            ["prompts", "different beginnings of 1 tokens", "longer"],
        ),
        ({"seed": -1}, ["seed -1"]),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(demo, settings, words):
    with pytest.raises(InputError) as error:
        sampled(demo, **settings)
    assert is_one_line(error.value, *words)


def test_default_objectives_tell_the_responses_of_a_real_model_apart(stories260k):
    found = sampled(stories260k, prompts=40, prompt_tokens=24, response_tokens=48, batch_size=160)
    assert found.objectives == DEFAULT_OBJECTIVES
    labels = np.array([[group.labels[name] for name in DEFAULT_OBJECTIVES] for group in found.groups])  # (G, 2, 4)
    assert ((np.ptp(labels, axis=2) == 0).mean(0) < 0.2).all(), "few groups in which all responses tie"
    centred = labels - labels.mean(2, keepdims=True)
    assert abs(np.corrcoef(centred[:, 0].ravel(), centred[:, 1].ravel())[0, 1]) < 0.4

"""The generated corpus and the language model that is trained on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import is_one_line, same_tensors

from hyperdpo.errors import InputError
from hyperdpo.scorers.text_measures import MEASURES, measure_texts
from hyperdpo.stories.language_model import CONTEXT, build_tokenizer, demo_corpus, train_demo_lm

transformers = pytest.importorskip("transformers")


def loaded(path: Path):
    return (
        transformers.AutoModelForCausalLM.from_pretrained(path),
        transformers.AutoTokenizer.from_pretrained(path),
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return train_demo_lm(tmp_path_factory.mktemp("demo") / "lm", steps=2, stories=60)


def test_the_corpus_is_seeded_and_grows_at_its_end():
    stories = demo_corpus(20, seed=1)
    assert demo_corpus(8, seed=1) == stories[:8]
    assert demo_corpus(8, seed=2) != stories[:8]
    assert len(set(stories)) == 20
    assert not any(mark in story for story in stories for mark in "{}")


def test_stories_vary_in_every_measure_and_the_default_objectives_do_not_go_together():
    values = measure_texts(demo_corpus(200), list(MEASURES))
    for name, found in values.items():
        assert np.std(found) > 0.02 * np.mean(found), name
    both = np.corrcoef(values["positive_words"], values["sentence_length"])[0, 1]
    assert abs(both) < 0.4


def test_the_tokenizer_gives_every_story_back():
    stories = demo_corpus(50)
    tokenizer = build_tokenizer(stories)
    ids = [tokenizer(story)["input_ids"] for story in stories]
    assert all(row[0] == tokenizer.bos_token_id for row in ids)
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == stories
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


def test_the_checkpoint_loads_and_generates(tiny):
    model, tokenizer = loaded(tiny)
    assert isinstance(model, transformers.GPT2LMHeadModel)
    assert 200_000 <= model.num_parameters() <= 400_000
    text = "Once upon a time, there was"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] <= inputs["input_ids"].shape[1] + 3
    assert model.config.max_position_embeddings == CONTEXT


def test_the_same_seed_gives_the_same_model_and_leaves_the_generator_alone(tiny, tmp_path):
    before = torch.get_rng_state()
    again = train_demo_lm(tmp_path / "again", steps=2, stories=60)
    other = train_demo_lm(tmp_path / "other", seed=1, steps=2, stories=60)
    assert torch.equal(before, torch.get_rng_state())
    states = [loaded(path)[0].state_dict() for path in (tiny, again, other)]
    assert same_tensors(states[0], states[1])
    assert not same_tensors(states[0], states[2])


def test_training_learns(tmp_path):
    model, tokenizer = loaded(train_demo_lm(tmp_path / "lm", steps=25, stories=60))
    story = torch.tensor([tokenizer(demo_corpus(1, seed=9)[0])["input_ids"][:CONTEXT]])
    with torch.no_grad():
        loss = model(input_ids=story, labels=story).loss.item()
    assert loss < 0.75 * np.log(len(tokenizer))


def test_an_earlier_demo_model_is_replaced_and_nothing_else_is(tmp_path):
    out = train_demo_lm(tmp_path / "lm", steps=1, stories=10)
    (out / "left.txt").write_text("from before")
    train_demo_lm(out, steps=1, stories=10)
    assert not (out / "left.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["lm"]

    foreign = tmp_path / "gpt2"
    foreign.mkdir()
    (foreign / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    file = tmp_path / "file"
    file.write_text("")
    for path in (foreign, file):
        with pytest.raises(InputError) as error:
            train_demo_lm(path, steps=1, stories=10)
        assert is_one_line(error.value, str(path), "does not hold a demo model")
    assert (foreign / "config.json").exists()


def test_numbers_out_of_range_are_refused(tmp_path):
    with pytest.raises(InputError, match="steps is 0"):
        train_demo_lm(tmp_path / "lm", steps=0)
    with pytest.raises(InputError, match="stories is 0"):
        train_demo_lm(tmp_path / "lm", stories=0)
    assert not list(tmp_path.iterdir())

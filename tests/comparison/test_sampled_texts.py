"""Texts of a comparison: who samples what, how far it is from the base, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import raise_at
from tiny_models import attentions, tiny_base
from toy_preferences import rows, words_tokenizer

from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import fit_objectives
from hyperdpo.comparison.align import AlignTrainings, Settings
from hyperdpo.comparison.align_measures import AlignMeasurements, compare
from hyperdpo.comparison.entries import ALIGN_VARIANTS, Entry, parse_entry
from hyperdpo.comparison.repeats import AlignRepeat
from hyperdpo.comparison.sampled_texts import Sampled, TextMeasurements, Texts
from hyperdpo.core.preferences import weight_grid
from hyperdpo.objectives import Objective

GRID = weight_grid(2, 3)
TRAINING = {"per_device_train_batch_size": 4, "num_train_epochs": 1, "learning_rate": 1e-1}
CONDITIONING = {"prompt_tokens": 2, "prompt_hidden": 4, "gate_hidden": 4, "lora_rank": 2}


def entry(text: str) -> Entry:
    return parse_entry(text, ALIGN_VARIANTS)


def low_and_high(prompts: Any, texts: Any) -> np.ndarray:
    """Words with a low number, and those with a high one."""
    numbers = [[int(word[1:]) for word in text.split() if word[1:].isdigit()] for text in texts]
    return np.array([[sum(n < 26 for n in one), sum(n >= 26 for n in one)] for one in numbers], dtype=float)


def trainings(directory: Path, **training: Any) -> AlignTrainings:
    train, test = read_preferences(rows(12)), read_preferences(rows(6, seed=1))
    objectives = fit_objectives(train, [Objective(name=name, beta=0.1) for name in ("low", "high")])
    settings = Settings("toy", objectives, {**TRAINING, **training}, CONDITIONING, 1.0, 1.0, 0)
    repeat = AlignRepeat("seed-0", 0, train, test)
    return AlignTrainings(settings, tiny_base(), words_tokenizer(), repeat, directory, cpu=True, show=False)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> AlignTrainings:
    return trainings(tmp_path_factory.mktemp("texts"))


def texts(scorer: Any = low_and_high, samples: int = 3) -> Texts:
    return Texts(scorer, "toy", prompts=4, samples=samples, tokens=6)


@pytest.fixture(scope="module")
def own(bench: AlignTrainings) -> TextMeasurements:
    return TextMeasurements(bench, GRID, texts())


METHODS = ("hyperdpo", "hyperdpo:portable", "dpo-ls", "dpo-soup", "dpo-soup:portable", "logit-mixing")


@pytest.mark.parametrize("method", METHODS)
def test_log_probabilities_are_those_of_the_sampled_tokens(
    method: str, bench: AlignTrainings, own: TextMeasurements
) -> None:
    """Token by token, from the logits that one pass over the prompt and the text so far gives."""
    w = np.array([0.5, 0.5])
    speaker = bench.speaker(entry(method), w)
    found = own.sampled(speaker)
    assert found.logps.shape == found.base_logps.shape == (4, 3)
    for prompt, group in enumerate(own.groups[:2]):
        ids = found.ids[prompt * 3]
        for which, expected in (
            (speaker, found.logps[prompt, 0]),
            (bench.base_speaker(), found.base_logps[prompt, 0]),
        ):
            total = 0.0
            for place, token in enumerate(ids):
                before = torch.tensor([group.prompt_ids + ids[:place]])
                with torch.no_grad():
                    out = which.forward(input_ids=before, attention_mask=torch.ones_like(before), use_cache=True)
                total += float(out.logits[0, -1].float().log_softmax(-1)[token])
            assert total == pytest.approx(float(expected), abs=1e-3)


def test_trainings_have_an_attention_of_their_own_and_measures_the_models(tmp_path: Path) -> None:
    plain = trainings(tmp_path / "plain")
    settings = replace(plain.settings, training_attention="eager")
    with attentions() as used:
        own = AlignTrainings(
            settings, tiny_base(), words_tokenizer(), plain.repeat, tmp_path / "own", cpu=True, show=False
        )
        speaker = own.speaker(entry("hyperdpo"), np.array([0.5, 0.5]))
    assert used == {True: {"eager"}, False: {"eager", "sdpa"}}
    with attentions() as used:
        own.scores(speaker)
        TextMeasurements(own, GRID, texts()).sampled(speaker)
    assert used == {True: set(), False: {"sdpa"}}


def test_texts_are_counted_as_they_are_written(bench: AlignTrainings, own: TextMeasurements) -> None:
    counted: list[int] = []
    own._sample(bench.base_speaker(), counted.append)
    assert counted[-1] == 12
    assert counted == sorted(counted)


def test_random_numbers_belong_to_a_prompt_and_a_text_of_it(bench: AlignTrainings, own: TextMeasurements) -> None:
    """Fewer texts of each prompt are the first of them: neither depends on what else is sampled."""
    fewer = TextMeasurements(bench, GRID, texts(samples=2)).sampled(bench.base_speaker())
    all_of = own.sampled(bench.base_speaker())
    assert [fewer.ids[2 * i : 2 * i + 2] for i in range(4)] == [all_of.ids[3 * i : 3 * i + 2] for i in range(4)]
    assert len({tuple(ids) for ids in all_of.ids}) > 6


def test_the_base_is_no_distance_from_itself_and_a_trained_model_is_some(
    bench: AlignTrainings, own: TextMeasurements
) -> None:
    same = own.sampled(bench.base_speaker())
    assert np.array_equal(same.logps, same.base_logps)
    other = own.sampled(bench.speaker(entry("dpo-ls"), np.array([1.0, 0.0])))
    assert (other.logps - other.base_logps).mean() > 0.01


def test_at_a_vertex_experts_speak_for_soups_and_mixtures(bench: AlignTrainings) -> None:
    w = np.array([0.0, 1.0])
    told = [bench.speaker(entry(method), w).told for method in ("dpo-ls", "dpo-soup", "logit-mixing", "mo-dpo")]
    assert told[0] == told[1] == told[2] == told[3]
    assert bench.speaker(entry("dpo-soup:portable"), w).told != told[0]
    middle = [bench.speaker(entry(m), np.array([0.5, 0.5])).told for m in ("dpo-ls", "dpo-soup", "logit-mixing")]
    assert middle[0] != middle[1] != middle[2] != middle[0]


def test_soups_that_are_served_as_the_portable_dial_have_experts_of_its_rank_without_virtual_tokens(
    bench: AlignTrainings,
) -> None:
    expert = bench.speaker(entry("dpo-soup:portable"), np.array([1.0, 0.0])).told["trainings"]
    (one,) = [t.model for t in bench.all_trained(entry("dpo-soup:portable"), GRID) if t.name == expert[0]]
    portable = bench.all_trained(entry("hyperdpo:portable"), GRID)[0].model
    assert one.conditioning.prompt_tokens == portable.conditioning.prompt_tokens == 0
    assert one.conditioning.rank == portable.conditioning.rank == 4  # the comparison's own, for each objective
    scale = one.conditioning.lora_alpha / one.conditioning.lora_rank
    assert scale == portable.conditioning.lora_alpha / portable.conditioning.lora_rank


def test_another_scorer_needs_no_other_sample(
    bench: AlignTrainings, own: TextMeasurements, monkeypatch: pytest.MonkeyPatch
) -> None:
    speakers = [bench.speaker(entry("dpo-ls"), w) for w in GRID]
    first = own.measured(speakers, own.base())
    raise_at(monkeypatch, transformers.LlamaModel, "forward", 1)
    other = TextMeasurements(bench, GRID, texts(lambda prompts, found: 10 * low_and_high(prompts, found)))
    second = other.measured(speakers, other.base())
    assert second["inner_product"] == pytest.approx(first["inner_product"])  # in standard deviations
    assert second["control_span"]["low"] == pytest.approx(10 * first["control_span"]["low"])
    assert (second["kl"], second["tokens"]) == (first["kl"], first["tokens"])


def test_scorers_see_the_last_turn_of_the_user_not_the_template_around_it(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "w3"}, {"role": "user", "content": "w4 w5"}]
    asked = [[*turns, {"role": "user", "content": f"w{6 + i}"}] for i in range(6)]
    of_turns = read_preferences([{**row, "prompt": one} for row, one in zip(rows(6), asked, strict=True)])
    tokenizer = words_tokenizer()
    tokenizer.chat_template = "{% for turn in messages %}w9 {{ turn['content'] }} {% endfor %}"
    seen: list[str] = []

    def score(prompts: Any, found: Any) -> np.ndarray:
        seen.extend(prompts)
        return np.zeros((len(found), 2))

    objectives = fit_objectives(of_turns, [Objective(name=name, beta=0.1) for name in ("low", "high")])
    settings = Settings("toy", objectives, TRAINING, CONDITIONING, 1.0, 1.0, 0)
    repeat = AlignRepeat("seed-0", 0, of_turns, of_turns)
    chat = AlignTrainings(settings, tiny_base(), tokenizer, repeat, tmp_path, cpu=True, show=False)
    TextMeasurements(chat, GRID, texts(score, samples=2)).base()
    assert len(chat.test_groups[0].prompt_ids) > 6, "the model sees the whole conversation"
    assert seen == [f"w{6 + i}" for i in range(4) for _ in range(2)]


def test_measures_are_those_of_the_scores(bench: AlignTrainings, own: TextMeasurements) -> None:
    speakers = [bench.speaker(entry("hyperdpo"), w) for w in GRID]
    base, found = own.base(), own.measured(speakers, own.base())
    samples: list[Sampled] = [own.sampled(speaker) for speaker in speakers]
    scores = np.stack([own.scores(one) for one in samples])  # (3, 4, 3, 2)
    of_base = own.scores(own.sampled(bench.base_speaker())).reshape(-1, 2)
    rewards = (scores.mean((1, 2)) - of_base.mean(0)) / of_base.std(0)
    assert found["inner_product"] == pytest.approx((GRID * rewards).sum(1).mean())
    assert [point["low"] for point in found["points"]] == pytest.approx(scores.mean((1, 2))[:, 0].tolist())
    assert found["tokens"] == [pytest.approx(np.mean([len(ids) for ids in one.ids])) for one in samples]
    assert base["generated"]["high"] == pytest.approx(of_base[:, 1].mean())
    kept = own.per_prompt(found, base)
    assert kept.values.shape == (3, 4, 2)
    assert kept.values.mean(1) == pytest.approx(scores.mean((1, 2)))


def test_base_texts_that_all_score_alike_have_no_inner_product(bench: AlignTrainings) -> None:
    alike = TextMeasurements(bench, GRID, texts(lambda prompts, found: np.ones((len(found), 2))))
    speakers = [bench.speaker(entry("dpo-ls"), w) for w in GRID]
    assert alike.measured(speakers, alike.base())["inner_product"] is None


def test_entries_on_fewer_repeats_and_ratios_on_those_that_both_have(tmp_path: Path) -> None:
    train, test = read_preferences(rows(12)), read_preferences(rows(6, seed=1))
    objectives = fit_objectives(train, [Objective(name=name, beta=0.1) for name in ("low", "high")])
    result = compare(
        lambda repeat: Settings("toy", objectives, TRAINING, CONDITIONING, 1.0, 1.0, repeat.seed),
        [AlignRepeat(f"seed-{seed}", seed, train, test) for seed in (0, 1)],
        [entry("dpo-ls"), entry("hyperdpo"), Entry("once", "hyperdpo", repeats=1)],
        tiny_base(),
        words_tokenizer(),
        tmp_path,
        points=3,
        texts=texts(),
        cpu=True,
        show=False,
    )
    assert [len(one["seeds"]) for one in result["methods"].values()] == [2, 2, 1]
    pairs = {(one["of"], one["to"]): one for one in result["ratios"]}
    assert (pairs["hyperdpo", "dpo-ls"]["repeats"], pairs["once", "dpo-ls"]["repeats"]) == (2, 1)
    (first, _) = result["methods"]["hyperdpo"]["seeds"]
    (other, _) = result["methods"]["dpo-ls"]["seeds"]
    ratio = pairs["once", "dpo-ls"]["hypervolume"]
    assert ratio["value"] == pytest.approx(first["hypervolume"] / other["hypervolume"])
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    for one in result["methods"].values():
        assert all("prompts" not in seed and "prompts" not in seed["generated"] for seed in one["seeds"])
        assert one["step_seconds"] == pytest.approx(
            np.mean([seed["train_seconds"] / seed["steps"] for seed in one["seeds"]])
        )
        assert one["steps"] == (9 if one["method"] == "dpo-ls" else 3)
        assert one["step_processor_seconds"] > 0


def test_measures_in_the_precision_of_the_training(tmp_path: Path) -> None:
    exact = trainings(tmp_path, bf16=True)
    settings = replace(exact.settings, training_precision=True)
    half = AlignTrainings(
        settings, tiny_base(), words_tokenizer(), exact.repeat, tmp_path / "half", cpu=True, show=False
    )
    assert half.fingerprint != exact.fingerprint
    difference = np.abs(np.concatenate(half.test_base) - np.concatenate(exact.test_base))
    assert 1e-3 < difference.max() < 1
    w = np.array([1.0, 0.0])
    assert half.speaker(entry("dpo-ls"), w).told == exact.speaker(entry("dpo-ls"), w).told, "the same trainings"
    losses = []
    for one in (exact, half):
        front = AlignMeasurements(one, GRID, None).measured(entry("dpo-ls"))
        losses.append([point["metrics"]["low"] for point in front["points"]])
    np.testing.assert_allclose(losses[1], losses[0], atol=0.02)

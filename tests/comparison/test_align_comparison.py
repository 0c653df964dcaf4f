"""Methods side by side: each training once, margins, soups, what is measured, and going on after a stop."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import Killed, is_one_line, raise_at, read
from tiny_models import tiny_base
from toy_preferences import rows, words_tokenizer

from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import fit_objectives
from hyperdpo.alignment.evaluation import base_scores, row_logps
from hyperdpo.comparison.align import AlignTrainings, Settings
from hyperdpo.comparison.align_measures import AlignMeasurements, Texts, compare
from hyperdpo.comparison.entries import ALIGN_VARIANTS, Entry
from hyperdpo.comparison.entries import parse_entry as parse
from hyperdpo.comparison.methods import Conditioned, Fixed, Margin
from hyperdpo.comparison.repeats import AlignRepeat
from hyperdpo.core.losses import listnet_dpo_loss
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.objectives import Objective
from hyperdpo.scorers.registry import scorer_of


def parse_entry(text: str) -> Entry:
    return parse(text, ALIGN_VARIANTS)


TRAINING = {"per_device_train_batch_size": 4, "num_train_epochs": 1, "learning_rate": 1e-2}
CONDITIONING = {"prompt_tokens": 2, "prompt_hidden": 4, "gate_hidden": 4, "lora_rank": 2}
ALL = ("hyperdpo", "dpo-ls", "dpo-soup", "mo-dpo", "logit-mixing")


def share_of_low_words(prompts: Any, texts: Any) -> np.ndarray:
    """The toy's two objectives."""
    low = [np.mean([int(w[1:]) < 26 for w in t.split() if w[1:].isdigit()] or [0.5]) for t in texts]
    return np.stack([low, 1 - np.array(low)], 1)


def settings_of(train: Any, seed: int = 0, **training: Any) -> Settings:
    objectives = fit_objectives(train, [Objective(name=name, beta=0.1) for name in ("low", "high")])
    return Settings("toy", objectives, {**TRAINING, **training}, CONDITIONING, 2.0, 1.5, seed)


def bench_of(directory, **training: Any) -> AlignTrainings:
    return trainings_of(settings_of(read_preferences(rows(12)), **training), directory)


def trainings_of(settings: Settings, directory) -> AlignTrainings:
    repeat = AlignRepeat("seed-0", 0, read_preferences(rows(12)), read_preferences(rows(6, seed=1)))
    return AlignTrainings(settings, tiny_base(), words_tokenizer(), repeat, directory, cpu=True, show=False)


def names_of(bench: AlignTrainings, method: str) -> tuple[str, ...]:
    """The trainings that a method rests on."""
    return tuple(one.name for one in bench.all_trained(parse_entry(method), weight_grid(2, 3)))


def compared(out, methods=ALL, seeds=1, scorer=share_of_low_words, **options: Any) -> dict[str, Any]:
    train, test = read_preferences(rows(12)), read_preferences(rows(6, seed=1))
    texts = Texts(scorer, "toy", prompts=3, samples=2, tokens=4)
    repeats = [AlignRepeat(f"seed-{s}", s, train, test) for s in range(seeds)]
    entries = [parse_entry(method) for method in methods]
    return compare(
        lambda repeat: settings_of(repeat.train, repeat.seed),
        repeats,
        entries,
        tiny_base(),
        words_tokenizer(),
        out,
        points=3,
        texts=texts,
        cpu=True,
        show=False,
        **options,
    )


def test_every_method_is_measured_in_the_same_places(tmp_path):
    result = compared(tmp_path, seeds=2)
    assert list(result["methods"]) == list(ALL)
    assert {name: one["models"] for name, one in result["methods"].items()} == {
        "hyperdpo": 1,
        "dpo-ls": 3,
        "dpo-soup": 2,
        "mo-dpo": 3,
        "logit-mixing": 2,
    }
    weights = weight_grid(2, 3).tolist()
    for name, one in result["methods"].items():
        assert [point["weights"] for point in one["points"]] == weights
        assert len(one["generated"]["points"]) == 3
        scaled = one["views"]["scales"]
        assert [point["scale"] for point in scaled["points"]] == [0.5] * 3 + [1.0] * 3 + [2.0] * 3
        assert [p["metrics"] for p in scaled["points"][3:6]] == [p["metrics"] for p in one["points"]]
        assert scaled["hypervolume"] >= one["hypervolume"]
        assert one["epochs"] == (2 if name == "hyperdpo" else 1)
        assert one["hypervolume"] == pytest.approx(np.mean([seed["hypervolume"] for seed in one["seeds"]]))
        assert np.isfinite(one["train_seconds"])
    # Experts are trained once, for all who need them.
    ends = [result["methods"][name]["points"] for name in ("dpo-ls", "dpo-soup", "mo-dpo", "logit-mixing")]
    for points in ends[1:]:
        for end in (0, -1):
            assert points[end]["metrics"] == pytest.approx(ends[0][end]["metrics"], abs=1e-5)
    json.dumps(result, allow_nan=False)


def test_what_is_finished_is_neither_trained_nor_measured_again(tmp_path, monkeypatch):
    first = compared(tmp_path)
    raise_at(monkeypatch, transformers.LlamaModel, "forward", 1)
    assert compared(tmp_path) == first
    assert first["methods"]["hyperdpo"]["hypervolume_sd"] is None  # of one repeat


def test_another_rate_of_conditioned_models_leaves_what_was_measured_of_the_others(tmp_path):
    first = bench_of(tmp_path)
    second = trainings_of(replace(first.settings, learning_rate_factor=9.0), tmp_path)
    assert second.fingerprint == first.fingerprint
    one, two = (names_of(bench, "dpo-ls") for bench in (first, second))
    assert one == two
    one, two = (names_of(bench, "hyperdpo") for bench in (first, second))
    assert one != two


def test_a_comparison_that_was_killed_goes_on_to_the_same_result(tmp_path, monkeypatch):
    whole = compared(tmp_path / "whole", ["hyperdpo", "mo-dpo"])
    for step in (5, 9):  # in the middle of a training's second epoch, and of a later training
        with monkeypatch.context() as patch:
            raise_at(patch, transformers.Trainer, "training_step", step)
            with pytest.raises(Killed):
                compared(tmp_path / "cut", ["hyperdpo", "mo-dpo"])
    parts = compared(tmp_path / "cut", ["hyperdpo", "mo-dpo"])
    for name, one in whole["methods"].items():
        other = parts["methods"][name]
        assert other["hypervolume"] == pytest.approx(one["hypervolume"], rel=1e-6)
        assert other["generated"]["points"] == one["generated"]["points"]
    assert not list((tmp_path / "cut").rglob("*.partial"))


def test_in_half_precision_trainings_compare_themselves_with_the_base_in_half_precision(tmp_path):
    exact, half = bench_of(tmp_path / "exact"), bench_of(tmp_path / "half", bf16=True)
    difference = np.abs(np.concatenate(half.train_base) - np.concatenate(exact.train_base))
    assert 1e-3 < difference.max() < 1
    np.testing.assert_allclose(np.concatenate(half.test_base), np.concatenate(exact.test_base), atol=1e-5)


def test_ld_alpha_is_in_the_base_scores_of_trainings_and_of_margins_and_not_in_measurements(tmp_path, monkeypatch):
    bench = bench_of(tmp_path, ld_alpha=0.2)
    parts = ((bench.train_groups, bench.train_base, 0.2), (bench.test_groups, bench.test_base, None))
    for groups, found, alpha in parts:
        expected = base_scores(bench.probe, groups, bench.pad, "cpu", alpha)
        np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), rtol=1e-6)
    plain = base_scores(bench.probe, bench.train_groups, bench.pad)
    assert np.abs(np.concatenate(bench.train_base) - np.concatenate(plain)).max() > 0.1
    seen: list[float | None] = []
    real = row_logps
    monkeypatch.setattr(
        "hyperdpo.comparison.align.row_logps",
        lambda *args, ld_alpha=None: (seen.append(ld_alpha), real(*args, ld_alpha=ld_alpha))[1],
    )
    experts = (Fixed((1.0, 0.0)), Fixed((0.0, 1.0)))
    bench.base_with_margin(Margin((0.5, 0.5), 0, experts), parse_entry("mo-dpo"))
    assert set(seen) == {0.2}


@pytest.mark.parametrize("w", [(0.3, 0.7), (0.2, 0.5, 0.3)])
def test_the_margin_is_equation_18(tmp_path, w):
    """β_i r_i minus what the other experts' rewards are worth, written out; of two and of three objectives."""
    m, i = len(w), 1
    names = ("low", "high", "many")[:m]
    data = rows(12)
    for row in data:
        row["labels"]["many"] = [float(len(text.split())) for text in row["completions"]]
    train = read_preferences(data, objectives=names)
    objectives = fit_objectives(train, [Objective(name=name, beta=0.1) for name in names])
    settings = Settings("toy", objectives, TRAINING, CONDITIONING, 2.0, 1.5, 0)
    bench = AlignTrainings(
        settings, tiny_base(), words_tokenizer(), AlignRepeat("seed-0", 0, train, train), tmp_path, cpu=True, show=False
    )
    experts = tuple(Fixed(tuple(row)) for row in np.eye(m).tolist())
    entry = parse_entry("mo-dpo")
    margins = bench.base_with_margin(Margin(w, i, experts), entry)
    from hyperdpo.alignment.collation import Collator

    group = bench.train_groups[2]
    batch = Collator(bench.pad)([group])
    with torch.no_grad():
        own, base, beta = torch.randn(len(group.completion_ids)), torch.as_tensor(bench.train_base[2]), 0.1
        # (18): (beta / w_i) (r_i - sum_j w_j r_j), with r = s - s_base, in a listwise cross entropy
        logits = beta / w[i] * (own - base)
        for j in range(m):
            if j != i:
                scores = row_logps(bench.trained(experts[j], entry).model, batch)
                logits = logits - beta / w[i] * w[j] * (scores - base)
        target = torch.as_tensor(group.targets[i])
        expected = -(target * logits.log_softmax(-1)).sum()
    found = listnet_dpo_loss(
        own[None],
        torch.as_tensor(margins[2])[None],
        target[None, None],
        torch.ones(1, len(own), dtype=bool),
        [beta / w[i]],
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_spans_ranks_and_the_hypervolume_of_texts_are_those_of_the_points(tmp_path):
    result = compared(tmp_path, ["hyperdpo", "dpo-ls"])
    for one in result["methods"].values():
        (seed,) = one["seeds"]
        texts = seed["generated"]
        at = {tuple(p["weights"]): s for p, s in zip(seed["points"], texts["points"], strict=True)}
        assert texts["control_span"]["low"] == pytest.approx(at[1.0, 0.0]["low"] - at[0.0, 1.0]["low"])
        assert texts["control_span"]["high"] == pytest.approx(at[0.0, 1.0]["high"] - at[1.0, 0.0]["high"])
        reference = np.array(texts["reference_point"])
        corners = [(p["low"], p["high"]) for p in texts["points"]]
        # The area that some point of the front is above, counted on a fine grid.
        top = np.maximum(np.max(corners, axis=0), reference)
        cells = [np.linspace(reference[j], top[j], 401) for j in (0, 1)]
        centres = [(c[1:] + c[:-1]) / 2 for c in cells]
        covered = np.zeros((400, 400), dtype=bool)
        for x, y in corners:
            covered |= (centres[0][:, None] < x) & (centres[1][None] < y)
        area = covered.mean() * np.prod(top - reference)
        assert texts["hypervolume"] == pytest.approx(area, abs=0.01 * max(area, 1e-3) + 1e-3)
    assert all(0 < one["control_span_error"][n] < 10 for one in (seed, texts) for n in ("low", "high"))


def test_variants_are_other_trainings_and_soups_share_theirs(tmp_path):
    bench = bench_of(tmp_path)
    assert len({names_of(bench, name) for name in ("hyperdpo", "hyperdpo:prompt", "hyperdpo:lora")}) == 3
    soups = [f"dpo-soup{variant}" for variant in ("", ":linear", ":svd")]
    assert len({names_of(bench, name) for name in soups}) == 1
    scores = [bench.scores(bench.speaker(parse_entry(name), np.array([0.5, 0.5]))) for name in soups]
    assert not np.allclose(scores[0][0], scores[1][0], atol=1e-7)


@pytest.mark.parametrize("text", [f"{m}:{v}" for m, named in ALIGN_VARIANTS.items() for v in named])
def test_every_variant_has_settings_that_exist(tmp_path, text):
    entry = parse_entry(text)
    if entry.one_shot:
        conditioning, training, _ = bench_of(tmp_path).described(Conditioned(), entry.overrides)
        assert conditioning.is_conditioned
        arguments = bench_of(tmp_path).arguments(training, tmp_path)
        for name, value in entry.overrides.get("conditioning", {}).items():
            assert getattr(conditioning, name) == value
        for name, value in entry.overrides.get("training", {}).items():
            assert name == "learning_rate_factor" or getattr(arguments, name) == value


def test_text_measures_are_found_by_the_objectives_names():
    found = scorer_of([], ["word_count", "dialogue"])
    assert found.name == "text measures"
    assert found.score(["", ""], ["two words", 'He said "no".'])[:, 0].tolist() == [2, 3]
    assert scorer_of([], ["word_count", "helpful"]) is None


def test_a_classifier_per_objective_scores_texts(tmp_path):
    import transformers

    words_tokenizer().save_pretrained(tmp_path / "judge")
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        pad_token_id=0,
        num_labels=1,
    )
    judge = transformers.LlamaForSequenceClassification(config).eval()
    judge.save_pretrained(tmp_path / "judge")
    scorer = scorer_of([f"classifiers:{tmp_path / 'judge'},{tmp_path / 'judge'}"], ["a", "b"])
    found = scorer.score(["w3 w4", "w5"], [" w6", " w7 w8 w9"])
    assert found.shape == (2, 2)
    with torch.no_grad():
        expected = judge(torch.tensor([[3, 4, 6]])).logits[0, 0]
    assert found[0, 0] == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", ["--scorer", "package.module:function"]),
        ("no_such_module:f", ["no_such_module"]),
        ("hyperdpo.scorers.registry:nothing", ["nothing"]),
        ("classifiers:one", ["1 classifiers", "expected 2"]),
        (":f", ["--scorer :f", "expected a function"]),
    ],
)
def test_scorers_that_are_not_there_get_one_line(name, words):
    with pytest.raises(InputError) as error:
        scorer_of([name], ["a", "b"])
    assert is_one_line(error.value, *words), str(error.value)


def test_a_scorer_of_the_same_name_that_computes_something_else_scores_the_kept_texts_again(tmp_path):
    before = compared(tmp_path, ["dpo-soup"])
    kept = sorted((tmp_path / "seed-0").glob("answers/*"))
    after = compared(tmp_path, ["dpo-soup"], scorer=lambda *both: 2 * share_of_low_words(*both))
    assert sorted((tmp_path / "seed-0").glob("answers/*")) == kept
    once, twice = (one["methods"]["dpo-soup"]["generated"]["points"] for one in (before, after))
    assert any(point["low"] for point in once)
    assert twice == [{name: 2 * score for name, score in point.items()} for point in once]


def test_a_scorer_that_gives_something_else_is_told_so(tmp_path):
    texts = Texts(lambda prompts, found: np.zeros(3), "odd", prompts=2, samples=1, tokens=2)
    with pytest.raises(InputError) as error:
        AlignMeasurements(bench_of(tmp_path), weight_grid(2, 3), texts)
    assert is_one_line(error.value, "scorer odd", "(3,)", "expected (5, 2)"), str(error.value)


# --- from the command line

TINY = [
    "--points", "3", "--seeds", "1", "--cpu", "--prompts", "2", "--samples", "1", "--tokens", "3",
    "--set", "training.num_train_epochs=1", "--set", "conditioning.prompt_tokens=2",
    "--set", "training.disable_tqdm=true",
]  # fmt: skip


def test_the_command_compares_draws_and_writes(place, tmp_path, command):
    scorer = f"{__name__}:share_of_low_words"
    done = command(
        "align",
        "compare",
        place / "data.jsonl",
        "--model",
        place / "model",
        "--out",
        tmp_path,
        "--scorer",
        scorer,
        *TINY,
    )
    assert done.code == 0, done.err
    result = read(tmp_path / "compare.json")
    assert set(result["methods"]) == set(ALL)
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    for name in ALL:
        assert name in done.out
    assert "hyperdpo over dpo-ls, with 95% intervals: hypervolume" in done.out
    assert "product" in done.out, "a column, whose heading may be folded"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "dpo"], ["no method 'dpo'", "dpo-ls"]),
        (["--methods", "hyperdpo:loud"], ["hyperdpo:loud", "hyperdpo:prompt"]),
        (["--methods", "dpo-ls,dpo-ls"], ["more than once"]),
        (["--seeds", "0"], ["--seeds"]),
        (["--set", "compare.speed=1"], ["speed is not a setting"]),
        (["--set", "compare.sampling_factor=0"], ["sampling_factor", "above 0"]),
        (["--set", "split.test=0", "--set", "split.train=1"], ["no test groups"]),
        (["--set", "training.speed=1"], ["training.speed is not a setting of HyperDPOConfig"]),
        (["--set", "conditioning.depth=1"], ["depth", "conditioning"]),
    ],
)
def test_mistakes_get_one_line(place, tmp_path, command, arguments, words):
    done = command(
        "align",
        "compare",
        place / "data.jsonl",
        "--model",
        place / "model",
        "--out",
        tmp_path / "new",
        *TINY,
        *arguments,
    )
    assert done.refused(*words), (done.code, done.err)
    assert not (tmp_path / "new").exists()


def test_the_portable_adapter_has_rank_8_unless_another_is_set(tmp_path) -> None:
    entry, train = parse_entry("hyperdpo:portable"), read_preferences(rows(12))
    for conditioning, rank in ((CONDITIONING, 2), ({"prompt_tokens": 2}, 8)):
        bench = trainings_of(replace(settings_of(train), conditioning=conditioning), tmp_path)
        found = bench.described(Conditioned(), entry.overrides)[0]
        assert (found.lora_rank, found.prompt_tokens, found.gate_hidden) == (rank, 0, 0)
        expert = bench.described(Fixed((1.0, 0.0)), {"portable": True})[0]
        assert (expert.rank, expert.prompt_tokens) == (found.rank, 0)

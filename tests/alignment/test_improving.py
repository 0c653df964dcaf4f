"""On-policy rounds on a tiny model: better texts, the same files after any kill, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import raise_at, read, stamps
from toy_preferences import text

from hyperdpo.alignment.answer_sets import read_prompts
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.evaluation import base_scores
from hyperdpo.alignment.improve_command import RESULT, improve_command
from hyperdpo.alignment.run import AlignRun
from hyperdpo.cli import main
from hyperdpo.files import read_tensors
from hyperdpo.serving.export.dial import load_dial_source

#: What a round writes that holds no seconds.
SAME = ("answers.jsonl", "adapter.safetensors", "base.safetensors", "texts.json")
SCORERS = ["--scorer", "toy_scorers:low", "--scorer", "toy_scorers:high"]
SMALL = ["--max-new-tokens", "6", "--points", "3", "--samples", "2", "--held-out", "0.3", "--batch-size", "16", "--cpu"]
SMALL += ["--set", "training.learning_rate=0.02", "--set", "training.num_train_epochs=4"]


@pytest.fixture(scope="module")
def start(place: Path) -> Path:
    """A run that has hardly been trained, and a file of prompts beside it."""
    rng = np.random.default_rng(5)
    (place / "prompts.txt").write_text("\n".join(text(rng, 2, 5) for _ in range(30)) + "\n")
    settings = ["prompt_tokens=2", "gate_hidden=64", "target_modules=all-linear", "lora_rank=8"]
    options = [f"--set=conditioning.{one}" for one in settings]
    where = [str(place / "data.jsonl"), "--model", str(place / "model"), "--out", str(place / "run")]
    assert main(["align", "fit", *where, "--epochs", "1", "--cpu", *options]) == 0
    return place / "run"


def improve(run: Path, out: Path, *options: str, rounds: int = 2) -> list[str]:
    where = [str(run), "--prompts-file", str(run.parent / "prompts.txt"), "--out", str(out), "--rounds", str(rounds)]
    return ["align", "improve", *where, *SCORERS, *SMALL, *options]


@pytest.fixture(scope="module")
def improved(start: Path) -> Path:
    """Two rounds without a stop."""
    assert main(improve(start, start.parent / "improved")) == 0
    return start.parent / "improved"


def kept(out: Path) -> dict[str, bytes]:
    """What must be the same to the bit."""
    return {str(path.relative_to(out)): path.read_bytes() for name in SAME for path in sorted(out.rglob(name))}


def test_rounds_raise_the_mean_inner_product_and_every_round_is_a_run(start, improved):
    result = read(improved / RESULT)
    values = [one["mean_inner_product"] for one in result["rounds"]]
    errors = [one["mean_inner_product_error"] for one in result["rounds"]]
    assert len(values) == 3
    assert values[2] > values[0] + 3 * max(errors), (values, errors)
    assert result["rounds"][2]["hypervolume"] > result["rounds"][0]["hypervolume"]
    assert {"sampling", "training", "measuring"} <= set(result["rounds"][2]["seconds"])
    assert result["prompts"] == {"training": 21, "held_out": 9}
    run = AlignRun.load(improved / "round-2")
    assert run.objectives == AlignRun.load(start).objectives, "their transforms are those of the run"
    assert run.generate(["w5 w6"], np.array([0.5, 0.5]), max_new_tokens=3)
    before = AlignRun.load(start).model.adapter_state()
    assert any(not torch.equal(before[name], tensor) for name, tensor in run.model.adapter_state().items())


def test_the_dial_of_a_round_has_the_front_of_its_texts(start, improved, tmp_path):
    measured = read(improved / RESULT)["rounds"][1]
    front = load_dial_source(improved / "round-1").front
    assert front is not None
    assert front == {name: measured[name] for name in front}
    held_out = load_dial_source(start).front
    assert held_out is not None
    assert "mean_inner_product" not in held_out
    shutil.copytree(improved / "round-1", tmp_path / "round")
    assert load_dial_source(tmp_path / "round").front is None, "the base's texts are not beside it"


def test_a_round_trains_on_its_answers_and_those_before_and_no_held_out_prompt(improved):
    prompts = read_prompts(improved.parent / "prompts.txt")
    first, second = (read_preferences(improved / f"round-{k}" / "answers.jsonl") for k in (1, 2))
    asked = [{group.prompt for group in part.groups} for part in (first, second)]
    assert asked[0] == asked[1]
    assert len(asked[0]) == 21
    assert asked[0] < set(prompts)
    assert {g.completions for g in first.groups} != {g.completions for g in second.groups}, "sampled anew"
    counts = [read(improved / f"round-{k}" / "metrics.json")["groups"] for k in (1, 2)]
    assert counts == [len(first), len(first) + len(second)]
    # Scores of the base, in the order of the answers.
    run = AlignRun.load(improved / "round-2")
    from hyperdpo.alignment.collation import padding_token, tokenize_groups
    from hyperdpo.alignment.data.targets import to_targets

    groups = tokenize_groups(second, to_targets(second, run.objectives), run.tokenizer, **run.limits)
    expected = np.concatenate(base_scores(run.model, groups, padding_token(run.tokenizer)))
    found = read_tensors(improved / "round-2" / "base.safetensors")[0]["scores"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    row = json.loads((improved / "round-1" / "answers.jsonl").read_text().splitlines()[0])
    assert set(row["labels"]) == {"low", "high"}


@pytest.mark.parametrize(
    ("where", "name", "call"),
    [(os, "replace", 11), (transformers.Trainer, "training_step", 13)],
    ids=["files", "steps"],
)
def test_killed_again_and_again_it_writes_the_same_files(
    start, improved, tmp_path, command, monkeypatch, where, name, call
):
    """Every call gets a little further: to its 11th file, or 13th step of training (an epoch has 3, then 6)."""
    again = 0
    while again < 60:
        with monkeypatch.context() as patch:
            raise_at(patch, where, name, call, KeyboardInterrupt)
            done = command(*improve(start, tmp_path / "out"))
        assert done.code in (0, 130), done.err
        again += 1
        if not done.code:
            break
    assert again > 2
    expected = kept(improved)
    assert len(expected) == 10
    assert kept(tmp_path / "out") == expected
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert not list((tmp_path / "out").rglob("checkpoints"))


def test_rounds_of_a_training_in_bf16_sample_and_measure_in_it(start, improved, tmp_path, command, monkeypatch):
    from hyperdpo.alignment import improving

    own = improving.sample_groups
    dtypes = []

    def sampled(*arguments: Any, **how: Any) -> Any:
        dtypes.append(torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1)).dtype)
        return own(*arguments, **how)

    monkeypatch.setattr(improving, "sample_groups", sampled)
    done = command(*improve(start, tmp_path / "out", "--set", "training.bf16=true", rounds=1))
    assert done.code == 0, done.err
    assert len(dtypes) == 8, "the base, three weightings before and three after the round, and its answers"
    assert set(dtypes) == {torch.bfloat16}
    assert read(tmp_path / "out" / RESULT)["settings"]["sampling"]["precision"] == "bf16"
    assert read(tmp_path / "out" / "round-1" / "answers.jsonl.about.json")["precision"] == "bf16"
    assert "precision" not in read(improved / RESULT)["settings"]["sampling"], "such directories go on as they were"
    other = command(*improve(start, tmp_path / "out", "--set", "training.bf16=false", rounds=1))
    assert other.refused("sampling", "--overwrite"), other.err


def test_done_rounds_stay_and_more_rounds_go_on(start, improved, tmp_path, command):
    import shutil

    shutil.copytree(improved, tmp_path / "out")
    for file in (tmp_path / "out" / "round-2").iterdir():
        file.unlink()
    before = stamps(tmp_path / "out" / "round-1")
    done = command(*improve(start, tmp_path / "out"))
    assert done.code == 0, done.err
    assert "round 2: mean inner product" in done.out
    assert "at its vertex" in done.out
    assert stamps(tmp_path / "out" / "round-1") == before
    assert kept(tmp_path / "out") == kept(improved)
    other = command(*improve(start, tmp_path / "out", "--seed", "1"))
    assert other.refused("sampling.seed", "--overwrite"), other.err


def test_answers_of_the_base_are_the_offline_control_and_zero_rounds_measure(start, improved, tmp_path, command):
    done = command(*improve(start, tmp_path / "base", "--sample-from", "base", rounds=1))
    assert done.code == 0, done.err
    from_base, own = (read_preferences(out / "round-1" / "answers.jsonl") for out in (tmp_path / "base", improved))
    assert {g.prompt for g in from_base.groups} == {g.prompt for g in own.groups}
    assert {g.completions for g in from_base.groups} != {g.completions for g in own.groups}
    first, second = (read(out / RESULT)["rounds"][0] for out in (tmp_path / "base", improved))
    assert first["mean_inner_product"] == second["mean_inner_product"], "the same run on the same prompts"
    with_data = command(*improve(start, tmp_path / "d", "--data", str(start.parent / "data.jsonl"), rounds=1))
    assert with_data.code == 0, with_data.err
    assert read(tmp_path / "d" / "round-1" / "metrics.json")["groups"] == len(own) + 16, "of 20, 4 are held out"
    zero: Any = improve_command(
        start, start.parent / "prompts.txt", SCORERS[1::2], tmp_path / "zero", rounds=0, max_new_tokens=6, points=3,
        samples=2, held_out=0.3, batch_size=16, cpu=True,
    )  # fmt: skip
    assert [one["mean_inner_product"] for one in zero["rounds"]] == [second["mean_inner_product"]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--responses", "1"], ["--responses is 1", "at least 2"]),
        (["--set", "conditioning.lora_rank=2"], ["conditioning has no effect", "training"]),
        (["--set", "training.beta=1"], ["training.beta has no effect", "keep"]),
        (["--set", "training.speed=1"], ["training.speed is not a setting"]),
        (["--limit", "1"], ["prompts.txt", "expected at least 2"]),
        (["--data", "nowhere.jsonl"], ["nowhere.jsonl"]),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(start, tmp_path, command, options, words):
    done = command(*improve(start, tmp_path / "out", *options))
    assert done.refused(*words), done.err
    assert not (tmp_path / "out").exists()


def test_a_scorer_for_each_objective_is_needed(start, tmp_path, command):
    where = [start, "--prompts-file", start.parent / "prompts.txt", "--out", tmp_path / "out", "--cpu"]
    assert command("align", "improve", *where).refused("--scorer", "low, high")
    assert command("align", "improve", *where, *SCORERS[:2]).refused("toy_scorers:low", "high")
    assert not (tmp_path / "out").exists()


def test_two_commands_do_not_write_one_directory(start, tmp_path, command):
    from hyperdpo.locks import locked

    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        done = command(*improve(start, tmp_path / "out"))
    assert done.code == 2, done.err
    assert not list((tmp_path / "out").glob("round-*"))

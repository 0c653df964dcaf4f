"""Resuming: a training that dies in any step, or by SIGKILL, ends with the same model when it is run again."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from helpers import (
    CLICKS,
    TINY_OPTIONS,
    Killed,
    cpu,
    fit_toy,
    is_one_line,
    model_of,
    raise_at,
    read,
    same_tensors,
    start,
    timeless,
    toy_config,
    toy_table,
    weights_of,
)

from hyperdpo.errors import InputError
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import merged
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import learning_rate

pytestmark = pytest.mark.filterwarnings("ignore:.*resumed after epoch:UserWarning")


# --- killed and resumed

#: Both stages, many checkpoints, a few steps per epoch.
KILLED = {
    "parametrization": "scratch",  # which samples weights
    "training": {"epochs": 5, "sampling_factor": 1, "evaluations": 3, "checkpoint_seconds": 0},
    "base_training": {"epochs": 4, "evaluations": 2, "checkpoint_seconds": 0},
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RankRun:
    return fit_toy(out=tmp_path_factory.mktemp("whole") / "run", **KILLED)


@pytest.mark.parametrize("step", [1, 3, 7, 20, 21, 23, 27, 45])
def test_a_training_that_dies_in_any_step_resumes_to_the_same_weights(uninterrupted, tmp_path, monkeypatch, step):
    """Four base epochs of five steps, then five epochs of the ranker: in the base, between the two, at the end."""
    with monkeypatch.context() as patch:
        raise_at(patch, Accelerator, "backward", step)
        with pytest.raises(Killed):
            fit_toy(out=tmp_path / "run", **KILLED)
    assert not (tmp_path / "run" / "run.json").exists()
    assert_resumes(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("write", range(1, 16, 2))
def test_a_training_that_dies_while_it_writes_a_file_resumes_to_the_same_weights(
    uninterrupted, tmp_path, monkeypatch, write
):
    with monkeypatch.context() as patch:
        raise_at(patch, os, "replace", write)
        with pytest.raises(Killed):
            fit_toy(out=tmp_path / "run", **KILLED)
    assert_resumes(tmp_path / "run", uninterrupted)


def test_a_training_that_dies_at_every_epoch_resumes_to_the_same_weights(uninterrupted, tmp_path, monkeypatch):
    deaths = 0
    while True:
        with monkeypatch.context() as patch:
            raise_at(patch, Accelerator, "backward", 7)  # one epoch of five steps gets done
            try:
                fit_toy(out=tmp_path / "run", **KILLED)
                break
            except Killed:
                deaths += 1
    assert deaths == 8
    assert_resumes(tmp_path / "run", uninterrupted)


def assert_resumes(out: Path, whole: RankRun) -> None:
    again = fit_toy(out=out, **KILLED)
    assert same_tensors(weights_of(again), weights_of(whole))
    assert same_tensors(model_of(out), model_of(whole.path))
    assert timeless(again.metrics) == timeless(whole.metrics)


def test_a_resumed_training_says_so_and_does_not_begin_again(tmp_path, monkeypatch, rates):
    with monkeypatch.context() as patch:
        raise_at(patch, Accelerator, "backward", 33)  # in the third epoch of the ranker
        with pytest.raises(Killed):
            fit_toy(out=tmp_path / "run", **KILLED)
    rates.clear()
    with pytest.warns(UserWarning, match="ranker: resumed after epoch 2"):
        fit_toy(out=tmp_path / "run", **KILLED)
    config = toy_config(**KILLED).training
    assert rates == [learning_rate(config, 2 + step / 5) for step in range(15)], "three epochs of five steps are left"


@pytest.fixture
def fit_arguments(generated):
    def arguments(out: Path) -> list[str]:
        settings = {
            "scorer.width": 8,
            "base_scorer.width": 8,
            "training.epochs": 12,
            "base_training.epochs": 8,
            "training.checkpoint_seconds": 0,
            "base_training.checkpoint_seconds": 0,
        }
        options = [f"--set={key}={value}" for key, value in settings.items()]
        data = ["rank", "fit", str(generated[0]), "--preset", "mslr", "--objectives", ",".join(CLICKS)]
        return [*data, "--out", str(out), "--cpu", *options]

    return arguments


def test_a_command_killed_again_and_again_ends_with_the_same_model(fit_arguments, tmp_path):
    """SIGKILL in the base, in the ranker, and at moments that nobody chose."""
    reference = start(fit_arguments(tmp_path / "whole"))
    reference.join()
    assert reference.exitcode == 0

    out = tmp_path / "killed"
    dice, exits = random.Random(1), []
    stages = [out / "checkpoints" / f"{name}.safetensors" for name in ("base", "ranker")]
    for wait_for in [stages[0], None, None, stages[1], None]:
        process = start(fit_arguments(out))
        while process.is_alive() and wait_for is not None and not wait_for.exists():
            time.sleep(0.002)
        process.join(dice.uniform(0.0, 0.2) if wait_for else dice.uniform(0.2, 0.8))
        process.kill()
        process.join()
        exits.append(process.exitcode)
    assert -9 in exits
    last = start(fit_arguments(out))
    last.join()
    finished_before = (out / "run.json").exists() and last.exitcode == 2
    assert last.exitcode == 0 or finished_before
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert timeless(read(out / "metrics.json")) == timeless(read(tmp_path / "whole" / "metrics.json"))


# --- checkpoints that do not belong


@pytest.fixture
def interrupted(tmp_path, monkeypatch) -> Path:
    """A run directory whose training died in the ranker's third epoch."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        raise_at(patch, Accelerator, "backward", 33)
        with pytest.raises(Killed):
            fit_toy(out=out, **KILLED)
    return out


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"training": {**KILLED["training"], "learning_rate": 0.5}},
        {"scorer": {"width": 12}},
        {"objectives": [{"name": "b"}, {"name": "a", "target": "l1"}]},
        {"objectives": [{"name": "a", "target": "l1", "beta": 2.0}, {"name": "b"}]},
    ],
    ids=["seed", "learning rate", "network", "order of objectives", "beta"],
)
@pytest.mark.filterwarnings("ignore:base. resumed")
def test_a_checkpoint_of_another_configuration_is_refused(interrupted, change):
    """The base does not depend on how the ranker is trained; the ranker depends on everything."""
    with pytest.raises(InputError) as error:
        fit_toy(out=interrupted, **{**KILLED, **change})
    stage = "ranker" if "training" in change or "scorer" in change else "base"
    assert is_one_line(error.value, f"{stage}.safetensors", "another configuration or of other data")


def test_a_checkpoint_of_other_data_is_refused(interrupted):
    """Also of data with the same labels, whose features alone are others."""
    with pytest.raises(InputError) as error:
        fit_toy(replace(toy_table(), fingerprint="other features"), out=interrupted, **KILLED)
    assert is_one_line(error.value, "base.safetensors", "another configuration or of other data")


def test_a_checkpoint_of_other_base_scores_is_refused(tmp_path, monkeypatch):
    table = toy_table()
    config = toy_config(**KILLED)
    parts = split_table(table, config)

    def fit(scores: np.ndarray) -> None:
        given = {name: scores for name in parts}
        fit_run(config, parts, cpu(), out=tmp_path / "run", base_source=BaseSource("given"), given_base=given)

    with monkeypatch.context() as patch:
        raise_at(patch, Accelerator, "backward", 13)
        with pytest.raises(Killed):
            fit(table.column("f1"))
    with pytest.raises(InputError) as error:
        fit(table.column("f2"))
    assert is_one_line(error.value, "ranker.safetensors", "of other data")


@pytest.mark.parametrize("keep", [0, 5, 200, -1], ids=lambda n: f"{n} bytes")
def test_a_truncated_checkpoint_is_passed_over(interrupted, uninterrupted, keep):
    path = interrupted / "checkpoints" / "ranker.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with (
        pytest.warns(UserWarning, match="base: resumed"),
        pytest.warns(UserWarning, match=r"ranker: .*ranker\.safetensors: .*; passed over, this training begins again"),
    ):
        assert_resumes(interrupted, uninterrupted)


def test_the_command_line_notes_a_checkpoint_that_it_passes_over(generated, tmp_path, command):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "base.safetensors").write_bytes(b"\x10\0\0\0")
    options = ["--preset", "mslr", "--cpu", "--objectives", ",".join(CLICKS), *TINY_OPTIONS]
    found = command("rank", "fit", generated[0], "--out", tmp_path / "run", *options)
    assert found.code == 0, found.err
    lines = [line for line in found.err.splitlines() if "base.safetensors" in line]
    assert len(lines) == 1
    assert lines[0].startswith("hyperdpo: note: base: ")


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: text.replace("tree", "shrub")])
def test_kept_trees_that_cannot_be_read_are_trained_again(tmp_path, monkeypatch, capsys, damage):
    pytest.importorskip("lightgbm")
    settings = merged(KILLED, {"scorer": {"kind": "blend"}, "parametrization": "mixture", "gbdt": {"trees": 3}})
    settings["mixture"] = {"form": "gain", "members": 1}
    whole = fit_toy(out=tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        raise_at(patch, Accelerator, "backward", 25)
        with pytest.raises(Killed):
            fit_toy(out=tmp_path / "run", **settings)
    kept = tmp_path / "run" / "checkpoints" / "ranker.trees.json"
    kept.write_text(damage(kept.read_text()))
    again = fit_toy(out=tmp_path / "run", **settings)
    assert "ranker.trees.json: kept trees cannot be read" in capsys.readouterr().err
    assert same_tensors(weights_of(again), weights_of(whole))
    assert again.ranker.trees.texts == whole.ranker.trees.texts

"""Checkpoints of language models: whole or not there, and passed over where they cannot be loaded."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import Killed, largest_file, raise_when, read

from hyperdpo.alignment import checkpoints as module
from hyperdpo.alignment.checkpoints import last_checkpoint
from hyperdpo.cli import main
from hyperdpo.errors import InputError

OPTIONS = ["--cpu", "--set", "training.disable_tqdm=true", "--set", "conditioning.prompt_tokens=2"]
OPTIONS += ["--set", "conditioning.gate_hidden=4"]
OPTIONS += ["--epochs", "3", "--set", "training.save_total_limit=2"]


def arguments(place: Path, out: Path) -> list[object]:
    return ["align", "fit", place / "data.jsonl", "--model", place / "model", "--out", out, *OPTIONS]


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main([str(one) for one in arguments(place, out)]) == 0
    return out


@pytest.fixture(scope="module")
def cut(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interrupted run with two checkpoints; not to be changed."""
    out = tmp_path_factory.mktemp("cut") / "run"
    with pytest.MonkeyPatch.context() as patch:
        two = lambda: len(list((out / "checkpoints").glob("checkpoint-*"))) == 2  # noqa: E731
        raise_when(patch, transformers.Trainer, "training_step", two, KeyboardInterrupt)
        assert main([str(one) for one in arguments(place, out)]) == 130
    return out


@pytest.fixture
def run(cut: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cut, tmp_path / "run")


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))


def is_like(run: Path, whole: Path) -> bool:
    return (run / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def missing(path: Path) -> None:
    path.unlink()


FILES = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "adapter.safetensors")
#: The trainer goes on without a file of random states.
DAMAGES = [(name, how) for name in FILES for how in (empty, half, missing) if (name, how) != (FILES[3], missing)]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_checkpoint_that_cannot_be_loaded_is_passed_over_with_a_note(run, capsys, name, damage):
    path = newest(run)
    damage(path / name)
    found = last_checkpoint(run / "checkpoints")
    assert found is not None
    assert Path(found) != path
    said = capsys.readouterr().err
    assert said.startswith(f"hyperdpo: note: {path}: cannot be loaded ({name}")
    assert said.endswith("); passed over\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("names", [["optimizer.pt"], ["trainer_state.json", "scheduler.pt"]], ids=" and ".join)
def test_a_fit_goes_on_from_an_older_checkpoint_to_the_same_adapter(run, place, whole, command, names):
    """What a full disk left in older versions: empty files in the newest checkpoint."""
    for name in names:
        empty(newest(run) / name)
    found = command(*arguments(place, run))
    assert found.code == 0, found.err
    assert "passed over" in found.err
    assert "resumed from" in found.err
    assert is_like(run, whole)


def test_a_fit_without_a_checkpoint_that_loads_begins_again(run, place, whole, command):
    for path in (run / "checkpoints").glob("checkpoint-*"):
        empty(path / "trainer_state.json")
    found = command(*arguments(place, run))
    assert found.code == 0, found.err
    assert found.err.count("passed over") == 2
    assert "resumed from" not in found.err
    assert is_like(run, whole)
    assert all(last_checkpoint(run / "checkpoints") == str(path) for path in [newest(run)]), "damaged ones are replaced"


WRITES: dict[str, Callable[[pytest.MonkeyPatch, BaseException], None]] = {
    "the adapter": lambda patch, error: patch.setattr(module.ConditionedLM, "save_pretrained", raising(error)),
    "torch": lambda patch, error: patch.setattr(torch, "save", half_saved(error)),
    "the state": lambda patch, error: patch.setattr(transformers.TrainerState, "save_to_json", half_saved(error)),
    "the rename": lambda patch, error: patch.setattr(module, "put", raising(error)),
}


def raising(error: BaseException) -> Callable[..., None]:
    def raises(*_: Any, **__: Any) -> None:
        raise error

    return raises


def half_saved(error: BaseException) -> Callable[..., None]:
    def save(_: Any, path: str, *__: Any, **___: Any) -> None:
        Path(path).write_bytes(b"")
        raise error

    return save


@pytest.mark.parametrize("what", WRITES)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on_later(run, place, whole, command, monkeypatch, what):
    before = newest(run)
    with monkeypatch.context() as patch:
        WRITES[what](patch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        found = command(*arguments(place, run))
    assert found.code == 2, found.err
    last = found.err.splitlines()[-1]
    assert last.startswith("hyperdpo: ")
    assert "cannot be written (No space left on device)" in last
    assert "Traceback" not in found.err
    assert newest(run) == before, "no checkpoint that is not whole"
    found = command(*arguments(place, run))
    assert found.code == 0, found.err
    assert is_like(run, whole)
    assert not (run / "checkpoints" / module.UNFINISHED).exists()


def test_torchs_own_error_of_a_full_disk_is_one_line(run, place, command, monkeypatch):
    text = "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0: PytorchStreamWriter failed writing file"
    monkeypatch.setattr(torch, "save", half_saved(RuntimeError(text)))
    found = command(*arguments(place, run))
    assert found.code == 2, found.err
    assert "cannot be written" in found.err.splitlines()[-1]


def test_a_process_that_is_killed_while_it_saves_leaves_no_half_checkpoint(run, place, whole, command, monkeypatch):
    before = newest(run)
    with monkeypatch.context() as patch:
        patch.setattr(transformers.TrainerState, "save_to_json", half_saved(Killed()))
        with pytest.raises(Killed):
            command(*arguments(place, run))
    assert newest(run) == before
    assert list((run / "checkpoints" / module.UNFINISHED).iterdir())
    assert command(*arguments(place, run)).code == 0
    assert is_like(run, whole)
    assert not (run / "checkpoints" / module.UNFINISHED).exists()


def test_room_for_a_checkpoint_is_checked_before_the_training(run, place, command, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 10}))
    monkeypatch.setattr(transformers.Trainer, "train", raising(AssertionError("trained")))
    found = command(*arguments(place, run))
    assert found.code == 2, found.err
    assert "a checkpoint needs about" in found.err
    assert "10 bytes are free" in found.err


def test_the_best_checkpoint_is_named_by_its_final_place(place, tmp_path, command):
    line = arguments(place, tmp_path / "run")
    line += ["--set", "training.load_best_model_at_end=true", "--set", "training.eval_strategy=epoch"]
    found = command(*line)
    assert found.code == 0, found.err
    states = [read(path) for path in (tmp_path / "run" / "checkpoints").glob("checkpoint-*/trainer_state.json")]
    assert states
    for state in states:
        best = Path(state["best_model_checkpoint"])
        assert best.parent == tmp_path / "run" / "checkpoints"


@pytest.mark.parametrize("error", [EOFError(), EOFError("Ran out of input")])
def test_the_end_of_a_file_is_no_interrupt(run, place, command, monkeypatch, error):
    monkeypatch.setattr(transformers.Trainer, "train", raising(error))
    found = command(*arguments(place, run))
    assert found.code == 70
    assert "interrupted" not in found.err
    assert "this is a fault of hyperdpo, not of your input: EOFError" in found.err


def test_errors_of_a_users_data_stay_as_they_are(run, place, command, monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "train", raising(InputError("a line")))
    assert command(*arguments(place, run)).err.splitlines()[-1] == "hyperdpo: a line"


@pytest.mark.parametrize("form", ["merged", "peft"])
def test_an_export_without_room_is_one_line_and_leaves_nothing(whole, place, tmp_path, command, monkeypatch, form):
    line = ["export", whole, "--weights", ".3,.7", "--format", form, "--out", tmp_path / "out"]
    with largest_file(2_000):
        found = command(*line)
    assert found.code == 2, found
    assert "out: cannot be written (File too large)" in found.err.splitlines()[-1]
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 10}))
        assert command(*line).refused("the export needs about", "10 bytes are free")
    assert list(tmp_path.iterdir()) == []

"""Faults of hyperdpo itself, and machines that are short of something: one screen, no traceback unless asked for."""

from __future__ import annotations

import errno
import os

import click
import pytest
from toy_preferences import toy_place

from hyperdpo import cli


@pytest.fixture
def failing(monkeypatch):
    """``hyperdpo data generate`` fails with an error."""

    def fail(error):
        def generate(*_, **__):
            raise error

        monkeypatch.setattr("hyperdpo.data.synthetic.generate", generate)

    return fail


FAULTS = [KeyError("column"), EOFError("Ran out of input"), ZeroDivisionError("division"), RecursionError("too deep")]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_a_fault_of_hyperdpo_says_so_and_how_to_report_it(command, failing, tmp_path, error):
    failing(error)
    found = command("data", "generate", tmp_path / "d.txt", "--queries", 2)
    assert found.code == 70
    lines = found.err.strip().splitlines()  # click ends a line after EOFError
    assert lines[0].startswith(f"hyperdpo: this is a fault of hyperdpo, not of your input: {type(error).__name__}: ")
    assert "(cli.py, line " in lines[0]
    assert cli.__version__ in found.err
    assert "HYPERDPO_TRACEBACK=1" in found.err
    assert "interrupted" not in found.err
    assert "Traceback" not in found.err
    assert len(lines) <= 4


def test_a_traceback_is_printed_where_it_is_asked_for(command, failing, tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERDPO_TRACEBACK", "1")
    failing(KeyError("column"))
    found = command("data", "generate", tmp_path / "d.txt", "--queries", 2)
    assert found.code == 70
    assert "Traceback (most recent call last)" in found.err
    assert "KeyError: 'column'" in found.err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_one(command, failing, tmp_path, error):
    failing(error)
    found = command("data", "generate", tmp_path / "d.txt", "--queries", 2)
    assert found.code == 130
    assert found.err.splitlines()[-1] == "hyperdpo: interrupted; run the same command again to resume"


def test_a_long_text_of_an_error_is_cut_and_on_one_line(command, failing, tmp_path):
    failing(ValueError("a\nb" * 10_000))
    found = command("data", "generate", tmp_path / "d.txt", "--queries", 2)
    assert len(found.err) < 1000
    assert len(found.err.splitlines()) <= 4


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b"), "/a/b: No space left"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files"),
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            "not enough memory",
        ),
        (RuntimeError("Storage size calculation overflowed with sizes=[9, 9]"), "not enough memory"),
        (ValueError("array is too big; `arr.size` is larger than the maximum"), "not enough memory"),
    ],
)
def test_a_machine_that_is_short_of_something_is_one_line(command, failing, tmp_path, error, words):
    failing(error)
    assert command("data", "generate", tmp_path / "d.txt", "--queries", 2).refused(words)


# --- numbers that fit into no machine word


@pytest.mark.parametrize("number", ["9" * 19, "9" * 400, "9" * 5000, "-" + "9" * 400], ids=len)
def test_an_integer_of_more_than_64_bits_is_one_line(command, tmp_path, number):
    """Libraries raise OverflowError, ValueError and RuntimeError, each at a place of its own."""
    for arguments in (
        ["data", "generate", tmp_path / "d.txt", f"--queries={number}"],
        ["data", "generate", tmp_path / "d.txt", "--queries=2", f"--seed={number}"],
        ["rank", "front", tmp_path, tmp_path, f"--points={number}"],
        ["rank", "fit", tmp_path, "--preset", "mslr", "--set", f"seed={number}"],
        ["align", "fit", tmp_path, "--model", tmp_path, "--set", f"training.seed={number}"],
    ):
        found = command(*arguments)
        assert found.code == 2, found
        assert len(found.err.splitlines()) == 1
        assert len(found.err) < 300
        assert "64 bits" in found.err or "is not in the range x>=0" in found.err
    (tmp_path / "a.yaml").write_text(f"seed: 1\ntraining: {{epochs: {number}}}\n")
    found = command("rank", "fit", tmp_path, "--config", tmp_path / "a.yaml", "--out", tmp_path / "run")
    assert found.refused("a.yaml:2: not valid YAML", "is no integer of 64 bits")


@pytest.mark.parametrize("value", ["num_train_epochs=.inf", "learning_rate=1e999", "seed=4294967296"])
def test_a_training_without_bounds_is_refused_by_the_settings_name(command, tmp_path, value):
    toy_place(tmp_path)
    fit = ["align", "fit", tmp_path / "data.jsonl", "--model", tmp_path / "model", "--cpu", "--out", tmp_path / "run"]
    found = command(*fit, "--set", f"training.{value}")
    assert found.refused(f"training.{value.partition('=')[0]} is", "expected a"), found
    assert not (tmp_path / "run").exists()

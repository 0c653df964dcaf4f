"""Faults of hyperdpo itself, and machines that are short of something: one screen, no traceback unless asked for."""

from __future__ import annotations

import errno
import os

import click
import pytest

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
    assert found.code == 1
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
    assert found.code == 1
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
    ],
)
def test_a_machine_that_is_short_of_something_is_one_line(command, failing, tmp_path, error, words):
    failing(error)
    assert command("data", "generate", tmp_path / "d.txt", "--queries", 2).refused(words)

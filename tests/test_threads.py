"""With how many threads a command computes, and that it says so once."""

from __future__ import annotations

import os

import click
import pytest
import torch
from helpers import TINY_OPTIONS

from hyperdpo import threads


@pytest.fixture
def machine(monkeypatch):
    """A machine of four cores with a load; the number of threads is put back."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    def of(cores, load):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load), raising=False)

    yield of
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cores", "load", "expected"),
    [(4, 0.0, 4), (4, 0.4, 4), (4, 0.6, 3), (4, 2.2, 2), (4, 4.0, 1), (2, 9.0, 1), (1, 0.0, 1)],
)
def test_as_many_threads_as_cores_are_free(machine, cores, load, expected):
    machine(cores, load)
    assert threads.free_cores() == expected


def test_cores_are_those_that_this_process_may_use_and_an_unknown_load_is_none(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert threads.available_cores() == 3
    monkeypatch.setattr(os, "getloadavg", lambda: (_ for _ in ()).throw(OSError()), raising=False)
    assert threads.load_average() == 0


def test_a_command_takes_them_and_says_so_once(machine, command, generated, tmp_path):
    machine(2, 0.9)
    done = command("rank", "fit", generated[0], "--out", tmp_path / "r", "--preset", "mslr", "--cpu", *TINY_OPTIONS)
    assert done.code == 0, done.err
    assert torch.get_num_threads() == 1
    said = [line for line in done.err.splitlines() if "thread" in line]
    assert said == ["hyperdpo: note: 1 thread (2 cores, load 0.9); OMP_NUM_THREADS sets another number"]
    again = command("rank", "front", tmp_path / "r", generated[0], "--points", "5", "--cpu")
    assert again.err.count("OMP_NUM_THREADS") == 1, "each command says it"


def test_bad_input_is_still_one_line(machine, command, generated, tmp_path):
    machine(2, 0.9)
    options = ["--out", tmp_path / "r", "--preset", "mslr", "--objectives", "nothing"]
    assert command("rank", "fit", generated[0], *options).refused("nothing")


def test_the_users_number_wins_and_python_is_left_alone(machine, monkeypatch, capsys):
    machine(8, 0.0)
    torch.set_num_threads(1)
    threads.use_free_cores()  # no command
    with click.Context(click.Command("hyperdpo")):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        threads.use_free_cores()
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setenv("WORLD_SIZE", "2")
        threads.use_free_cores()
    assert torch.get_num_threads() == 1
    assert capsys.readouterr().err == ""

"""Every long command, killed with SIGKILL at random moments and started again, ends as if nobody had killed it."""

from __future__ import annotations

from pathlib import Path

import pytest
from crashes import COMMANDS, Command, Outcome, crash, inputs, is_left

#: For each command; `make bench` has more.
KILLS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inputs(tmp_path_factory.mktemp("crashes"))


@pytest.mark.parametrize("command", COMMANDS, ids=[one.name for one in COMMANDS])
def test_a_killed_command_ends_with_the_same_result(command, place, tmp_path):
    found = crash(command, place, tmp_path, KILLS)
    assert found.is_equal, f"{found}\n{found.printed}"
    assert found.kills == KILLS


def test_the_comparison_sees_another_result(place, tmp_path):
    """A command whose result depends on the call is not equal."""
    lengths = iter(range(10))
    line: list[object] = ["data", "generate", "--queries", 20]
    command = Command("data generate", lambda _: line, lambda out: {"file": next(lengths)}, out=None)
    assert not crash(command, place, tmp_path, 1).is_equal
    assert not Outcome().is_equal, "one that never came to its end"
    assert is_left(".hyperdpo.lock")
    assert is_left(".unfinished")
    assert not is_left("model.safetensors")

"""What long work says where there is no terminal: nothing for half a minute, then a line every half minute."""

from __future__ import annotations

import re
import sys

import pytest

from hyperdpo import progress
from hyperdpo.progress import duration, progress_bar


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "clock", found)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    return found


def work(clock: Clock, steps: int, seconds: float, start: int = 0, **settings: object) -> None:
    """So many steps of so many seconds each."""
    with progress_bar("read data", steps, "MB", **settings) as update:
        if start:
            update(start)
        for done in range(start, steps):
            clock.now += seconds
            update(done + 1, f"part {done + 1}")


def test_work_of_less_than_half_a_minute_says_nothing(clock, capsys):
    work(clock, 29, 1.0)
    work(clock, 2900, 0.01)
    work(clock, 1, 29.0)
    assert capsys.readouterr().err == ""


def test_long_work_says_stage_rate_and_time_left_every_half_minute(clock, capsys):
    work(clock, 300, 1.0)
    first, *lines, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"hyperdpo: read data: 5 of 300 MB \(2%\), 1 MB/s, about 4 min 55 s left, part 5", first), (
        "as soon as it can be estimated"
    )
    done = [int(re.search(r": (\d+) of 300 MB", line)[1]) for line in lines]
    assert done == list(range(35, 300, 30))
    assert "about 4 min 25 s left" in lines[0]
    assert last == "hyperdpo: read data: done in 5 min 00 s"


def test_work_that_was_not_known_to_be_long_speaks_after_half_a_minute(clock, capsys):
    work(clock, 2, 31.0)
    line, last = capsys.readouterr().err.splitlines()
    assert line.startswith("hyperdpo: read data: 1 of 2 MB (50%), 0.0323 MB/s, about 31 s left")
    assert last.endswith("done in 1 min 02 s")


def test_work_of_unknown_length_says_how_much_is_done_and_how_fast(clock, capsys):
    with progress_bar("choose", None, "points") as update:
        for done in range(1, 4):
            clock.now += 20
            update(100 * done)
    line, last = capsys.readouterr().err.splitlines()
    assert line == "hyperdpo: choose: 200 points, 5 points/s"
    assert last == "hyperdpo: choose: done in 1 min 00 s"


def test_what_an_earlier_session_did_is_no_part_of_the_rate(clock, capsys):
    work(clock, 1000, 1.0, start=900)
    first = capsys.readouterr().err.splitlines()[0]
    assert "905 of 1,000 MB" in first
    assert "1 MB/s, about 1 min 35 s left" in first


def test_only_the_first_process_reports_and_nothing_does_that_is_not_to(clock, capsys, monkeypatch):
    work(clock, 300, 1.0, show=False)
    monkeypatch.setenv("RANK", "1")
    work(clock, 300, 1.0)
    assert capsys.readouterr().err == ""


def test_work_that_fails_does_not_say_that_it_is_done(clock, capsys):
    def fails() -> None:
        with progress_bar("read data", 100, "MB") as update:
            clock.now += 40
            update(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_on_a_terminal_there_is_a_bar_and_no_line(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    work(clock, 300, 1.0)
    assert "hyperdpo: read data" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (93784, "26 h 03 min"),
    ],
)
def test_durations_are_what_people_write(seconds, text):
    assert duration(seconds) == text

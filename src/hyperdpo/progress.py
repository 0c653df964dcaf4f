"""Progress of long work: a bar on a terminal, elsewhere (a log, CI, a notebook) a line every half minute.

Without a terminal, shorter work prints nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from hyperdpo.processes import is_first_process

#: Seconds between two lines.
EVERY = 30.0
#: After so many seconds, a line is printed if the time left is longer than EVERY.
SOON = 5.0


class Update(Protocol):
    """Called with the amount done so far and perhaps a few words."""

    def __call__(self, done: float, words: str = "") -> None: ...


def _silent(done: float, words: str = "") -> None:
    pass


def on_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()


def clock() -> float:
    """Seconds; tests replace it."""
    return time.monotonic()


def tell(line: str) -> None:
    """Print a line on standard error."""
    print(f"hyperdpo: {line}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print a note on standard error: something to know, not an error."""
    tell(f"note: {' '.join(text.split())}")


@contextmanager
def progress_bar(description: str, total: float | None, unit: str, *, show: bool = True) -> Iterator[Update]:
    """A bar on stderr, gone when the work is done; without a terminal, lines with stage, rate and time left.

    Args:
        total: what ``done`` counts up to; None if that is unknown.
        unit: what is counted, for the rate: "items", "MB".
        show: False: report nothing. Among several processes only the first one reports.
    """
    if not show or not is_first_process():
        yield _silent
        return
    if not on_terminal():
        lines = ProgressLines(description, total, unit)
        yield lines
        lines.end()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{_figure(speed)} {unit}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as progress:
        task = progress.add_task(description, total=total, words="")

        def update(done: float, words: str = "") -> None:
            progress.update(task, completed=done, words=words)

        yield update


class ProgressLines:
    """An :class:`Update` that prints a line every :data:`EVERY` seconds, and an early one for long work.

    A first call before any work is done sets the start, so that the work of an earlier session does not count in the
    rate.

    Args:
        description, total, unit: as for :func:`progress_bar`.
    """

    def __init__(self, description: str, total: float | None, unit: str):
        self.description, self.total, self.unit = description, total, unit
        self._started = self._told = clock()
        self._first: tuple[float, float] | None = None
        self._lines = 0

    def __call__(self, done: float, words: str = "") -> None:
        now = clock()
        if self._first is None:
            self._first = (now, done)
        since, already = self._first
        # A first call that comes later than the start reports what was done since then.
        rate = (done - already) / (now - since) if now > since else done / max(now - self._started, 1e-9)
        left = (self.total - done) / rate if self.total is not None and rate > 0 else None
        due = now - self._told >= EVERY
        soon = not self._lines and now - self._started >= SOON and left is not None and left > EVERY
        if (due or soon) and (self.total is None or done < self.total):
            self._told = now
            self._lines += 1
            tell(self._line(done, rate, left, words))

    def _line(self, done: float, rate: float, left: float | None, words: str) -> str:
        many = _figure(done)
        if self.total is not None:
            many += f" of {_figure(self.total)}"
        share = f" ({done / self.total:.0%})" if self.total else ""
        parts = [f"{self.description}: {many} {self.unit}{share}"]
        parts += [f"{_figure(rate)} {self.unit}/s"] if rate > 0 else []
        parts += [f"about {duration(left)} left"] if left is not None else []
        return ", ".join([*parts, *([words] if words else [])])

    def end(self) -> None:
        """Print that it is done, if a line was printed before."""
        if self._lines:
            tell(f"{self.description}: done in {duration(clock() - self._started)}")


def duration(seconds: float) -> str:
    """A time such as 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _figure(value: float) -> str:
    """A count or a rate: a whole number from 100 on, otherwise three digits."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"

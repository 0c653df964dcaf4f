"""Progress bars for long work: rate and time left on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Update(Protocol):
    """Called with what is done so far and, where it is worth showing, a few words."""

    def __call__(self, done: float, words: str = "") -> None: ...


def _silent(done: float, words: str = "") -> None:
    pass


@contextmanager
def progress_bar(description: str, total: float, unit: str, *, show: bool = True) -> Iterator[Update]:
    """A bar on stderr, gone when the work is done.

    Args:
        total: what ``done`` counts up to.
        unit: what is counted, for the rate: "items", "MB".
        show: False for the processes that are not to report.
    """
    if not show or not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} {unit}/s")

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

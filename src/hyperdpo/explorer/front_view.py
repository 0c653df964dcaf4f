"""The front on the page: the plot, and which metrics are on its axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nicegui import ui

from hyperdpo.core.point import Point
from hyperdpo.explorer.front import Front, Marks, figure, first_mark, xy
from hyperdpo.explorer.state import Explorer


class FrontView:
    """A plot of fronts with marks that move.

    Args:
        one: the first run; all runs have its objectives and metrics.
        chosen: called with a clicked point of the front.
        note: a text under the plot.
    """

    def __init__(self, one: Explorer, fronts: Sequence[Front], chosen: Callable[[Point], None], note: str):
        self.fronts, self._one, self._chosen = list(fronts), one, chosen
        names = one.metrics
        self._marks: list[Marks] = []
        self._pinned: np.ndarray | None = None
        self._axes = (0, min(1, len(names) - 1))
        ui.label("Front").props("role=heading aria-level=2").classes("font-bold")
        if len(names) > 2:
            options = dict(enumerate(names))
            with ui.element("div").classes("row"):
                self._selects = [
                    ui.select(options, value=self._axes[i], label=f"{axis} axis", on_change=self._turned)
                    .props("dense outlined options-dense")
                    .classes("grow")
                    for i, axis in enumerate(("horizontal", "vertical"))
                ]
        self._plot = ui.plotly(self._figure()).classes("plot")
        self._plot.props["role"] = "img"
        self._plot.props["aria-label"] = f"Front over {', '.join(names)}"
        self._plot.on("plotly_click", self._clicked, ["points"])
        with ui.element("div").classes("row"):
            ui.label(note).classes("note grow")
            self._status = ui.label("").classes("note").props("role=status data-status=front")

    def busy(self, busy: bool) -> None:
        """Show that the marks are not yet those of the point."""
        self._status.set_text("updating" if busy else "")

    def move(self, marks: Sequence[Marks], pinned: np.ndarray | None = None) -> None:
        """Move the marks; the fronts are not drawn again."""
        same = pinned is self._pinned and [mark.name for mark in marks] == [mark.name for mark in self._marks]
        self._marks, self._pinned = list(marks), pinned
        if not same:
            self.draw()
            return
        first = first_mark(len(self.fronts))
        changed = [xy(values, self._axes) for mark in marks for values in (mark.curve, mark.value)]
        indices = list(range(first, first + len(changed)))
        for index, coordinates in zip(indices, changed, strict=True):
            self._plot.figure["data"][index].update(coordinates)  # for whoever opens the page later
        moved = {axis: [coordinates[axis] for coordinates in changed] for axis in ("x", "y")}
        self._plot.run_plot_method("restyle", moved, indices)

    def draw(self, fronts: Sequence[Front] | None = None) -> None:
        """Draw everything, with other fronts if given."""
        if fronts is not None:
            self.fronts = list(fronts)
        self._plot.update_figure(self._figure())

    def _figure(self) -> dict[str, Any]:
        names, objectives = self._one.metrics, self._one.objectives
        main, better = len(objectives), self._one.sample.larger_is_better
        coloured = main if main == len(names) - 1 and main not in self._axes and main > 2 else None
        settings: dict[str, Any] = {"colour": coloured, "pinned": self._pinned, "larger_is_better": better}
        return figure(self.fronts, self._marks, names, objectives, self._axes, **settings)

    def _turned(self, _: Any) -> None:
        self._axes = (int(self._selects[0].value or 0), int(self._selects[1].value or 0))
        self.draw()

    def _clicked(self, event: Any) -> None:
        for hit in event.args.get("points") or []:
            curve, number = hit.get("curveNumber"), hit.get("pointNumber")
            if isinstance(curve, int) and isinstance(number, int) and 0 <= curve < len(self.fronts):
                points = self.fronts[curve].points
                if 0 <= number < len(points):
                    self._chosen(points[number])
                    return

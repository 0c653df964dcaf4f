"""Sliders and boxes of one point: weights that stay on the simplex, the scale, and temperatures where they can be had."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from hyperdpo.explorer.point import SCALES, Point, written
from hyperdpo.explorer.simplex import Simplex
from hyperdpo.plots import COLOURS

#: Of a slider of logarithms, and of one of weights: what an arrow key moves.
LOG_STEP, WEIGHT_STEP = 0.02, 0.01


class PointControls:
    """The controls of one point, which they hold as :attr:`point`.

    Args:
        objectives: m names.
        start: the first point.
        temperature_range: (m,) ends; None: temperatures stay as they are.
        changed: called after every change that the user made.
        label: what comes before the names of the controls for those who do not see them.
    """

    def __init__(
        self,
        objectives: tuple[str, ...],
        start: Point,
        temperature_range: Sequence[tuple[float, float]] | None,
        changed: Callable[[], None],
        label: str = "",
    ):
        self.objectives, self._changed = objectives, changed
        self._simplex = Simplex(start.weights)
        self._scale = start.scale
        self._temperatures = list(start.temperatures)
        self._setting = False
        prefix = f"{label}: " if label else ""
        with ui.column().classes("controls"):
            self._weights = [
                _Pair(
                    name,
                    f"{prefix}weight of {name}",
                    (0.0, 1.0),
                    lambda value, j=j: self._move_weight(j, value),
                    colour=COLOURS[j % len(COLOURS)],
                    step=WEIGHT_STEP,
                )
                for j, name in enumerate(objectives)
            ]
            if len(objectives) == 1:
                self._weights[0].disable()
            self._scales = _Pair(
                "scale c", f"{prefix}scale", SCALES, self._move_scale, logarithmic=True, hint="above 1: nearer to base"
            )
            self._betas = []
            if temperature_range is not None:
                with ui.expansion("temperatures β").classes("betas").props("dense"):
                    for j, (name, ends) in enumerate(zip(objectives, temperature_range, strict=True)):
                        colour = COLOURS[j % len(COLOURS)]
                        move = lambda value, j=j: self._move_beta(j, value)  # noqa: E731
                        pair = _Pair(
                            name, f"{prefix}temperature of {name}", ends, move, colour=colour, logarithmic=True
                        )
                        self._betas.append(pair)
        self._show()

    @property
    def point(self) -> Point:
        """What the controls say."""
        return Point(self._simplex.weights, self._scale, tuple(self._temperatures))

    def set(self, point: Point) -> None:
        """Go to a point; temperatures are left alone where there are no sliders for them."""
        self._simplex.set(point.weights)
        self._scale = written(point.scale)
        if self._betas:
            self._temperatures = [written(beta) for beta in point.temperatures]
        self._show()
        self._changed()

    def _move_weight(self, index: int, value: float) -> None:
        self._simplex.move(index, value)
        self._after(self._weights[index])

    def _move_scale(self, value: float) -> None:
        self._scale = written(min(max(value, SCALES[0]), SCALES[1]))
        self._after(self._scales)

    def _move_beta(self, index: int, value: float) -> None:
        low, high = self._betas[index].ends
        self._temperatures[index] = written(min(max(value, low), high))
        self._after(self._betas[index])

    def _after(self, moved: _Pair) -> None:
        self._show(moved)
        self._changed()

    def _show(self, moved: _Pair | None = None) -> None:
        """Bring the controls to the state; the slider that is being dragged stays under the finger."""
        for pair, weight in zip(self._weights, self._simplex.weights, strict=True):
            pair.show(weight, f"{weight:.4g}", pair is moved)
        self._scales.show(self._scale, f"{self._scale:g}", self._scales is moved)
        for pair, beta in zip(self._betas, self._temperatures, strict=True):
            pair.show(beta, f"{beta:g}", pair is moved)


class _Pair:
    """A slider with a box for the same number.

    Args:
        name, spoken: what it is called on the page, and by a screen reader.
        move: called with the number that the user chose.
    """

    def __init__(
        self,
        name: str,
        spoken: str,
        ends: tuple[float, float],
        move: Callable[[float], None],
        *,
        colour: str | None = None,
        logarithmic: bool = False,
        step: float = LOG_STEP,
        hint: str = "",
    ):
        self.ends, self._move, self._logarithmic = ends, move, logarithmic
        self._showing = False
        low, high = (math.log10(end) if logarithmic else end for end in ends)
        with ui.element("div").classes("pair"):
            with ui.element("div").classes("pair-name"):
                if colour is not None:
                    ui.element("span").classes("dot").style(f"background:{colour}").props("aria-hidden=true")
                ui.label(name).classes("ellipsis").props["title"] = name
                if hint:
                    ui.label(hint).classes("hint")
            # The value is set by `show`, so that nothing is announced before there is somebody to hear it.
            self._slider = ui.slider(min=low, max=high, step=step, value=low, on_change=self._slid)
            self._slider.props["aria-label"] = spoken
            if colour is not None:
                self._slider.style(f"--track:{colour}").classes("tinted")
            self._box = ui.number(min=ends[0], max=ends[1], value=ends[0]).props("dense outlined step=any")
            self._box.props["aria-label"] = f"{spoken}, number"
            self._box.on("change", self._typed, [None])

    def disable(self) -> None:
        self._slider.disable()
        self._box.disable()

    def show(self, value: float, text: str, moved: bool) -> None:
        """Show a number; a slider that was ``moved`` stays where it is, if that is the number."""
        place = math.log10(value) if self._logarithmic else value
        self._showing = True
        try:
            if not moved or abs(float(self._slider.value or 0) - place) > 0.011:
                self._slider.set_value(place)
            self._slider.props["aria-valuetext"] = text
            if self._box.value != value:
                self._box.set_value(value)
        finally:
            self._showing = False

    def _slid(self, event: Any) -> None:
        if not self._showing and event.value is not None:
            self._move(10.0**event.value if self._logarithmic else float(event.value))

    def _typed(self, event: Any) -> None:
        try:
            value = float(event.args)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value) or (self._logarithmic and value <= 0):
            self._box.update()  # back to what it was
            return
        self._move(value)

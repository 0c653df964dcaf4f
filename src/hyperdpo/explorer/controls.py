"""Sliders and boxes of one point: weights that stay on the simplex, the scale, and the main label's share and
temperatures if they can change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.element import Element

from hyperdpo.choosing.scales import SCALE_ENDS, SHARE_ENDS
from hyperdpo.core.point import Point
from hyperdpo.explorer.point import written
from hyperdpo.explorer.simplex import Simplex
from hyperdpo.plots import COLOURS

#: A dragged slider sends its place once in so many seconds.
SLIDE_SECONDS = 0.05
#: The step of an arrow key, on sliders of logarithms and of weights.
LOG_STEP, WEIGHT_STEP = 0.02, 0.01


class PointControls:
    """The controls of one point, which they hold as :attr:`point`.

    Args:
        objectives: m names.
        start: the first point; the main label's share has a slider if this names one.
        temperature_range: (m,) ends; None: temperatures stay as they are.
        changed: called after every change by the user.
        label: put before the names of the controls for screen readers.
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
        self._others = [start.scale, *start.temperatures]
        self._share = start.main_share
        prefix = f"{label}: " if label else ""
        colours = [COLOURS[j % len(COLOURS)] for j in range(len(objectives))]
        with ui.column().classes("controls"):
            self._weights = [
                _Pair(name, f"{prefix}weight of {name}", (0.0, 1.0), partial(self._move_weight, j), colour=colours[j])
                for j, name in enumerate(objectives)
            ]
            if len(objectives) == 1:
                self._weights[0].disable()
            hint = "above 1: nearer to base"
            scale = _Pair("scale c", f"{prefix}scale", SCALE_ENDS, partial(self._move, 0), middle=1.0, hint=hint)
            self._pairs = [scale]  # of the first of self._others, or of all
            if self._share is not None:
                spoken, hint = f"{prefix}main share", "the main label's part"
                self._share_pair = _Pair("main share λ", spoken, SHARE_ENDS, self._move_share, hint=hint)
            if temperature_range is not None:
                with ui.expansion("temperatures β").classes("betas").props("dense"):
                    for j, (name, ends) in enumerate(zip(objectives, temperature_range, strict=True)):
                        spoken, move = f"{prefix}temperature of {name}", partial(self._move, j + 1)
                        pair = _Pair(name, spoken, ends, move, colour=colours[j], middle=start.temperatures[j])
                        self._pairs.append(pair)
        self._show()

    @property
    def point(self) -> Point:
        """The point that the controls show."""
        scale, *temperatures = self._others
        return Point(self._simplex.weights, scale, tuple(temperatures), self._share)

    def set(self, point: Point) -> None:
        """Go to a point; temperatures without sliders stay as they are, and so does a share that it does not name."""
        self._simplex.set(point.weights)
        if self._share is not None and point.main_share is not None:
            self._share = written(point.main_share)
        values = [written(value) for value in (point.scale, *point.temperatures)]
        self._others[: len(self._pairs)] = values[: len(self._pairs)]
        self._show()
        self._changed()

    def _move_weight(self, index: int, value: float) -> None:
        self._simplex.move(index, value)
        self._show()
        self._changed()

    def _move(self, index: int, value: float) -> None:
        """Set the scale (0) or a temperature (from 1)."""
        self._others[index] = written(value)
        self._show()
        self._changed()

    def _move_share(self, value: float) -> None:
        self._share = written(value)
        self._show()
        self._changed()

    def _show(self) -> None:
        """Bring sliders and boxes to the state."""
        values = [*self._simplex.weights, *self._others]
        for pair, value in zip([*self._weights, *self._pairs], values, strict=False):  # sliders may be fewer
            pair.show(value)
        if self._share is not None:
            self._share_pair.show(self._share)


class Slider(Element, component="range.js"):
    """A range input that sends its place at most twenty times a second, and always the last one.

    Args:
        slid: called with the place that the user chose.
    """

    def __init__(self, low: float, high: float, step: float, slid: Callable[[float], None], spoken: str):
        super().__init__()
        self._props |= {"min": low, "max": high, "step": step, "value": low, "aria-label": spoken}
        self.on("slide", lambda event: slid(float(event.args)), throttle=SLIDE_SECONDS)

    def show(self, place: float, spoken: str) -> None:
        """Go to a place; screen readers read ``spoken``."""
        if self._props["value"] != place or self._props.get("aria-valuetext") != spoken:
            self._props |= {"value": place, "aria-valuetext": spoken}
            self.update()


class _Pair:
    """A slider with a box for the same number.

    Args:
        name, spoken: its name on the page, and for a screen reader.
        ends: the least and the largest number.
        move: called with the number that the user chose.
        middle: the slider shows the logarithm of the number over this one, so that it can hit this one; None: the
            number itself.
    """

    def __init__(
        self,
        name: str,
        spoken: str,
        ends: tuple[float, float],
        move: Callable[[float], None],
        *,
        colour: str | None = None,
        middle: float | None = None,
        hint: str = "",
    ):
        self.ends, self._move, self._middle = ends, move, middle
        places, step = ends, WEIGHT_STEP
        if middle is not None:
            step = LOG_STEP
            low, high = (math.log10(end / middle) / step for end in ends)
            places = (math.floor(low + 1e-9) * step, math.ceil(high - 1e-9) * step)
        self._places = places
        with ui.element("div").classes("pair"):
            with ui.element("div").classes("pair-name"):
                if colour is not None:
                    ui.element("span").classes("dot").style(f"background:{colour}").props("aria-hidden=true")
                ui.label(name).classes("ellipsis").props["title"] = name
                if hint:
                    ui.label(hint).classes("hint")
            self._slider = Slider(*places, step, self._slid, spoken)
            if colour is not None:
                self._slider.style(f"--tint:{colour}")
            self._box = ui.number(min=ends[0], max=ends[1], value=ends[0], format="%.4g").props(
                "dense outlined step=any"
            )
            self._box.props["aria-label"] = f"{spoken}, number"
            self._box.on("change", self._typed, [None])

    def disable(self) -> None:
        """Make it read-only."""
        self._slider.props("disabled")
        self._box.disable()

    def show(self, value: float) -> None:
        """Show a number."""
        self._slider.show(value if self._middle is None else math.log10(value / self._middle), f"{value:g}")
        if self._box.value != value:
            self._box.set_value(value)

    def _slid(self, place: float) -> None:
        low, high = self._places
        value = place if self._middle is None else self._middle * 10.0**place
        if self._middle is not None and not low + 1e-9 < place < high - 1e-9:
            value = self.ends[int(place > low + 1e-9)]
        self._move(min(max(value, self.ends[0]), self.ends[1]))

    def _typed(self, event: Any) -> None:
        try:
            value = float(event.args)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            self._box.update()  # back to what it was
            return
        self._move(min(max(value, self.ends[0]), self.ends[1]))

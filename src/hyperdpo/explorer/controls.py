"""Sliders and boxes of one point: weights that stay on the simplex, the scale, and temperatures where they may move."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.element import Element

from hyperdpo.choosing.scales import SCALE_ENDS
from hyperdpo.core.point import Point
from hyperdpo.explorer.point import written
from hyperdpo.explorer.simplex import Simplex
from hyperdpo.plots import COLOURS

#: A slider that is dragged is heard this often.
SLIDE_SECONDS = 0.05
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
        prefix = f"{label}: " if label else ""
        with ui.column().classes("controls"):
            self._weights = [
                _Pair(
                    name,
                    f"{prefix}weight of {name}",
                    (0.0, 1.0),
                    partial(self._move_weight, j),
                    colour=COLOURS[j % len(COLOURS)],
                )
                for j, name in enumerate(objectives)
            ]
            if len(objectives) == 1:
                self._weights[0].disable()
            self._scales = _Pair(
                "scale c", f"{prefix}scale", SCALE_ENDS, self._move_scale, middle=1.0, hint="above 1: nearer to base"
            )
            self._betas = []
            if temperature_range is not None:
                with ui.expansion("temperatures β").classes("betas").props("dense"):
                    for j, (name, ends) in enumerate(zip(objectives, temperature_range, strict=True)):
                        colour = COLOURS[j % len(COLOURS)]
                        move = partial(self._move_beta, j)
                        middle = start.temperatures[j]
                        pair = _Pair(name, f"{prefix}temperature of {name}", ends, move, colour=colour, middle=middle)
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
        self._after()

    def _move_scale(self, value: float) -> None:
        self._scale = written(value)
        self._after()

    def _move_beta(self, index: int, value: float) -> None:
        self._temperatures[index] = written(value)
        self._after()

    def _after(self) -> None:
        self._show()
        self._changed()

    def _show(self) -> None:
        """Bring sliders and boxes to the state."""
        for pair, weight in zip(self._weights, self._simplex.weights, strict=True):
            pair.show(weight)
        self._scales.show(self._scale)
        for pair, beta in zip(self._betas, self._temperatures, strict=False):  # no sliders: they stay
            pair.show(beta)


class Slider(Element, component="range.js"):
    """A range input that sends where it is at most twenty times a second, the last place for certain.

    Args:
        slid: called with the number, which the user chose.
    """

    def __init__(self, low: float, high: float, step: float, slid: Callable[[float], None], spoken: str):
        super().__init__()
        self._props |= {"min": low, "max": high, "step": step, "value": low, "aria-label": spoken}
        self.on("slide", lambda event: slid(float(event.args)), throttle=SLIDE_SECONDS)

    def show(self, place: float, spoken: str) -> None:
        """Go to a place, which is read out as ``spoken``."""
        if self._props["value"] != place or self._props.get("aria-valuetext") != spoken:
            self._props |= {"value": place, "aria-valuetext": spoken}
            self.update()


class _Pair:
    """A slider with a box for the same number.

    Args:
        name, spoken: what it is called on the page, and by a screen reader.
        ends: of the number.
        move: called with the number that the user chose.
        middle: the slider has the logarithm of the number over this one, which it can hit; None: the number itself.
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
        """There is nothing to choose."""
        self._slider.props("disabled")
        self._box.disable()

    def show(self, value: float) -> None:
        """Show a number."""
        self._slider.show(value if self._middle is None else math.log10(value / self._middle), f"{value:g}")
        if self._box.value != value:
            self._box.set_value(value)

    def _slid(self, place: float) -> None:
        low, high = self._places
        if self._middle is None:
            value = place
        elif place <= low + 1e-9:
            value = self.ends[0]
        elif place >= high - 1e-9:
            value = self.ends[1]
        else:
            value = self._middle * 10.0**place
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

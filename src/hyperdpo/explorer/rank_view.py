"""The page of a ranker: sliders, the front, and a query's list re-ranked at the point."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from nicegui import run as threads
from nicegui import ui

from hyperdpo.core.point import Point
from hyperdpo.errors import InputError
from hyperdpo.explorer.controls import PointControls
from hyperdpo.explorer.front import Front, Marks
from hyperdpo.explorer.front_view import FrontView
from hyperdpo.explorer.parts import LIVE_SECONDS, Latest, SnippetBox, card, heading
from hyperdpo.explorer.rank_state import RankExplorer, Row, clipped, shared_range
from hyperdpo.explorer.snippets import rank_snippets
from hyperdpo.explorer.tables import explanation_table, list_table, metric_table
from hyperdpo.ranking.explanation import Explanation

#: The most queries that a list offers; among more, the visitor searches by name.
MOST_QUERIES = 300
BOTH = "both"
#: Lists that take no longer are drawn at once, without a thread.
INLINE_SECONDS = 0.03

#: Tells the server which row of a list an event was about.
CHOSEN_ROW = """event => {
  const row = event.target.closest('tr[data-row]');
  if (row) emit(Number(row.dataset.row));
}"""

#: Rows, and (K,) metrics at the point and at the pinned one.
ListView = tuple[list[Row], np.ndarray, np.ndarray]


class RankView:
    """The page of one visitor.

    Args:
        explorers: one run, or two to compare.
        fronts: the front of each, at its own temperatures.
        data: the file, as the user named it.
        base_scores: the option that was given, for the commands to copy.
    """

    def __init__(self, explorers: Sequence[RankExplorer], fronts: Sequence[Front], data: Path, base_scores: str | None):
        self.explorers, self._data, self._base_option = list(explorers), data, base_scores
        self.first = first = self.explorers[0]
        self._range = shared_range(self.explorers)
        self._pinned: Point | None = None
        self._pinned_values = [one.at(None) for one in self.explorers]
        self._group = 0
        self._document: tuple[int, int] | None = None
        self._shown = str(first.path)
        self._whole: list[tuple[np.ndarray, np.ndarray]] = []
        self._views: list[ListView] = []
        self._drawn: object = None
        self._list_seconds = math.inf
        self._whole_seconds = 0.0
        self._front_dials = [_dials(front.points[0]) for front in fronts]
        self._queries = first.queries()
        with ui.element("main").classes("page rank") as root:
            self._latest = Latest(self._react, root)
            self._latest_why = Latest(self._explain, root)
            heading(self.explorers, f"ranker ({first.run.config.parametrization}) on {self._data}")
            with card("operating point", "area-controls"):
                self._control_card()
            with card("front", "area-front"):
                note = f"{first.description}. A click on a point of the front goes there."
                self._front = FrontView(first, fronts, self._go, note)
            with card("ranked list", "area-list"):
                self._list_card()
            with card("copy", "area-copy"):
                self._snippets = SnippetBox()
        self._changed()

    # What is on the page

    def _control_card(self) -> None:
        first = self.first
        start = first.start()
        if self._range is not None:
            start = replace(start, temperatures=clipped(start.temperatures, self._range))
        self._controls = PointControls(first.objectives, start, self._range, self._changed)
        self._end_note = ui.label("").classes("note").props("role=status data-status=temperatures")
        with ui.element("div").classes("row"):
            ui.button("pin this point", icon="push_pin", on_click=self._pin).props('outline no-caps padding="2px 10px"')
            ui.button("compare with base", on_click=self._unpin).props('flat no-caps padding="2px 10px"')
        self._pin_note = ui.label("moves are against the base").classes("note").props("role=status")

    def _list_card(self) -> None:
        with ui.element("div").classes("row"):
            many = len(self._queries) > MOST_QUERIES
            options = dict(list(enumerate(self._queries))[:MOST_QUERIES])
            if many:
                find = ui.input("find a query", on_change=lambda e: self._find(str(e.value or "")))
                find.props("dense outlined clearable debounce=200").classes("grow")
            self._select = ui.select(options, value=0, label="query", with_input=not many, on_change=self._chose_query)
            self._select.props("dense outlined options-dense").classes("grow")
            if len(self.explorers) > 1:
                choices = [*(str(one.path) for one in self.explorers), BOTH]
                shown = ui.select(choices, value=self._shown, label="list of", on_change=self._chose_run)
                shown.props("dense outlined options-dense").classes("grow")
        self._metrics = ui.html("", sanitize=False).classes("w-full overflow-x-auto").props("data-part=metrics")
        with ui.element("div").classes("sides w-full"):
            self._boxes, self._tables = [], []
            for number in range(len(self.explorers)):
                with ui.element("div").classes("scroll").props('tabindex=0 role=region aria-label="list"') as box:
                    # The tables escape what they hold.
                    table = ui.html("", sanitize=False).props(f"data-part=list{number}")
                    for event in ("click", "keydown.enter"):
                        table.on(event, partial(self._chose_document, number), js_handler=CHOSEN_ROW)
                    self._tables.append(table)
                box.set_visibility(number == 0)
                self._boxes.append(box)
        ui.label("A click on a document says why it is there.").classes("note")
        self._why = (
            ui.html("", sanitize=False).classes("w-full overflow-x-auto").props("data-part=why aria-live=polite")
        )

    # What the visitor does

    def _changed(self) -> None:
        point = self._controls.point
        first, base = self.first, self._base_option
        self._snippets.show(rank_snippets(first.path, self._data, first.objectives, point, first.betas, base))
        self._end_note.set_text(self.first.at_trained_end(point))
        self._ask()

    def _ask(self) -> None:
        """Show the new state: the lists at once, where that is quick, and then all the rest."""
        if self._list_seconds <= INLINE_SECONDS:
            self._draw_lists(self._lists(), self._key())
        self._latest.ask()
        self._latest_why.ask()

    def _go(self, point: Point) -> None:
        # Share and temperatures stay: they are those of the front.
        current = self._controls.point
        self._controls.set(replace(current, weights=point.weights, scale=1.0))

    def _pin(self) -> None:
        self._pinned = self._controls.point
        self._pin_note.set_text(f"moves are against {self._pinned.describe(self.first.objectives)}")
        self._pinned_values = []
        self._ask()

    def _unpin(self) -> None:
        self._pinned, self._pinned_values = None, []
        self._pin_note.set_text("moves are against the base")
        self._ask()

    def _find(self, text: str) -> None:
        found = {i: name for i, name in enumerate(self._queries) if text.lower() in name.split(" · ")[0].lower()}
        options = dict(list(found.items())[:MOST_QUERIES])
        if options:
            self._select.set_options(options, value=self._group if self._group in options else next(iter(options)))

    def _chose_query(self, event: Any) -> None:
        if isinstance(event.value, int):
            self._group, self._document = event.value, None
            self._list_seconds = math.inf  # its features are read first
            self._ask()

    def _chose_document(self, number: int, event: Any) -> None:
        """A row of the list of a run was clicked."""
        self._document = number, int(event.args)
        self._latest_why.ask()

    def _chose_run(self, event: Any) -> None:
        self._shown = str(event.value)
        shown = [number for number, _ in self._shown_runs()]
        for number, box in enumerate(self._boxes):
            box.set_visibility(number in shown)
        self._ask()

    def _shown_runs(self) -> list[tuple[int, RankExplorer]]:
        """The runs whose lists are shown, with their numbers."""
        return [(n, one) for n, one in enumerate(self.explorers) if self._shown in (str(one.path), BOTH)]

    # What follows

    def _point_of(self, one: RankExplorer, point: Point | None) -> Point | None:
        """The same point for a run that takes other dials: those that the first run has not are its own."""
        if point is None or one is self.first:
            return point
        own = one.start()
        if self._range is None or one.temperature_range is None:
            point = replace(point, temperatures=own.temperatures)
        if point.main_share is None or own.main_share is None:
            point = replace(point, main_share=own.main_share)
        return point

    def _lists(self) -> list[ListView]:
        """The lists that are shown, at the point."""
        started = time.monotonic()
        point = self._controls.point
        found = [
            one.list_view(self._group, self._given(one, point), self._point_of(one, self._pinned))
            for _, one in self._shown_runs()
        ]
        self._list_seconds = time.monotonic() - started
        return found

    def _draw_lists(self, views: list[ListView], key: object) -> None:
        self._views, self._drawn = views, key
        for (number, one), (rows, _, _) in zip(self._shown_runs(), views, strict=True):
            caption = self._queries[self._group] + (f", {one.path}" if len(self.explorers) > 1 else "")
            self._tables[number].set_content(list_table(rows, one.metrics, one.minimized, caption))
        self._show_metrics(self._whole if self._whole_seconds <= LIVE_SECONDS and self._whole else None)

    def _key(self) -> object:
        """All that the lists depend on."""
        return self._controls.point, self._pinned, self._group, self._shown

    async def _react(self) -> None:
        point, key = self._controls.point, self._key()
        if self._drawn != key:
            views = await threads.io_bound(self._lists)
            if views is None:  # the server is going down
                return
            if self._key() != key:
                return
            self._draw_lists(views, key)
        if self._whole_seconds > LIVE_SECONDS:
            self._front.busy(True)
            if not await self._latest.pause():
                return
        started = time.monotonic()
        whole = await threads.io_bound(self._measure, point)
        if whole is None:
            return
        self._whole_seconds = time.monotonic() - started
        if self._latest.stale and self._whole_seconds > LIVE_SECONDS:
            return
        self._whole = whole
        self._show_metrics(whole)
        await self._move_front(point)

    async def _explain(self) -> None:
        """Say why the chosen document is where it is."""
        if (chosen := self._document) is None or self._shown not in (str(self.explorers[chosen[0]].path), BOTH):
            self._why.set_content("")
            return
        one = self.explorers[chosen[0]]
        found = await threads.io_bound(self._explanation, one, self._group, self._given(one, self._controls.point))
        if found is not None and self._document == chosen:
            text = found if isinstance(found, str) else explanation_table(found, chosen[1])
            self._why.set_content(text)

    def _explanation(self, one: RankExplorer, group: int, point: Point) -> Explanation | str:
        """An explanation, or the reason why there is none, as HTML."""
        try:
            return one.explanation(group, point)
        except InputError as error:
            return f'<p class="note">{escape(str(error))}</p>'

    def _given(self, one: RankExplorer, point: Point) -> Point:
        found = self._point_of(one, point)
        assert found is not None
        return found

    def _measure(self, point: Point) -> list[tuple[np.ndarray, np.ndarray]]:
        if not self._pinned_values:
            self._pinned_values = [one.at(self._point_of(one, self._pinned)) for one in self.explorers]
        return [one.here(self._given(one, point)) for one in self.explorers]

    def _show_metrics(self, whole: Sequence[tuple[np.ndarray, np.ndarray]] | None) -> None:
        pinned = "base" if self._pinned is None else "pinned"
        content = ""
        for (number, one), (_, here, before) in zip(self._shown_runs(), self._views, strict=True):
            everywhere = None
            if whole is not None and self._pinned_values:
                everywhere = (whole[number][0], self._pinned_values[number])
            caption = one.settings.describe() + (f", {one.path}" if len(self.explorers) > 1 else "")
            content += metric_table(one.metrics, (here, before), everywhere, caption, pinned)
        self._metrics.set_content(content)

    async def _move_front(self, point: Point) -> None:
        points = [self._given(one, point) for one in self.explorers]
        wanted = [_dials(one) for one in points]
        several = len(self.explorers) > 1
        marks = [
            Marks(str(one.path) if several else "now", number, value, curve)
            for number, (one, (value, curve)) in enumerate(zip(self.explorers, self._whole, strict=True))
        ]
        pinned = self._pinned_values[0] if self._pinned is not None and self._pinned_values else None
        if wanted == self._front_dials:
            self._front.move(marks, pinned)
            self._front.busy(False)
            return
        self._front.busy(True)
        self._front.move(marks, pinned)
        if not await self._latest.pause():
            return
        fronts = await threads.io_bound(lambda: [one.front(at) for one, at in zip(self.explorers, points, strict=True)])
        if fronts is not None:
            self._front_dials = wanted
            self._front.draw(fronts)
            self._front.busy(self._latest.stale)


def _dials(point: Point) -> tuple[tuple[float, ...], float | None]:
    """What a front depends on: temperatures and share."""
    return point.temperatures, point.main_share

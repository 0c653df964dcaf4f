"""The page of a language model: a prompt, its answers at two or three points side by side, and the front."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nicegui import app, ui
from nicegui import run as threads

from hyperdpo.core.point import Point
from hyperdpo.errors import InputError
from hyperdpo.explorer.controls import PointControls
from hyperdpo.explorer.front import Front, Marks
from hyperdpo.explorer.front_view import FrontView
from hyperdpo.explorer.lm_state import AlignExplorer
from hyperdpo.explorer.parts import Latest, SnippetBox, card, heading
from hyperdpo.explorer.snippets import align_snippets
from hyperdpo.explorer.state import measured_on
from hyperdpo.explorer.tables import number

NAMES = ("A", "B", "C")
#: What stops the answers of each open page.
OPEN: set[threading.Event] = set()
#: Longest answer that can be asked for, in tokens.
MOST_TOKENS = 4096


class _Column:
    """One weighting with its answer."""

    def __init__(self, view: LmView, number: int, start: Point):
        self.name = NAMES[number]
        explorers = view.explorers
        with card(f"answer {self.name}") as self.card:
            with ui.element("div").classes("row"):
                ui.label(self.name).props("role=heading aria-level=2").classes("font-bold grow")
                self.metrics = ui.label("").classes("note")
            self.run_of: Any = None
            if len(explorers) > 1:
                options = {i: str(one.path) for i, one in enumerate(explorers)}
                self.run_of = ui.select(options, value=number % len(explorers), label="run", on_change=view.changed)
                self.run_of.props("dense outlined options-dense")
            self.controls = PointControls(explorers[0].objectives, start, None, view.changed, self.name)
            self.answer = ui.label("").classes("answer").props(f'aria-live=polite data-answer="{self.name}"')
            self.snippets = SnippetBox(folded=True)

    @property
    def run(self) -> int:
        """The number of the run that answers."""
        return 0 if self.run_of is None else int(self.run_of.value or 0)


class LmView:
    """The page of one visitor.

    Args:
        explorers: one run, or two to compare.
        fronts: the front of each, where there are data.

    Attributes:
        stop: set to end the answers that are being written.
    """

    def __init__(self, explorers: Sequence[AlignExplorer], fronts: Sequence[Front]):
        self.explorers, self._fronts = list(explorers), list(fronts)
        self.first = first = self.explorers[0]
        self.stop = threading.Event()
        self._front: FrontView | None = None
        self._columns: list[_Column] = []
        with ui.element("main").classes("page lm") as self._root:
            self._latest = Latest(self._react, self._root)
            notes = dict.fromkeys(one.base_note for one in self.explorers)
            heading(self.explorers, f"language model, for {', '.join(first.objectives)}{''.join(notes)}")
            with card("prompt"):
                self._prompt_card()
            with ui.element("div").classes("columns"):
                self._columns = [_Column(self, n, start) for n, start in enumerate(first.starts(len(NAMES)))]
            if fronts:
                with card("front"):
                    self._front_card()
        self._show_columns()
        OPEN.add(self.stop)
        client = ui.context.client
        client.on_disconnect(self.stop.set)
        client.on_delete(self.close)

    def close(self) -> None:
        """Stop the answers and forget the page: the visitor will not come back."""
        self.stop.set()
        OPEN.discard(self.stop)

    # What is on the page

    def _prompt_card(self) -> None:
        prompts = self.first.prompts
        if prompts:
            shown = {i: text if len(text) <= 90 else text[:89] + "…" for i, text in enumerate(prompts)}
            examples = ui.select(shown, label="examples", with_input=True, on_change=self._chose_example)
            examples.props("dense outlined options-dense").classes("w-full")
        start = prompts[0] if prompts else ""
        self._prompt = ui.textarea("prompt", value=start, on_change=self.changed).props("outlined autogrow rows=2")
        self._prompt.classes("w-full")
        with ui.element("div").classes("row"):
            self._go = ui.button("generate", icon="play_arrow", on_click=self._generate).props("no-caps")
            self._halt = ui.button("stop", icon="stop", on_click=self.stop.set).props("no-caps outline")
            self._halt.disable()
            self._tokens = ui.number("tokens", value=64, min=1, max=MOST_TOKENS, precision=0).props("dense outlined")
            self._tokens.classes("w-24")
            self._sampled = ui.switch("sample")
            self._heat = ui.number("temperature", value=1.0, min=0.05, max=5, step=0.05).props("dense outlined")
            self._heat.classes("w-28").bind_enabled_from(self._sampled, "value")
            self._seed = ui.number("seed", value=0, min=0, precision=0).props("dense outlined").classes("w-24")
            self._seed.bind_enabled_from(self._sampled, "value")
            self._count = ui.toggle({2: "2 answers", 3: "3 answers"}, value=2, on_change=self._show_columns)
            self._count.props('no-caps padding="4px 12px"')
            self._status = ui.label("").classes("note").props("role=status data-status=answers")

    def _front_card(self) -> None:
        what = f"Cross-entropy error, and accuracy of pairs, on {measured_on(self.first.groups, self.first.split)}"
        note = f"{what}. A click on a point of the front moves the answer chosen here:"
        self._front = FrontView(self.first, self._fronts, self._go_to, note)
        self._target = (
            ui.toggle({0: "A", 1: "B", 2: "C"}, value=0).props('no-caps padding="2px 12px"').classes("self-start")
        )

    def _shown(self) -> list[_Column]:
        return self._columns[: int(self._count.value or 2)]

    # What the visitor does

    def _show_columns(self, _: Any = None) -> None:
        for column in self._columns:
            column.card.set_visibility(column in self._shown())
        if self._front is not None:
            names = {n: column.name for n, column in enumerate(self._shown())}
            self._target.set_options(names, value=self._target.value if self._target.value in names else 0)
        self.changed()

    def _chose_example(self, event: Any) -> None:
        if isinstance(event.value, int):
            self._prompt.set_value(self.first.prompts[event.value])

    def _go_to(self, point: Point) -> None:
        controls = self._columns[int(self._target.value or 0)].controls
        controls.set(replace(controls.point, weights=point.weights, scale=1.0))

    def changed(self, _: Any = None) -> None:
        """React to another point, run or prompt."""
        for column in self._columns:
            one = self.explorers[column.run]
            prompt = str(self._prompt.value or "")
            column.snippets.show(align_snippets(one.path, one.objectives, column.controls.point, prompt))
        self._latest.ask()

    async def _generate(self) -> None:
        columns, prompt = self._shown(), str(self._prompt.value or "")
        settings: dict[str, Any] = {
            "max_new_tokens": max(1, min(int(self._tokens.value or 1), MOST_TOKENS)),
            "do_sample": bool(self._sampled.value),
            "seed": int(self._seed.value or 0),
        }
        if self._sampled.value:
            settings |= {"temperature": float(self._heat.value or 1.0), "top_k": 0}
        self.stop.clear()
        self._go.disable()
        self._halt.enable()
        self._status.set_text("generating")
        for column in columns:
            column.answer.set_text("")
        loop = asyncio.get_running_loop()
        try:
            for number, one in enumerate(self.explorers):
                mine = [column for column in columns if column.run == number]
                if not mine:
                    continue

                def told(texts: list[str], mine: list[_Column] = mine) -> None:
                    loop.call_soon_threadsafe(_show_texts, mine, texts)

                points = [column.controls.point for column in mine]
                await threads.io_bound(one.answers, prompt, points, told, self.stop, **settings)
            self._status.set_text("stopped" if self.stop.is_set() else "done")
        except (InputError, ValueError, RuntimeError) as error:  # a length or setting that the model cannot have
            self._status.set_text(" ".join(str(error).split()))
        finally:
            self._go.enable()
            self._halt.disable()

    # What follows

    async def _react(self) -> None:
        if self._front is None:
            return
        self._front.busy(True)
        if not await self._latest.pause():
            return
        columns = self._shown()
        chosen = [(column, self.explorers[column.run], column.controls.point) for column in columns]
        found = await threads.io_bound(lambda: [one.here(point) for _, one, point in chosen])
        if found is None or self._latest.stale:
            return
        for column, (value, _) in zip(columns, found, strict=True):
            named = zip(self.first.objectives, value, strict=False)  # accuracies follow
            column.metrics.set_text("error: " + ", ".join(f"{name} {number(v)}" for name, v in named))
        marks = zip(columns, found, strict=True)
        self._front.move([Marks(column.name, column.run, value, curve) for column, (value, curve) in marks])
        self._front.busy(False)


def stop_all() -> None:
    """Stop all answers, so that none delays the server's end."""
    for stop in list(OPEN):
        stop.set()


app.on_shutdown(stop_all)


def _show_texts(columns: Sequence[_Column], texts: Sequence[str]) -> None:
    for column, text in zip(columns, texts, strict=True):
        column.answer.set_text(text.lstrip())

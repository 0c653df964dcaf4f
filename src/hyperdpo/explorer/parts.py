"""Parts of both pages: the heading, cards, work on the latest state only, and texts to copy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from nicegui import background_tasks, ui

from hyperdpo.errors import InputError
from hyperdpo.explorer.snippets import Snippets
from hyperdpo.explorer.state import Explorer

#: Shorter work follows a drag; longer work waits for its end, that is, for this long without a change.
LIVE_SECONDS, PAUSE_SECONDS = 0.05, 0.2


#: Copies the text of element ID, and tells the server whether that worked.
COPY = """() => {
  if (!navigator.clipboard) return emit(false);
  navigator.clipboard.writeText(getHtmlElement(ID).textContent).then(() => emit(true), () => emit(false));
}"""


def heading(explorers: Sequence[Explorer], text: str) -> None:
    """The names of the runs, and a line about them."""
    with ui.element("header"):
        title = ui.label(" and ".join(str(one.path) for one in explorers)).props("role=heading aria-level=1")
        title.classes("text-lg font-bold").style("overflow-wrap: anywhere")
        ui.label(text).classes("note")


def card(label: str, area: str = "") -> ui.element:
    """A box, to be filled in a ``with`` block."""
    return ui.element("section").classes(f"card {area}").props(f'aria-label="{label}"')


class Latest:
    """Runs a job for the latest state. However often it is asked for during a job, it runs once more afterwards.

    Args:
        job: reads the state itself; it may stop early where :attr:`stale` says that the state has changed.
        root: where messages about bad input are shown.
    """

    def __init__(self, job: Callable[[], Awaitable[None]], root: ui.element):
        self._job, self._root = job, root
        self._task: asyncio.Task[None] | None = None
        self.stale = False

    def ask(self) -> None:
        """The state has changed."""
        self.stale = True
        if self._task is None or self._task.done():
            self._task = background_tasks.create(self._work())

    async def pause(self) -> bool:
        """Wait for the end of a drag; False if the state changed meanwhile."""
        ends = time.monotonic() + PAUSE_SECONDS
        while not self.stale and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        return not self.stale

    async def _work(self) -> None:
        while self.stale:
            self.stale = False
            try:
                await self._job()
            except InputError as error:
                with self._root:
                    ui.notify(str(error), type="negative")


class SnippetBox:
    """Texts to copy, each with a button; a text can also be selected."""

    def __init__(self, title: str = "Copy this point", *, folded: bool = False):
        self._texts: dict[str, ui.label] = {}
        with ui.expansion(title, value=not folded).props("dense").classes("w-full expand"):
            for name in ("Command line", "JSON", "Python"):
                with ui.row().classes("row w-full"):
                    ui.label(name).classes("grow")
                    button = ui.button("copy", icon="content_copy")
                    button.props["aria-label"] = f"copy as {name}"
                    button.props('flat no-caps padding="2px 8px" size="12px"')
                text = ui.label("").classes("snippet").props(f'data-snippet="{name}"')
                self._texts[name] = text
                # In the browser: some let a page copy only in direct answer to a click.
                script = COPY.replace("ID", str(text.id))
                button.on("click", partial(self._told, name), js_handler=script)

    def show(self, snippets: Snippets) -> None:
        """Show the texts of a point."""
        for label, text in zip(self._texts.values(), snippets, strict=True):
            label.set_text(text)

    def _told(self, name: str, event: Any) -> None:
        ui.notify(f"copied as {name}" if event.args else "this browser does not copy from here: select the text")

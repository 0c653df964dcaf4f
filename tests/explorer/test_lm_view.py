"""What a language model's page leaves behind when it is closed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nicegui import Client, app, core
from nicegui.page import page

from hyperdpo.core.point import Point
from hyperdpo.explorer import lm_view


class Looked:
    """As much of an explorer as the page asks for before anything is generated."""

    path, objectives, prompts, base_note = Path("run"), ("a", "b"), ("once",), "; base dequantised from t.gguf (Q8_0)"

    def starts(self, columns: int) -> list[Point]:
        return [Point((0.5, 0.5), 1.0, (1.0, 1.0))] * columns


def test_the_heading_says_once_that_the_base_is_dequantised():
    async def visit() -> list[str]:
        core.loop = asyncio.get_running_loop()
        client = Client(page("/"), request=None)
        with client:
            lm_view.LmView([Looked(), Looked()], [])  # type: ignore[list-item]
        shown = [str(getattr(one, "text", "")) for one in client.elements.values()]
        client.delete()
        return shown

    assert "language model, for a, b; base dequantised from t.gguf (Q8_0)" in asyncio.run(visit())


def test_a_closed_page_leaves_nothing_to_be_told_of_a_shutdown():
    async def visits() -> tuple[int, int, list[bool]]:
        core.loop = asyncio.get_running_loop()
        clients, views = [], []
        for _ in range(3):
            clients.append(Client(page("/"), request=None))
            with clients[-1]:
                views.append(lm_view.LmView([Looked()], []))  # type: ignore[list-item]
        for client in clients[:2]:
            client.delete()
        left = len(lm_view.OPEN)
        stopped = [view.stop.is_set() for view in views]
        lm_view.stop_all()
        assert views[2].stop.is_set()
        clients[2].delete()
        return left, len(lm_view.OPEN), stopped

    handlers = list(app._shutdown_handlers)
    assert asyncio.run(visits()) == (1, 0, [True, True, False])
    assert app._shutdown_handlers == handlers

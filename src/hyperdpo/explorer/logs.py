"""What the page's server prints: nothing about messages that no page sends, and one line for a failure of the page."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

#: Loggers that print a traceback for every malformed message. What the page itself does wrong is logged by another.
_OF_MESSAGES = ("engineio.server", "socketio.server")


class OneLine(logging.Formatter):
    """A record as one line. An error's traceback is its last place."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        error = record.exc_info[1] if record.exc_info else None
        said = " ".join(record.getMessage().split())
        if error is None:
            return f"{record.levelname.lower()}: explore: {said}"
        places = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(places[-1].filename).name}:{places[-1].lineno})" if places else ""
        own = " ".join(str(error).split())
        more = "" if said == own or not said else f"{said}: "
        return f"{record.levelname.lower()}: explore: {more}{type(error).__name__}{': ' if own else ''}{own}{where}"


def quiet_logs() -> None:
    """Set the loggers of the server's parts."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    for name in _OF_MESSAGES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    of_page = logging.getLogger("nicegui")
    of_page.handlers, of_page.propagate = [handler], False


class ClosedAtMalformed:
    """Middleware that closes a websocket whose message its handler could not read, which would be a traceback."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception:  # whatever the socket's protocol raises; handlers of the page have their own place
            with contextlib.suppress(Exception):  # it may have been closed
                await send({"type": "websocket.close", "code": 1002})


def ignore_malformed_messages() -> None:
    """Say nothing where the running loop's socket server fails at a message; anything else is said as before."""
    loop = asyncio.get_running_loop()

    def told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        work = getattr(context.get("future"), "get_coro", lambda: None)()
        if not getattr(work, "__qualname__", "").startswith("AsyncServer."):
            loop.default_exception_handler(context)

    loop.set_exception_handler(told)

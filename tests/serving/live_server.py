"""A real server in a thread, for tests of what clients see."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from helpers import free_port

from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.process import configuration


@contextlib.contextmanager
def running(app: Any, server: Server | None = None, *, access_log: bool = False) -> Iterator[str]:
    """A real server in a thread, with the connections of ``hyperdpo serve``; its URL."""
    port = free_port()
    config = configuration(app, server or Server(), grace=0, access_log=access_log)
    config.port = port
    process = uvicorn.Server(config)
    thread = threading.Thread(target=process.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not process.started:
        assert time.monotonic() < deadline
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.should_exit = True
        thread.join(30)

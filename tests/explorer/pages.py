"""The explorer as a process of its own, and its page in a browser."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from helpers import free_port, subprocess_environment


@dataclass
class Looked:
    """A page in a browser, with what went wrong on it."""

    page: Any
    url: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, selector: str) -> None:
        self.page.goto(self.url)
        self.page.wait_for_selector(selector)
        # Vue has mounted everything, and the front is drawn.
        self.page.wait_for_selector(".plot .main-svg")

    @property
    def strangers(self) -> list[str]:
        """Requests that left this machine."""
        own = (self.url, self.url.replace("http", "ws", 1), "data:", "blob:")
        return [request for request in self.requests if not request.startswith(own)]


@contextmanager
def looking(browser: Any, url: str, width: int = 1280, height: int = 900) -> Iterator[Looked]:
    page = browser.new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.set_default_timeout(15_000)
    looked = Looked(page, url)
    page.on("console", lambda m: looked.errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: looked.errors.append(str(error)))
    page.on("request", lambda request: looked.requests.append(request.url))
    page.on("websocket", lambda socket: looked.requests.append(socket.url))
    try:
        yield looked
    finally:
        page.close()


@contextmanager
def served(*arguments: object) -> Iterator[str]:
    """``hyperdpo explore ARGUMENTS`` in a process of its own; its address."""
    port = free_port()
    command = [sys.executable, "-m", "hyperdpo", "explore", *map(str, arguments)]
    command += ["--port", str(port), "--no-browser", "--cpu"]
    environment = subprocess_environment()
    environment.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI takes it for a sign that it is being tested itself
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        else:
            pytest.fail(f"explore did not start: {''.join(said)}")
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def wait_until(check: Any, what: str, seconds: float = 15.0) -> None:
    """Ask again until it is so."""
    ends = time.monotonic() + seconds
    while not check():
        if time.monotonic() > ends:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.03)


# --- runs

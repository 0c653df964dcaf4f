"""The server of the page: on this machine only by default, quiet, and ended by Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import click

from hyperdpo.errors import InputError
from hyperdpo.plots import COLOURS

STYLE = Path(__file__).with_name("page.css")


def check_port(host: str, port: int) -> None:
    """Check that the server can listen there, before a run is loaded.

    Raises:
        InputError: another program has the port, or the address does not belong to this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot listen on {host}:{port} ({reason}); choose a free --port") from None


async def _announce(host: str, port: int, url: str) -> None:
    """Print the address once the server accepts connections: uvicorn starts to listen after the app's startup."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            break
    click.echo(f"explore: {url} (Ctrl-C ends it)")


def serve(page: Callable[[], object], title: str, host: str, port: int, *, browser: bool) -> None:
    """Show a page until Ctrl-C.

    Args:
        page: builds the page, once for each visitor.
        browser: open it in the user's browser.
    """
    from nicegui import app, ui

    from hyperdpo.explorer.logs import ClosedAtMalformed, ignore_malformed_messages, quiet_logs
    from hyperdpo.explorer.own_site import LOOPBACK, OwnSite

    def root() -> None:
        ui.colors(primary=COLOURS[0])
        ui.add_css(STYLE.read_text(encoding="utf-8"))
        page()

    app.add_middleware(ClosedAtMalformed)
    app.add_middleware(OwnSite, hosts=LOOPBACK if host in LOOPBACK else ())
    address = f"[{host}]" if ":" in host else host
    app.on_startup(lambda: _announce(host, port, f"http://{address}:{port}"))
    app.on_startup(ignore_malformed_messages)
    quiet_logs()
    with contextlib.suppress(KeyboardInterrupt):
        ui.run(
            root,
            host=host,
            port=port,
            title=title,
            dark=None,
            language="en-US",
            reload=False,
            show=browser,
            show_welcome_message=False,
            uvicorn_logging_level="error",
            favicon="⚖️",
        )

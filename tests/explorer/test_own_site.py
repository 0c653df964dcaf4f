"""The page's server answers its own page under its own names, and says nothing about messages that no page sends."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from helpers import free_port, subprocess_environment

from hyperdpo.explorer.logs import OneLine
from hyperdpo.explorer.own_site import authority

connect = pytest.importorskip("websockets.sync.client").connect

SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport="
PAGE = """
import sys
from nicegui import ui
from hyperdpo.explorer.app import serve
serve(lambda: ui.button("press", on_click=print), "page", sys.argv[1], int(sys.argv[2]), browser=False)
"""


@dataclass
class Page:
    """A server of a page of one button."""

    process: subprocess.Popen[str]
    port: int
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def client(self) -> str:
        """The id of a visitor."""
        found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", httpx.get(self.url).text)
        assert found is not None
        return found[0]

    def websocket(self, origin: str | None) -> Any:
        return connect(self.url.replace("http", "ws") + SOCKET + "websocket", origin=origin)

    def ended(self) -> str:
        """What it has printed, once it has ended."""
        self.process.terminate()
        return self.process.communicate(timeout=30)[0]


def started(host: str) -> Page:
    port, environment = free_port(), subprocess_environment()
    environment.pop("PYTEST_CURRENT_TEST", None)
    command = [sys.executable, "-c", PAGE, host, str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, encoding="utf-8"
    )
    assert process.stdout is not None
    assert "Ctrl-C" in process.stdout.readline()
    return Page(process, port, host)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    found = started("127.0.0.1")
    yield found
    found.ended()


def test_the_own_page_is_answered(page) -> None:
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]", "[0:0:0:0:0:0:0:1]"):
        own = {"Host": f"{name}:{page.port}", "Origin": f"http://{name}:{page.port}".lower()}
        assert httpx.get(page.url, headers=own).status_code == 200, name
        assert httpx.get(page.url + SOCKET + "polling", headers=own).status_code == 200, name
    for origin in (page.url, None):
        with page.websocket(origin) as socket:
            assert json.loads(socket.recv()[1:])["sid"]


def origins(page: Page) -> list[str]:
    others = [f"http://127.0.0.1:{page.port + 1}", "http://127.0.0.1", f"http://localhost:{page.port}", f"{page.url}/x"]
    return ["http://evil.example", "null", "", f"http://evil.example:{page.port}", f"{page.url}.evil.example", *others]


def test_websockets_and_requests_of_other_origins_are_refused(page) -> None:
    from websockets.exceptions import InvalidStatus

    sid = json.loads(httpx.get(page.url + SOCKET + "polling").text[1:])["sid"]
    for origin in origins(page):
        if origin:
            with pytest.raises(InvalidStatus, match="403"), page.websocket(origin):
                pass
        for ask in (httpx.get, httpx.post, httpx.options):
            answer = ask(f"{page.url}{SOCKET}polling&sid={sid}", headers={"Origin": origin})
            assert answer.status_code == 403, (origin, answer.text)
            assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:80", 421),
        ("[localhost]", 400),
        ("[127.0.0.1]:80", 400),
        ("[::1", 400),
        ("::1", 400),
        ("localhost:80:80", 400),
        ("localhost@evil.example", 400),
        ("", 400),
    ],
)
def test_other_names_are_refused(page, host, status) -> None:
    assert httpx.get(page.url, headers={"Host": host}).status_code == status
    with socket.create_connection((page.host, page.port)) as raw:
        head = f"GET {SOCKET}websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        raw.sendall(f"{head}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        assert raw.recv(100).split()[1] in (b"403", b"400")


def test_two_names_are_refused(page) -> None:
    with socket.create_connection((page.host, page.port)) as raw:
        own = f"Host: 127.0.0.1:{page.port}\r\n"
        raw.sendall(f"GET / HTTP/1.1\r\n{own}Host: evil.example\r\nConnection: close\r\n\r\n".encode())
        assert raw.recv(100).split()[1] == b"400"


def test_the_address_of_version_6_is_checked_too() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no address of version 6 on this machine")
    page = started("::1")
    try:
        assert httpx.get(page.url).status_code == 200
        assert httpx.get(page.url, headers={"Host": "evil.example"}).status_code == 421
        with page.websocket(page.url) as socket_of_page:
            assert socket_of_page.recv()
    finally:
        assert page.ended() == ""


MALFORMED = [
    '42["event",{}]', '42["event",5]', '42["event"]', "42[]", "42{", "42", "4", "x", "43[]", "46{}",
    '42["handshake",{}]',
    '42["javascript_response",{}]', '42["ack",{}]', '42["log",{}]', '451-["event",{"_placeholder":true,"num":0}]',
    b"\x00", '42["event",{"client_id":[]}]', "42" + "[" * 5000, '42["event",{"client_id":"CLIENT"}]',
    '42["event",{"client_id":"CLIENT","id":"a","listener_id":{},"args":5}]', '42["ack",{"client_id":"CLIENT"}]',
    '42["event",{"client_id":"CLIENT","id":4,"listener_id":"x","args":[]}]',
    '42["javascript_response",{"client_id":"CLIENT"}]', '42["log",{"client_id":"CLIENT"}]',
]  # fmt: skip


def test_malformed_messages_are_met_in_silence() -> None:
    from websockets.exceptions import ConnectionClosed

    page = started("127.0.0.1")
    client = page.client()
    hello = {"client_id": client, "tab_id": "t", "document_id": "d", "next_message_id": 0}
    for message in MALFORMED:
        with page.websocket(page.url) as socket_of_page:
            socket_of_page.recv()
            socket_of_page.send("40")
            socket_of_page.recv(timeout=10)
            socket_of_page.send("420" + json.dumps(["handshake", hello]))
            socket_of_page.recv(timeout=10)
            wanted = message if isinstance(message, bytes) else message.replace("CLIENT", client)
            socket_of_page.send(wanted)
            with contextlib.suppress(ConnectionClosed):  # the server may close it, sooner or later than this
                socket_of_page.ping().wait(1)
    sid = json.loads(httpx.get(page.url + SOCKET + "polling").text[1:])["sid"]
    for body in ("x", "40", "\x1e" * 50, "42{", ""):
        httpx.post(f"{page.url}{SOCKET}polling&sid={sid}", content=body)
    httpx.get(f"{page.url}{SOCKET}polling&sid=nobody")
    assert httpx.get(page.url).status_code == 200
    assert page.ended() == ""


def test_a_failure_of_the_page_is_one_line_that_says_where() -> None:
    try:
        [][1]
    except IndexError:
        record = logging.LogRecord("nicegui", logging.ERROR, "", 0, "list index out of range", (), sys.exc_info())
    line = OneLine().format(record)
    assert line.startswith("error: explore: IndexError: list index out of range (test_own_site.py:")
    assert "\n" not in line
    assert OneLine().format(logging.LogRecord("nicegui", logging.WARNING, "", 0, "a\nb", (), None)) == (
        "warning: explore: a b"
    )


def test_names_and_ports_are_read_strictly() -> None:
    assert authority("example.org:81") == ("example.org", 81)
    assert authority("[2001:DB8::0]") == ("2001:db8::", None)
    for wrong in ("", ":80", "a b", "a:", "a:123456", "[::1]x", "[]", "a/b", "u@a"):
        assert authority(wrong) is None, wrong

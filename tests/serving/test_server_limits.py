"""What raw sockets can do to a server: floods, halves of requests, clients that leave. Its app is tiny."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from helpers import free_port, subprocess_environment
from live_server import running
from tiny_server import tiny_app

from hyperdpo.serving.server.app import BODIES_HELD, Server
from hyperdpo.serving.server.http_framing import HEAD_BYTES
from hyperdpo.serving.server.process import with_files_for

HEAD = b"POST /echo HTTP/1.1\r\nhost: x\r\n"
SEVERAL = 8

#: A generous bound of what happens at once, on a machine that does much else.
SOON = 30.0


class Client:
    """A socket that says what it is told to."""

    def __init__(self, url: str):
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=SOON)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def rest(self) -> bytes:
        """All that comes until the server closes; it has to."""
        found = []
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                found.append(data)
        return b"".join(found)

    def send_until_cut(self, data: bytes, most: int, pause: float = 0.0) -> int:
        """Send the same again and again; how many bytes, until the server closes. It has to."""
        sent = 0
        try:
            while sent < most:
                self.send(data)
                sent += len(data)
                time.sleep(pause)
        except OSError:  # reset, or broken pipe
            return sent
        raise AssertionError(f"the server took {sent} bytes")

    def answer(self) -> tuple[int, Any]:
        """The status and the JSON of the next answer."""
        with self.socket.makefile("rb") as file:
            status = int(file.readline().split()[1])
            size = 0
            while (line := file.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            return status, json.loads(file.read(size))


@pytest.fixture
def tiny(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """Starts servers; whatever they log is a failure, unless the test looks at it and clears it."""
    with contextlib.ExitStack() as stack:

        def start(**limits: Any) -> tuple[str, Server, FastAPI]:
            server = Server(**limits)
            app = tiny_app(server)
            url = stack.enter_context(running(app, server))
            logging.getLogger("uvicorn").propagate = True
            return url, server, app

        with caplog.at_level(logging.INFO, "uvicorn"):
            yield start
    assert [one.getMessage() for one in caplog.records if one.name.startswith("uvicorn")] == []


def echoed(url: str, size: int = 3) -> bool:
    """Whether an honest client is answered."""
    return httpx.post(f"{url}/echo", content=b"x" * size, timeout=SOON).json() == {"bytes": size}


def until(true: Any) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_headers_beyond_the_limit_are_refused_before_the_key_is_asked_for(tiny: Any) -> None:
    url, server, _ = tiny(api_key="k")
    long = HEAD + b"x: " + b"y" * HEAD_BYTES + b"\r\n\r\n"
    for sent, status in (
        (long, 431),
        (HEAD + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"y" * 10_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
        (HEAD + b"\r\n", 401),
    ):
        with Client(url) as client:
            code, body = client.send(sent).answer()
            assert code == status
            assert list(body) == ["error"]  # of the app's own shape
            if status != 401:
                assert client.rest() == b""
    assert 'hyperdpo_requests_total{code="431",route="other"} 2.0' in server.metrics.text().decode()


def test_an_endless_header_ends_and_others_are_answered(tiny: Any) -> None:
    url, _, _ = tiny(max_body=100_000)
    with Client(url) as client:
        client.send(HEAD + b"x: ").send_until_cut(b"y" * 65536, 2**26)
    assert echoed(url)


def test_bodies_beyond_the_limit_are_refused_with_an_answer_that_arrives(tiny: Any) -> None:
    url, _, _ = tiny(max_body=100_000)
    for sent in (
        HEAD + b"content-length: 100001\r\n\r\n" + b"y" * 100_001,
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (150_000, b"y" * 150_000),
    ):
        with Client(url) as client:
            assert client.send(sent).answer()[0] == 413
            assert client.rest() == b""
    with Client(url) as client:  # chunks without end
        client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        client.send_until_cut(b"4000\r\n" + b"y" * 0x4000 + b"\r\n", 2**26)
    assert echoed(url, 100_000)


def test_unfinished_bodies_give_way_when_together_they_are_too_large(tiny: Any) -> None:
    url, _, _ = tiny(max_body=100_000)
    with contextlib.ExitStack() as stack:
        half = HEAD + b"content-length: 100000\r\n\r\n" + b"y" * 90_000
        clients = [stack.enter_context(Client(url)).send(half) for _ in range(4 * BODIES_HELD)]
        assert all(echoed(url, 100_000) for _ in range(3))
        alive = []
        for client in clients:
            client.socket.settimeout(0.2)
            try:
                assert client.answer()[0] == 429
            except TimeoutError:
                alive.append(client)
        assert 1 <= len(alive) <= BODIES_HELD


def test_all_bodies_together_have_a_limit_of_their_own(tiny: Any) -> None:
    url, _, _ = tiny(max_body=100_000, max_bodies=1_000_000)
    half = HEAD + b"content-length: 100000\r\n\r\n" + b"y" * 90_000
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(url)).send(half) for _ in range(10)]
        for client in clients:
            assert client.send(b"y" * 10_000).answer() == (200, {"bytes": 100_000})


def test_whole_bodies_that_are_too_large_together_are_told_to_come_back(tiny: Any) -> None:
    url, _, _ = tiny(max_body=100_000)
    slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b"y" * 100_000
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(url)).send(slow) for _ in range(BODIES_HELD)]
        until(lambda: f"requests_in_flight {BODIES_HELD + 1}.0" in httpx.get(f"{url}/metrics").text)
        answer = httpx.post(f"{url}/echo", content=b"x")
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert httpx.post(f"{url}/go").status_code == 200
        assert [client.answer() for client in clients] == [(200, {"bytes": 100_000})] * BODIES_HELD
    assert echoed(url, 100_000)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),  # a half-open connection
        (b"GET / HT", 408),
        (HEAD + b"x: y\r\n", 408),
        (HEAD + b"content-length: 9\r\n\r\n123", 408),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\n123\r\n", 408),
    ],
)
def test_requests_that_do_not_arrive_are_cut(tiny: Any, sent: bytes, status: int | None) -> None:
    url, _, _ = tiny(read_timeout=0.2)
    with Client(url) as client:
        client.send(sent)
        if status is not None:
            code, body = client.answer()
            assert code == status
            assert body == {"error": "the request did not arrive within 0.2 s (--read-timeout)"}
        assert client.rest() == b""


def test_a_client_that_drips_is_cut_all_the_same(tiny: Any) -> None:
    url, _, _ = tiny(read_timeout=0.5)
    with Client(url) as client:
        client.send(HEAD + b"content-length: 10000\r\n\r\n")
        client.send_until_cut(b"y", int(SOON / 0.02), pause=0.02)


def test_the_time_to_arrive_begins_anew_with_each_request(tiny: Any) -> None:
    url, _, _ = tiny(read_timeout=1.0)
    with Client(url) as client:
        for _ in range(4):
            time.sleep(0.4)
            assert client.send(HEAD + b"content-length: 1\r\n\r\ny").answer() == (200, {"bytes": 1})


def test_an_answer_may_take_longer_than_a_request(tiny: Any) -> None:
    url, _, _ = tiny(read_timeout=0.3)
    with Client(url) as client:
        client.send(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\ny")
        time.sleep(0.9)
        httpx.post(f"{url}/go")
        assert client.answer() == (200, {"bytes": 1})


def test_a_client_that_does_not_read_its_answer_is_cut(tiny: Any) -> None:
    url, server, _ = tiny(read_timeout=0.3)
    with Client(url) as client:
        client.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        until(lambda: "/large" in server.metrics.text().decode())  # counted when it is over
        assert len(client.rest()) < 1000 * 2**16
    assert len(httpx.get(f"{url}/large", timeout=SOON).content) == 1000 * 2**16


def test_connections_that_wait_give_way_to_new_ones(tiny: Any) -> None:
    url, _, _ = tiny(max_connections=SEVERAL)
    with contextlib.ExitStack() as stack:
        half = [stack.enter_context(Client(url)).send(HEAD) for _ in range(3 * SEVERAL)]
        assert all(echoed(url) for _ in range(3))
        assert half[0].rest() == b""


def test_requests_under_way_do_not_give_way(tiny: Any) -> None:
    url, _, _ = tiny(max_connections=SEVERAL)
    slow = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\ny"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(url)).send(slow) for _ in range(SEVERAL - 1)]
        with Client(url) as last:
            until(lambda: b"in_flight 8.0" in last.send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").socket.recv(99999))
            last.send(slow)
            with Client(url) as refused:
                assert refused.answer()[0] == 503
        until(lambda: httpx.post(f"{url}/go").status_code == 200)
        assert [client.answer() for client in clients] == [(200, {"bytes": 1})] * len(clients)


@pytest.mark.parametrize(
    "headers",
    [
        b"Host: x\r\nHost: y\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        b"Host: x\r\nTransfer-Encoding: chunked, identity\r\n",
        b"Host: x\r\nx: 1\r\n Content-Length: 5\r\n",
        b"Host: x\r\nContent-Length : 5\r\n",
    ],
)
def test_what_could_smuggle_a_request_is_refused_and_nothing_behind_it_is_read(tiny: Any, headers: bytes) -> None:
    url, _, app = tiny()
    with Client(url) as client:
        client.send(b"POST /echo HTTP/1.1\r\n" + headers + b"\r\n0\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer()[0] == 400
        assert client.rest() == b""
    assert app.state.bodies == []


def test_pipelined_requests_are_answered_in_turn(tiny: Any) -> None:
    url, _, app = tiny()
    sized = [HEAD + b"content-length: %d\r\n\r\n" % size + b"y" * size for size in (0, 1, 70_000)]
    chunked = HEAD + b"Transfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nHost: evil\r\n\r\n"
    sent = b"".join([*sized, chunked, *sized])
    for step in (len(sent), 40_000):
        with Client(url) as client:
            for at in range(0, len(sent), step):
                client.send(sent[at : at + step])
            sizes = [0, 1, 70_000, 3, 0, 1, 70_000]
            answers = b""
            while answers.count(b'"bytes"') < len(sizes):
                more = client.socket.recv(65536)
                assert more, answers
                answers += more
            assert [int(size) for size in re.findall(rb'"bytes":(\d+)', answers)] == sizes
    assert app.state.bodies[3] == b"abc"


def test_only_one_request_of_a_connection_is_under_way(tiny: Any) -> None:
    url, _, app = tiny()
    with Client(url) as client:
        client.send(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\ny" + (HEAD + b"\r\n") * 5000)
        until(lambda: "in_flight 2.0" in httpx.get(f"{url}/metrics").text)
        assert app.state.bodies == []
        httpx.post(f"{url}/go")
        until(lambda: app.state.bodies)
        assert client.answer() == (200, {"bytes": 1})


def test_a_refused_request_leaves_its_connection_usable(tiny: Any) -> None:
    url, _, _ = tiny()
    with Client(url) as client:
        client.send(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n" + b"y" * 10)
        assert client.answer()[0] == 404
        client.send(b"y" * 49_990 + HEAD + b"content-length: 2\r\n\r\nyy")
        assert client.answer() == (200, {"bytes": 2})


def test_an_offer_to_upgrade_is_ignored_and_a_tunnel_refused(tiny: Any) -> None:
    url, _, _ = tiny()
    with Client(url) as client:
        upgrade = HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nyy"
        assert client.send(upgrade).answer() == (200, {"bytes": 2})
        assert client.send(upgrade.replace(b"h2c", b"websocket")).answer() == (200, {"bytes": 2})
    with Client(url) as client:
        assert client.send(b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n").answer()[0] == 400


def test_clients_wait_for_leave_to_send_where_they_ask_for_it(tiny: Any) -> None:
    url, _, _ = tiny()
    with Client(url) as client:
        client.send(HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.send(b"yy").answer() == (200, {"bytes": 2})


def test_clients_that_leave_amid_their_bodies_write_nothing_into_the_log(tiny: Any) -> None:
    url, server, _ = tiny()
    for _ in range(SEVERAL):
        with Client(url) as client:
            client.send(HEAD + b"content-length: 9\r\n\r\n123")
    gone = f'hyperdpo_requests_total{{code="499",route="/echo"}} {SEVERAL}.0'
    until(lambda: gone in server.metrics.text().decode())


def test_no_body_and_no_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(api_key="s3cret-key")
    with caplog.at_level(logging.DEBUG), running(tiny_app(server), server, access_log=True) as url:
        logging.getLogger("uvicorn").propagate = logging.getLogger("uvicorn.access").propagate = True
        key = {"authorization": "Bearer s3cret-key"}
        for path, headers in (("/echo", key), ("/echo", {}), ("/nowhere", key), ("/fails", key)):
            httpx.post(url + path, headers=headers, content=b"secret prompt")
        Client(url).send(b"secret prompt\r\n\r\n").rest()
    logged = "\n".join(one.getMessage() + str(one.exc_text) for one in caplog.records)
    assert '"POST /echo HTTP/1.1" 200' in logged
    assert "RuntimeError: on purpose" in logged
    assert "secret" not in logged
    assert "s3cret" not in logged


@contextlib.contextmanager
def process(grace: float) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server that is ready."""
    port = free_port()
    started = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("tiny_server.py"), str(port), str(grace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=subprocess_environment(),
    )
    url = f"http://127.0.0.1:{port}"
    try:

        def ready() -> bool:
            assert started.poll() is None, started.stdout and started.stdout.read()
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
            return False

        until(ready)
        yield url, started
    finally:
        started.kill()
        started.wait(30)


@pytest.mark.parametrize("whole", [False, True])
def test_a_server_that_is_told_to_end_drops_halves_and_finishes_the_rest(whole: bool) -> None:
    """An idle machine needs a second for the halves, and should need five at most; the bound is for a busy one."""
    chunk = b"transfer-encoding: chunked\r\n\r\n1\r\n"
    halves = [b"", b"GET /", HEAD, HEAD + b"content-length: 9\r\n\r\n123", HEAD + chunk]
    with process(60) as (url, started), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(url)).send(halves[i % len(halves)]) for i in range(50)]
        until(lambda: "in_flight 21.0" in httpx.get(f"{url}/metrics").text)  # 20 halves of bodies, and this
        if whole:
            last = stack.enter_context(Client(url)).send(b"POST /later HTTP/1.1\r\nhost: x\r\n\r\n")
            until(lambda: "in_flight 22.0" in httpx.get(f"{url}/metrics").text)
        begun = time.monotonic()
        started.send_signal(signal.SIGTERM)
        assert {client.rest() for client in clients} == {b""}
        if whole:
            assert last.answer() == (200, {"bytes": 0})
        assert started.wait(SOON) == 0
        assert time.monotonic() - begun < 20
        assert (started.stdout.read() if started.stdout else "") == ""


def test_a_process_opens_no_more_connections_than_files() -> None:
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (300, int(sys.argv[1])))\n"
    program += "from hyperdpo.serving.server.process import with_files_for\n"
    program += "print(with_files_for(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    for hard, found in ((300, "44 300"), (5000, "1000 1256")):
        done = subprocess.run([sys.executable, "-c", program, str(hard)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == found
    assert with_files_for(10) == 10

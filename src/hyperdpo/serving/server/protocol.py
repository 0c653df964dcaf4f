"""The connections of a server: uvicorn's protocol behind limits.

uvicorn, its parser and middleware have no limit of a head, no time in which a request has to arrive, and start several
requests of one connection at once. Here a request's head is complete and checked before the parser sees it
(:mod:`hyperdpo.serving.server.http_framing`), and a connection's next request waits until the last one is answered.

Where room is short, whoever keeps the server waiting gives way: connections and bodies that wait for their client are
dropped, those that have waited longest first. Requests that have arrived as a whole are never dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hyperdpo.serving.server.app import BODIES_HELD, Server
from hyperdpo.serving.server.errors import Refusal
from hyperdpo.serving.server.http_framing import BadRequest, ChunkedBody, Head, SizedBody, end_of_head, read_head

#: Bytes of further requests that are kept while one is answered; a client that sends more is told to connect again.
AHEAD_BYTES = 256 * 1024

#: After an answer that ends a connection, what still arrives is read for so long, and so many bytes of it (of a body as
#: many as it may have). Closing at once would make the client's system drop the answer.
LINGER_SECONDS, LINGER_BYTES = 2.0, 1024 * 1024

# What a connection does: it waits for a head, for the rest of a body, for its answer, or for the client to leave.
HEAD, BODY, ANSWER, LEAVING = "head", "body", "answer", "leaving"


class Connections:
    """All connections of a server.

    Attributes:
        server: its limits.
        waiting: connections that have sent nothing or a part of a request, or have yet to leave, in the order in which
            they began to.
        idle: those between two requests, and those that have yet to read their last answer, in the same order.
        held: bytes of the bodies of all requests in progress.
    """

    def __init__(self, server: Server):
        self.server = server
        self.hosts = {name.lower() for name in server.hosts}
        self.waiting: dict[GuardedProtocol, None] = {}
        self.idle: dict[GuardedProtocol, None] = {}
        self.held = 0

    def protocol(self) -> Callable[..., GuardedProtocol]:
        """What makes a protocol for each connection, for uvicorn's configuration."""
        return functools.partial(GuardedProtocol, shared=self)

    def admit(self, new: GuardedProtocol, connected: int) -> bool:
        """Whether there is room for a new connection; if need be, another one is dropped.

        Args:
            connected: how many there are, with the new one.
        """
        if connected <= self.server.max_connections:
            return True
        victim = next((one for crowd in (self.waiting, self.idle) for one in crowd if one is not new), None)
        if victim is None:
            return False
        victim.drop()
        return True

    def hold(self, owner: GuardedProtocol, size: int) -> bool:
        """Whether there is room for more bytes of a body; if need be, unfinished bodies are dropped.

        The one with the most bytes times seconds goes first: a request that arrives at once is never it.
        """
        self.held += size
        owner.held += size
        most = self.server.max_bodies or BODIES_HELD * self.server.max_body
        while self.held > most:
            now = owner.loop.time()
            others = [one for one in self.waiting if one.held and one is not owner]
            victim = max(others, key=lambda one: one.held * (now - one.since), default=None)
            if victim is None:
                return False
            victim.refuse_body()
        return True

    def release(self, owner: GuardedProtocol) -> None:
        """A body is no longer needed."""
        self.held -= owner.held
        owner.held = 0


class _Transport:
    """What an answer is written to: closes only after the client had time to read."""

    def __init__(self, protocol: GuardedProtocol):
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        self._protocol.leave()


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        held: bytes of the present request's body.
        since: when it began to wait for its client, by the loop's clock.
    """

    def __init__(self, *args: Any, shared: Connections, **options: Any):
        super().__init__(*args, **options)
        self._shared = shared
        self._state = HEAD
        self._ahead, self._seen = b"", 0  # received, and not yet used; bytes of it that are a head's beginning
        self._body: SizedBody | ChunkedBody = SizedBody(0)
        self._ignorable = LINGER_BYTES
        self._ignored = 0  # bytes of a body that was answered before it had arrived, or after the last answer
        self._timer: asyncio.TimerHandle | None = None
        self.held, self.since = 0, self.loop.time()

    # From the transport.

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._shared.admit(self, len(self.connections)):
            self._wait()
        else:
            self._refuse(503, "too many connections; try again later", linger=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._shared.release(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._state is LEAVING:
            self._ignored += len(data)
            if self._ignored > self._ignorable:
                self.transport.abort()
            return
        if self._state is HEAD and self in self._shared.idle:
            self._wait()
        self._ahead = self._ahead + data if self._ahead else data
        try:
            self._read()
        except BadRequest as error:
            self._refuse(error.status, error.message)
        except httptools.HttpParserError:
            self._refuse(400, "no request of HTTP/1.1")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._state is ANSWER:  # the client has the same time to read
            self._start_timer(self._shared.server.read_timeout)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._state is ANSWER:
            self._stop_timer()

    # Reading.

    def _read(self) -> None:
        """Look at what has arrived, up to the end of a request."""
        while self._ahead and not self.transport.is_closing():
            if self._state is HEAD:
                if not self._read_head():
                    return
            elif self._state is BODY:
                self._read_body()
            else:
                if self._state is ANSWER:
                    self._keep_ahead()
                return

    def _read_head(self) -> bool:
        """Whether there is a whole one."""
        if self._ahead.startswith((b"\r", b"\n")):  # RFC 9112, section 2.2
            stripped = self._ahead.lstrip(b"\r\n")
            self._ignored += len(self._ahead) - len(stripped)
            self._ahead, self._seen = stripped, 0
            if self._ignored > 1024:
                raise BadRequest(400, "no request of HTTP/1.1")
            if not stripped:
                return False
        end = end_of_head(self._ahead, self._seen)
        if end is None:
            self._seen = len(self._ahead)
            return False
        text, self._ahead, self._seen = self._ahead[:end], self._ahead[end:], 0
        head = read_head(text)
        self._check_host(head)
        self._body = ChunkedBody() if head.length is None else SizedBody(head.length)
        self._state, self._ignored = BODY, 0
        before = self.cycle
        self._parse(text)
        if self.cycle is before:  # a request to become something else, such as a tunnel
            raise BadRequest(400, "no request of HTTP/1.1 that this server answers")
        self.cycle.transport = _Transport(self)  # type: ignore[assignment]
        if self._body.whole:
            self._arrived()
        return True

    def _check_host(self, head: Head) -> None:
        hosts, found = self._shared.hosts, head.host.decode("latin-1")
        if hosts and re.sub(r":\d*$", "", found).strip("[]").lower() not in hosts:
            message = f"Host: found {found[:60]!r}; expected {' or '.join(sorted(hosts))} (--allow-host)"
            raise BadRequest(421, message)

    def _read_body(self) -> None:
        part, self._ahead = self._body.take(self._ahead)
        if self.cycle.response_complete:
            self._ignored += len(part)
            if self._ignored > self._shared.server.max_body:
                self.leave()
                return
        elif part:
            if not self._shared.hold(self, len(part)):
                self.refuse_body()
                return
            self.on_body(part)
        if self._body.whole:
            self._arrived()

    def _parse(self, head: bytes) -> None:
        """Let uvicorn start on a request; its parser sees the head alone, and is then done."""
        self.parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserUpgrade):  # an offer that nobody takes
            self.parser.feed_data(head)

    def on_message_complete(self) -> None:
        """The parser's opinion of where a request ends does not count; see :meth:`_arrived`."""

    def _arrived(self) -> None:
        """A request is there as a whole."""
        self._stop_waiting()
        if self.cycle.response_complete:  # long before
            self._next()
        else:
            self._state = ANSWER
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _keep_ahead(self) -> None:
        """Keep what came before the answer to the last request."""
        if len(self._ahead) > AHEAD_BYTES:
            self._ahead = self._ahead[:AHEAD_BYTES]
            self.cycle.keep_alive = False
        self.flow.pause_reading()

    # Answering.

    def on_response_complete(self) -> None:
        self._shared.release(self)
        super().on_response_complete()
        if self._state is BODY:  # the rest of the request is not wanted; a next one may come after it
            self._unset_keepalive_if_required()
        elif self._state is ANSWER:
            self._next()

    def _next(self) -> None:
        """Go on to the next request of this connection."""
        self._stop_timer()
        self._state, self._ignored = HEAD, 0
        self._shared.idle[self] = None
        if self.timeout_keep_alive_task is None:
            seconds = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)
        if self._ahead:
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._state is HEAD and not self.transport.is_closing():
            data, self._ahead = self._ahead, b""
            self.data_received(data)

    def _refuse(self, status: int, message: str, *, linger: bool = False) -> None:
        """Answer instead of the app, and end the connection.

        Args:
            linger: the client may be about to send something.
        """
        started = self.cycle is not None and self._state in (BODY, ANSWER)
        if started:
            if self.cycle.response_started:
                self.drop()
                return
            self._hang_up()
        else:  # an app that has the request counts it itself
            self._shared.server.metrics.requests.labels("other", str(status)).inc()
        refusal = Refusal(status, message)
        body = json.dumps(self._shared.server.error_body(refusal)).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in refusal.headers.items()),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self.leave(linger=linger)

    def refuse_body(self) -> None:
        """There is no room for the bodies of all requests."""
        self._refuse(429, "the bodies of the requests under way are too large together (--max-bodies); try again later")

    def _hang_up(self) -> None:
        """Tell the app that its client is gone."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._shared.release(self)

    # Waiting, and the end.

    def _wait(self) -> None:
        """The client has to send something from now on."""
        self.since = self.loop.time()
        self._shared.idle.pop(self, None)
        self._shared.waiting[self] = None
        self._start_timer(self._shared.server.read_timeout)

    def _stop_waiting(self) -> None:
        self._shared.waiting.pop(self, None)
        self._shared.idle.pop(self, None)
        self._stop_timer()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        """The client took too long."""
        self._timer = None
        if self._state is BODY and self.flow.read_paused:  # this server did
            self._wait()
        elif (self._state is HEAD and self._ahead) or (self._state is BODY and not self.cycle.response_complete):
            seconds = self._shared.server.read_timeout
            self._refuse(408, f"the request did not arrive within {seconds:g} s (--read-timeout)")
        else:
            self.drop()

    def timeout_keep_alive_handler(self) -> None:
        self.leave()

    def leave(self, *, linger: bool = False) -> None:
        """Close, after the client had time to read what was written.

        Args:
            linger: the client may be sending, even if nothing has come.
        """
        if self._state is LEAVING or self.transport.is_closing():
            return
        self._ignorable = self._shared.server.max_body if self._state is BODY else LINGER_BYTES
        linger = linger or self._state is BODY or bool(self._ahead)
        self._stop_waiting()
        self._state, self._ahead, self._ignored = LEAVING, b"", 0
        if not linger:
            self.transport.close()
            self._shared.idle[self] = None
            self._start_timer(self._shared.server.read_timeout)
        else:
            self._shared.waiting[self] = None
            self.flow.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._start_timer(LINGER_SECONDS)

    def drop(self) -> None:
        """Close at once."""
        if self._state in (BODY, ANSWER) and not self.cycle.response_complete:
            self._hang_up()
        self._shared.release(self)
        self._stop_waiting()
        self._unset_keepalive_if_required()
        self._state, self._ahead = LEAVING, b""
        self.transport.abort()

    def shutdown(self) -> None:
        """The server ends: finish what has arrived as a whole, drop the rest."""
        if self._state is ANSWER:
            self.cycle.keep_alive = False
        elif self._state is HEAD and not self._ahead:
            self.leave()
        elif self._state is not LEAVING or not self.transport.get_write_buffer_size():
            self.drop()

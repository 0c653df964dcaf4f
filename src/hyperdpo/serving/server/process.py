"""An app as a process: uvicorn, and an end that loses nothing.

On TERM or INT the server first says so: ``/readyz`` is 503, and answers close their connections. For a moment it still
accepts requests, so that those on their way arrive. Then it accepts no more, drops those that have arrived in part,
finishes the others, and ends. Requests that are not finished in time are refused with 503, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import resource
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI

from hyperdpo.errors import InputError
from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.protocol import Connections

#: For which requests are still taken after the signal.
LAME_DUCK_SECONDS = 0.5

#: Time for the request of the connection that was accepted last to arrive.
SETTLE_SECONDS = 0.3

#: Time to answer those who are refused at the end; and the same after a second signal.
TELLING_SECONDS, HURRY_SECONDS = 5, 0.3

#: Files that a server has open beside its connections, and connections that have been accepted and not yet counted.
OTHER_FILES = 256

#: The number of glibc's setting, from malloc.h.
M_ARENA_MAX = -8


def serve_app(app: FastAPI, server: Server, listener: socket.socket, *, grace: float, access_log: bool = False) -> int:
    """Serve until TERM or INT; returns when all that was under way is done, after ``grace`` seconds, or after a second
    signal.

    Returns:
        how many lists or texts were not finished by then.
    """
    graceful = GracefulServer(configuration(app, server, grace, access_log=access_log), server, grace)
    graceful.run(sockets=[listener])
    return graceful.given_up


def configuration(app: FastAPI, server: Server, grace: float, *, access_log: bool = False) -> uvicorn.Config:
    """uvicorn's, with connections of our own, and without web sockets."""
    protocol: Any = Connections(server).protocol()
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_level="info" if access_log else "warning",
        access_log=access_log,
        timeout_graceful_shutdown=math.ceil(grace) + TELLING_SECONDS,
        server_header=False,
    )


class GracefulServer(uvicorn.Server):
    """uvicorn's server with a lame duck, and without raising the signal again after it has been obeyed.

    Attributes:
        given_up: lists or texts that were not finished in time.
    """

    def __init__(self, config: uvicorn.Config, server: Server, grace: float, lame_duck: float = LAME_DUCK_SECONDS):
        super().__init__(config)
        self._shared, self._grace, self._lame_duck = server, grace, lame_duck
        self.given_up = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Obey TERM and INT, in the main thread."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        try:
            for number in signals:
                loop.add_signal_handler(number, self.drain)
        except (ValueError, RuntimeError):  # another thread: whoever started it sets should_exit
            yield
            return
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take the connections that wait to be accepted, and no more; then let uvicorn finish what is under way."""
        loop, listeners = asyncio.get_running_loop(), sockets or []
        late = [connection for listener in listeners for connection in _waiting(listener)]
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()
        for connection in late:
            await loop.connect_accepted_socket(self._protocol, connection)
        # uvicorn closes connections that no request has come on.
        await asyncio.sleep(SETTLE_SECONDS)
        for _ in range(3):  # whatever the system has received is read first, however late the loop is
            await asyncio.sleep(0)
        ends = (
            loop.call_later(self._grace, self._give_up),
            loop.call_later(self._grace + TELLING_SECONDS, self._drop_all),
        )
        await super().shutdown(sockets)
        for end in ends:
            end.cancel()
        if self.force_exit:  # then uvicorn leaves it out
            await self.lifespan.shutdown()

    def _give_up(self) -> None:
        if self._shared.engine is not None:
            self.given_up += self._shared.engine.abort()

    def _drop_all(self) -> None:
        """Do not wait for clients that have yet to read their answers."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _protocol(self) -> Any:
        """As uvicorn makes it for the connections that it accepts itself."""
        made: Any = self.config.http_protocol_class
        return made(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def drain(self) -> None:
        """Begin to end; a second time, end at once, but for telling those who wait."""
        if self._shared.draining:
            self._give_up()
            asyncio.get_running_loop().call_later(HURRY_SECONDS, self._force)
            return
        self._shared.draining = True
        asyncio.get_running_loop().call_later(self._lame_duck, self._leave)

    def _force(self) -> None:
        self.force_exit = self.should_exit = True

    def _leave(self) -> None:
        self.should_exit = True


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that the system has made and nobody has accepted."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # none left
            return
        connection.setblocking(False)
        yield connection


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: the address is taken, or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"--host {host} --port {port}: cannot be listened on ({reason}); expected a free one"
        ) from None
    listener.setblocking(False)
    return listener


def use_one_heap() -> None:
    """Keep the memory of all threads in one heap, where the C library is glibc.

    By default each thread has a heap of its own, from which little returns to the system. Floods of bodies of
    8 MiB then raised the memory by up to 34%, and by 25% with one heap (``benchmarks/bench_load.py``).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def with_files_for(connections: int) -> int:
    """How many connections this process can have: each is an open file, and the system's limit is raised if it may be.

    Args:
        connections: that are wished for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(connections, soft - OTHER_FILES))
    return connections


def address_of(listener: socket.socket) -> str:
    """As a URL."""
    name: Any = listener.getsockname()
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"

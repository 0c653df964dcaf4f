"""Worker thread: processes the queue and exits once it is closed and empty."""

from __future__ import annotations

import threading

from hyperdpo.serving.server.errors import Refusal


class Worker:
    """What the engines of both servers have in common; :meth:`_run` is theirs.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str):
        self._name = name
        self._changed = threading.Condition()
        self._closing = self._aborted = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._closing = self._aborted = False
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what is under way or waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def abort(self) -> int:
        """Give up queued requests, and running ones where they can be stopped. They are refused with 503.

        Returns:
            how many lists or texts were given up.
        """
        raise NotImplementedError

    def check_room(self) -> None:
        """Raise where whatever comes next would be refused, before anybody reads it.

        Raises:
            Refusal: 429, the queue is full; 503, the engine has ended.
        """
        with self._changed:
            self._check_room(1)

    def _check_room(self, more: int) -> None:
        """As :meth:`check_room`, of so many lists or texts; the lock is held."""
        if self._closing or self._aborted or self._thread is None:
            raise Refusal(503, "the server is shutting down")
        if (queued := self._full_with(more)) is not None:
            raise Refusal(429, f"the queue is full ({queued} wait); try again later", code="queue_full")

    def _full_with(self, more: int) -> str | None:
        """What is queued, such as ``3 lists``, if there is no room for so many more. A request that comes when nobody
        else is there is taken however large it is: it would never fit."""
        raise NotImplementedError

    def _run(self) -> None:
        """Work until :attr:`_closing` is set and nothing is left."""
        raise NotImplementedError

"""Dynamic batching: lists that arrive while others are scored are scored together, next. Nobody waits for company.

A request that is alone is scored at once by the event loop itself. On busy cores, handing it to a thread and back can
take longer than scoring it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyperdpo.serving.server.errors import Refusal
from hyperdpo.serving.server.metrics import Metrics
from hyperdpo.serving.server.rank_model import BATCH_ITEMS, ListToScore
from hyperdpo.serving.server.worker import Worker

Score = Callable[[Sequence[ListToScore]], list[np.ndarray]]


@dataclass(frozen=True, eq=False)
class _Job:
    """The lists of one request, and who waits for them."""

    lists: Sequence[ListToScore]
    future: asyncio.Future[list[np.ndarray]]
    loop: asyncio.AbstractEventLoop

    @property
    def items(self) -> int:
        return sum(map(len, self.lists))


#: Items of a request that the event loop scores itself, when it is alone.
DIRECT_ITEMS = 512

#: The future of a request, its scores, and what went wrong.
_Done = tuple[asyncio.Future[list[np.ndarray]], list[np.ndarray], Refusal | None]


class RankEngine(Worker):
    """Worker thread that scores queued lists.

    Args:
        score: lists -> their scores.
        max_batch: lists that are scored together, unless one request has more.
        max_queue: lists that wait.
    """

    def __init__(self, score: Score, metrics: Metrics, *, max_batch: int, max_queue: int):
        super().__init__("scorer")
        self._score, self._metrics, self._max_batch, self._max_queue = score, metrics, max_batch, max_queue
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._busy = False
        metrics.queue.set_function(lambda: self._waiting)

    async def submit(self, lists: Sequence[ListToScore]) -> list[np.ndarray]:
        """The scores of a request's lists. From one event loop.

        Raises:
            Refusal: 429, the queue is full; 500, scoring failed; 503, the engine has ended.
        """
        loop = asyncio.get_running_loop()
        job = _Job(lists, loop.create_future(), loop)
        with self._changed:
            self._check_room(len(lists))
            self._jobs.append(job)
            self._waiting += len(lists)
        await asyncio.sleep(0)  # requests that have arrived with this one get in line
        with self._changed:
            alone = not self._busy and len(self._jobs) == 1 and self._jobs[0] is job
            # More would keep other requests, such as those for health, waiting.
            direct = self._taken() if alone and job.items <= DIRECT_ITEMS else []
            if direct:
                self._busy = True
            else:
                self._changed.notify()
        if direct:
            _hand_over(self._done(direct))
            self._free()
        return await job.future

    def _full_with(self, more: int) -> str | None:
        full = self._waiting + more > self._max_queue and (self._waiting or self._busy)
        return f"{self._waiting} lists" if full else None

    def abort(self) -> int:
        with self._changed:
            self._aborted = True
            jobs, lists = list(self._jobs), self._waiting
            self._jobs.clear()
            self._waiting = 0
        for job in jobs:
            done: list[_Done] = [(job.future, [], Refusal(503, "the server ended before this was scored"))]
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                job.loop.call_soon_threadsafe(_hand_over, done)
        return lists

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._busy or not (self._jobs or self._closing):
                    self._changed.wait()
                if not self._jobs:
                    return
                jobs = self._taken()
                self._busy = True
            done = self._done(jobs)
            for loop in {job.loop for job in jobs}:
                mine = [entry for job, entry in zip(jobs, done, strict=True) if job.loop is loop]
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(_hand_over, mine)
            self._free()

    def _free(self) -> None:
        with self._changed:
            self._busy = False
            if self._jobs or self._closing:  # waking the thread for nothing costs as much as reading a request
                self._changed.notify()

    def _taken(self) -> list[_Job]:
        """The first of those that wait, as many as go together."""
        jobs: list[_Job] = []
        count = items = 0
        while self._jobs:
            job = self._jobs[0]
            if jobs and (count + len(job.lists) > self._max_batch or items + job.items > BATCH_ITEMS):
                break
            self._waiting -= len(self._jobs.popleft().lists)
            if not job.future.cancelled():  # else nobody waits for it any more
                jobs.append(job)
                count, items = count + len(job.lists), items + job.items
        return jobs

    def _done(self, jobs: Sequence[_Job]) -> list[_Done]:
        """Score the lists of some requests, and whom to tell."""
        lists = [one for job in jobs for one in job.lists]
        if not lists:
            return []
        self._metrics.batch.observe(len(lists))
        for one in lists:
            self._metrics.lengths.observe(len(one))
        scores: list[np.ndarray] = []
        failure = None
        try:
            scores = self._score(lists)
        except Exception as error:  # whatever the ranker raises: these requests fail, the server stays up
            failure = Refusal(500, f"scoring failed: {' '.join(str(error).split()) or type(error).__name__}")
        done, start = [], 0
        for job in jobs:
            done.append((job.future, scores[start : start + len(job.lists)], failure))
            start += len(job.lists)
        return done


def _hand_over(done: Sequence[_Done]) -> None:
    for future, scores, failure in done:
        if future.done():
            continue
        if failure is None:
            future.set_result(scores)
        else:
            future.set_exception(failure)

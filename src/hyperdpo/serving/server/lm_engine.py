"""One thread that decodes all requests to a language model in one batch, which they join and leave token by token."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hyperdpo.alignment.continuous import ContinuousBatch
from hyperdpo.serving.server.errors import Refusal
from hyperdpo.serving.server.lm_text import GrowingText, whole_text
from hyperdpo.serving.server.metrics import Metrics
from hyperdpo.serving.server.token_choice import TokenChoice, next_tokens
from hyperdpo.serving.server.worker import Worker


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """One text that is to be generated.

    Attributes:
        prompt: token ids, at least one.
        weights: (m,), or None where nothing is conditioned.
        scale: c.
        max_tokens: at least 1.
        choice: how tokens are chosen.
        stops: strings that end the text.
        streaming: pieces are wanted as they come, not the whole at the end.
        continued: the text continues the prompt (its first space counts), instead of standing alone.
    """

    prompt: tuple[int, ...]
    weights: np.ndarray | None
    scale: float
    max_tokens: int
    choice: TokenChoice
    stops: tuple[str, ...] = ()
    streaming: bool = False
    continued: bool = False


@dataclass(frozen=True)
class Piece:
    """Some more text; ``reason`` is ``stop`` or ``length`` on the last one.

    Attributes:
        tokens: generated so far.
    """

    text: str
    tokens: int
    reason: str | None = None
    error: Refusal | None = None


@dataclass(eq=False)
class Generation:
    """A request under way. :meth:`pieces` is for the event loop that submitted it; the rest is the engine's."""

    request: TextRequest
    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[Piece] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    growing: GrowingText | None = None
    tokens: list[int] = field(default_factory=list)

    async def pieces(self) -> AsyncIterator[Piece]:
        """All pieces, the last of which has a reason.

        Raises:
            Refusal: 500, the model failed; 503, the server ends.
        """
        while True:
            piece = await self.queue.get()
            if piece.error is not None:
                raise piece.error
            yield piece
            if piece.reason is not None:
                return

    def cancel(self) -> None:
        """Nobody waits for it any more; its row is given to another. For any thread, at any time."""
        self.cancelled = True


class LMEngine(Worker):
    """The decoder thread and its queue.

    Args:
        model: a :class:`~hyperdpo.alignment.model.ConditionedLM`, which this engine alone uses.
        tokenizer: of which the engine makes a copy for its thread.
        ends: ids that end a text.
        max_batch: texts that are decoded together.
        max_queue: texts that wait for a place.
    """

    def __init__(
        self, model: Any, tokenizer: Any, ends: frozenset[int], metrics: Metrics, *, max_batch: int, max_queue: int
    ):
        super().__init__("decoder")
        self._model, self._tokenizer, self._ends = model.eval(), copy.deepcopy(tokenizer), ends
        self._metrics, self.max_batch, self.max_queue = metrics, max_batch, max_queue
        self._batch = ContinuousBatch(model)
        self._active: list[Generation] = []
        self._admitting: list[Generation] = []
        self._waiting: deque[Generation] = deque()
        metrics.queue.set_function(lambda: len(self._waiting))

    def submit(self, requests: Sequence[TextRequest]) -> list[Generation]:
        """Queue some requests, all of them or none. From a coroutine.

        Raises:
            Refusal: 429, the queue is full; 503, the engine has ended.
        """
        loop = asyncio.get_running_loop()
        made = [Generation(request, loop) for request in requests]
        with self._changed:
            self._check_room(len(made))
            self._waiting.extend(made)
            self._changed.notify_all()
        return made

    def _full_with(self, more: int) -> str | None:
        # Places in the batch that are free count too: the thread takes them from the queue in a moment.
        waiting, taken = len(self._waiting), len(self._under_way())
        free = max(0, self.max_batch - taken)
        return f"{waiting} texts" if waiting + more > self.max_queue + free and (waiting or taken) else None

    def _under_way(self) -> list[Generation]:
        """Those that are decoded, and those whose prompts are being read."""
        return list(dict.fromkeys((*self._active, *self._admitting)))

    def abort(self) -> int:
        with self._changed:
            self._aborted = True
            given_up = [g for g in (*self._under_way(), *self._waiting) if not g.cancelled]
            self._waiting.clear()
            self._changed.notify_all()
        for generation in given_up:  # the decoder finds it cancelled when its pass is over
            generation.cancel()
        refusal = Refusal(503, "the server ended before the text did")
        _deliver([(g, Piece("", len(g.tokens), error=refusal)) for g in given_up])
        return len(given_up)

    def _run(self) -> None:
        torch.set_grad_enabled(False)
        while True:
            with self._changed:
                while not (self._waiting or self._active or self._closing):
                    self._changed.wait()
                if not (self._waiting or self._active):
                    return
                new = self._admitting = self._taken()
            try:
                self._round(new)
            except Exception as error:  # whatever the model raises: these requests fail, the server stays up
                failed = list(dict.fromkeys([*self._active, *new]))
                self._active = []
                self._admitting = []
                self._batch.clear()
                _fail(failed, error)

    def _taken(self) -> list[Generation]:
        """Those of the waiting that there is room for."""
        room = self.max_batch - sum(not g.cancelled for g in self._active)
        new: list[Generation] = []
        while self._waiting and len(new) < room:
            generation = self._waiting.popleft()
            if not generation.cancelled:
                new.append(generation)
        return new

    def _round(self, new: list[Generation]) -> None:
        """One more token for all rows, and the first one of new rows."""
        self._keep([i for i, g in enumerate(self._active) if not g.cancelled])
        logits = [self._batch.step([g.tokens[-1] for g in self._active])] if self._active else []
        if new:
            try:
                logits.append(self._admitted(new))
            except Exception as error:  # of a prompt: those that are under way go on
                if self._active:
                    self._batch.keep(range(len(self._active)))
                else:
                    self._batch.clear()
                _fail(new, error)
            else:
                self._active.extend(new)
            self._admitting = []
        if not self._active:
            return
        tokens = next_tokens(torch.cat(logits), [g.request.choice for g in self._active])
        self._metrics.batch.observe(len(tokens))
        self._metrics.tokens.inc(len(tokens))
        pieces, kept = [], []
        for i, (generation, token) in enumerate(zip(self._active, tokens, strict=True)):
            piece = self._accepted(generation, token)
            if piece is None or piece.reason is None:
                kept.append(i)
            if piece is not None:
                pieces.append((generation, piece))
        self._keep(kept)  # before anybody is told: whoever asks again finds the place free
        _deliver(pieces)

    def _admitted(self, new: Sequence[Generation]) -> torch.Tensor:
        """(B, V) logits of the first tokens."""
        requests = [generation.request for generation in new]
        self._metrics.prompt_tokens.inc(sum(len(request.prompt) for request in requests))
        given = [request.weights for request in requests if request.weights is not None]
        weights = np.stack(given) if len(given) == len(requests) else None
        return self._batch.admit([r.prompt for r in requests], weights, [r.scale for r in requests])

    def _accepted(self, generation: Generation, token: int) -> Piece | None:
        """What the one who waits is to know after this token."""
        request, ended = generation.request, token in self._ends
        context = request.prompt if request.continued else ()
        generation.tokens.append(token)
        count = len(generation.tokens)
        full = count >= request.max_tokens
        if not (request.streaming or request.stops):
            if not (ended or full):
                return None
            known = generation.tokens[:-1] if ended else generation.tokens
            return Piece(whole_text(self._tokenizer, context, known), count, "stop" if ended else "length")
        if generation.growing is None:
            generation.growing = GrowingText(self._tokenizer, context, request.stops)
        growing = generation.growing
        text = "" if ended else growing.push(token)
        if not growing.stopped and (ended or full):
            text += growing.finish()
        if growing.stopped or ended or full:
            return Piece(text, count, "stop" if growing.stopped or ended else "length")
        return Piece(text, count) if text else None

    def _keep(self, kept: list[int]) -> None:
        if len(kept) < len(self._active):
            self._batch.keep(kept)
            self._active = [self._active[i] for i in kept]


def _fail(generations: Sequence[Generation], error: Exception) -> None:
    """Tell those who wait what the model raised."""
    refusal = Refusal(500, f"the model failed: {' '.join(str(error).split()) or type(error).__name__}")
    _deliver([(g, Piece("", len(g.tokens), error=refusal)) for g in generations])


def _deliver(pieces: Sequence[tuple[Generation, Piece]]) -> None:
    """Hand pieces to the event loops that wait for them, at one call each."""
    loops = {generation.loop for generation, _ in pieces}
    for loop in loops:
        mine = [(generation.queue, piece) for generation, piece in pieces if generation.loop is loop]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_put, mine)


def _put(pieces: Sequence[tuple[asyncio.Queue[Piece], Piece]]) -> None:
    for queue, piece in pieces:
        queue.put_nowait(piece)

"""Answers of OpenAI's API: whole, as server-sent events, and errors."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from hyperdpo.core.point import Point
from hyperdpo.serving.server.errors import Refusal
from hyperdpo.serving.server.lm_engine import Generation, Piece

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def error_body(refusal: Refusal) -> dict[str, Any]:
    """OpenAI's shape."""
    kind = _TYPES.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {
        "error": {"message": refusal.message, "type": kind, "param": refusal.parameter, "code": refusal.code},
    }


class AnswerWriter:
    """One request's answer, whole or as events."""

    def __init__(self, model: str, chat: bool, prompt_tokens: int, names: Sequence[str], point: Point):
        self._chat, self._prompt_tokens = chat, prompt_tokens
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        named = dict(zip(names, point.weights, strict=True)) if point.weights else None
        self._point = {"weights": named, "scale": point.scale}

    def whole(self, texts: Sequence[tuple[str, str, int]]) -> dict[str, Any]:
        """The answer from (text, reason, tokens) of each choice."""
        choices = []
        for index, (text, reason, _) in enumerate(texts):
            content = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
            choices.append({"index": index, **content, "finish_reason": reason, "logprobs": None})
        name = "chat.completion" if self._chat else "text_completion"
        usage = self._usage(sum(tokens for *_, tokens in texts))
        return {**self._head, "object": name, "choices": choices, "usage": usage, **self._point}

    async def events(self, generations: Sequence[Generation], counted: bool) -> AsyncIterator[bytes]:
        """Server-sent events, the pieces of all answers as they come."""
        usage: dict[str, Any] = {"usage": None} if counted else {}
        name = "chat.completion.chunk" if self._chat else "text_completion"
        head = {**self._head, "object": name}

        def event(index: int, text: str | None, reason: str | None, role: bool = False) -> bytes:
            if self._chat:
                delta = ({"role": "assistant"} if role else {}) | ({} if text is None else {"content": text})
                content: dict[str, Any] = {"delta": delta}
            else:
                content = {"text": text or ""}
            choice = {"index": index, **content, "finish_reason": reason, "logprobs": None}
            return _event({**head, "choices": [choice], **usage})

        try:
            if self._chat:
                for index in range(len(generations)):
                    yield event(index, "", None, role=True)
            total = 0
            async for index, piece in _merged(generations):
                if piece.text:
                    yield event(index, piece.text, None)
                if piece.reason is not None:
                    total += piece.tokens
                    yield event(index, None, piece.reason)
            if counted:
                yield _event({**head, "choices": [], "usage": self._usage(total)})
            yield b"data: [DONE]\n\n"
        except Refusal as refusal:
            yield _event(error_body(refusal))

    def _usage(self, tokens: int) -> dict[str, int]:
        prompt = self._prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


async def whole_text_of(generation: Generation) -> tuple[str, str, int]:
    """Text, reason and tokens."""
    texts, reason, tokens = [], "stop", 0
    async for piece in generation.pieces():
        texts.append(piece.text)
        reason, tokens = piece.reason or reason, piece.tokens
    return "".join(texts), reason, tokens


async def _merged(generations: Sequence[Generation]) -> AsyncIterator[tuple[int, Piece]]:
    """Pieces of several texts with their index, as they come."""
    if len(generations) == 1:
        async for piece in generations[0].pieces():
            yield 0, piece
        return
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def forward(index: int, generation: Generation) -> None:
        try:
            async for piece in generation.pieces():
                queue.put_nowait((index, piece))
        except Refusal as refusal:
            queue.put_nowait(refusal)

    tasks = [asyncio.create_task(forward(i, g)) for i, g in enumerate(generations)]
    try:
        left = len(generations)
        while left:
            item = await queue.get()
            if isinstance(item, Refusal):
                raise item
            left -= item[1].reason is not None
            yield item
    finally:
        for task in tasks:
            task.cancel()


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"

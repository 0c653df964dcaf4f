"""OpenAI's API for a conditioned language model: chats, completions, models; weights and scale are in the request."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse

from hyperdpo.alignment.reference import base_print
from hyperdpo.core.point import Point, PointReader, even_weights
from hyperdpo.core.preferences import stream
from hyperdpo.errors import InputError
from hyperdpo.serving.server.app import Server, body_of, build_app, check_json, error_responses, possible_errors
from hyperdpo.serving.server.chat_answers import AnswerWriter, error_body, whole_text_of
from hyperdpo.serving.server.chat_schema import (
    ChatAnswer,
    ChatRequest,
    CompletionAnswer,
    CompletionRequest,
    ErrorAnswer,
    ModelEntry,
    ModelList,
    Sampling,
    parse_request,
)
from hyperdpo.serving.server.errors import Refusal
from hyperdpo.serving.server.lm_engine import Generation, LMEngine, TextRequest
from hyperdpo.serving.server.lm_source import LanguageModel
from hyperdpo.serving.server.token_choice import TokenChoice

#: Tokens of an answer where the request names no limit; a completion's as with OpenAI.
CHAT_TOKENS, COMPLETION_TOKENS = 256, 16

MOST_STOPS, LONGEST_STOP = 4, 200

#: A text that is made into tokens at once; longer ones would keep other requests waiting.
DIRECT_CHARACTERS = 10_000

ERRORS = possible_errors(400, "The model failed.") | {404: "No such model."}


@dataclass(frozen=True)
class TextLimits:
    """Limits of requests to a language model.

    Attributes:
        max_tokens: tokens of an answer.
        max_prompt: tokens of a prompt.
        max_choices: prompts times answers of one request.
        max_batch: texts that are decoded together.
        max_queue: queued texts.
    """

    max_tokens: int = 1024
    max_prompt: int = 4096
    max_choices: int = 16
    max_batch: int = 16
    max_queue: int = 128


def chat_app(language: LanguageModel, server: Server, limits: TextLimits, default: Point | None = None) -> FastAPI:
    """The app; its engine starts and ends with it.

    Args:
        default: the point of requests that name none.
    """
    ends, model = language.ends, language.model
    sizes = {"max_batch": limits.max_batch, "max_queue": limits.max_queue}
    engine = LMEngine(model, language.tokenizer, ends, server.metrics, **sizes)

    app = build_app(
        server,
        title=f"HyperDPO: {language.name}",
        description=f"A language model at any weights of {', '.join(language.objectives)}. OpenAI's API, with "
        "`weights` and `scale` in the request.",
        error_body=error_body,
        engine=engine,
        request_models=[ChatRequest, CompletionRequest],
    )
    service = _Service(language, engine, limits, PointReader(language.objectives, default or Point()))
    entry = {
        "id": language.name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "hyperdpo",
        "objectives": list(language.objectives),
        "max_context": language.context,
        "base_fingerprint": base_print(language.model.base),
    }
    weights = even_weights(len(language.objectives))
    point = {"weights": dict(zip(language.objectives, weights, strict=True))}

    @app.post(
        "/v1/chat/completions",
        summary="Continue a conversation",
        response_model=ChatAnswer,
        responses=error_responses(ErrorAnswer, ERRORS),
        openapi_extra=body_of(
            ChatRequest, {"a turn": {"messages": [{"role": "user", "content": "Once upon a time"}], **point}}
        ),
        tags=["text"],
    )
    async def chat(request: Request) -> Response:
        asked: ChatRequest = await service.read(request, ChatRequest)
        messages = [{"role": message.role, "content": message.text} for message in asked.messages]
        service.check_sizes(asked, 1, sum(len(one["content"]) for one in messages), "messages")
        with _bad_request("messages"):
            prompt = await service.tokenized(language.chat, messages, str(messages))
        tokens = asked.max_completion_tokens or asked.max_tokens
        return await service.answer(request, asked, [prompt], tokens, chat=True)

    @app.post(
        "/v1/completions",
        summary="Continue texts",
        response_model=CompletionAnswer,
        responses=error_responses(ErrorAnswer, ERRORS),
        openapi_extra=body_of(CompletionRequest, {"a text": {"prompt": "Once upon a time", "max_tokens": 32, **point}}),
        tags=["text"],
    )
    async def completions(request: Request) -> Response:
        asked: CompletionRequest = await service.read(request, CompletionRequest)
        with _bad_request("prompt"):
            prompts = await service.prompts(asked)
        return await service.answer(request, asked, prompts, asked.max_tokens, chat=False)

    @app.get(
        "/v1/models",
        summary="The model that is served",
        response_model=ModelList,
        responses=error_responses(ErrorAnswer, {401: ERRORS[401]}),
        tags=["text"],
    )
    async def models() -> Response:
        return _json({"object": "list", "data": [entry]})

    @app.get(
        "/v1/models/{model}",
        summary="The model that is served, by its name",
        response_model=ModelEntry,
        responses=error_responses(ErrorAnswer, {code: ERRORS[code] for code in (401, 404)}),
        tags=["text"],
    )
    async def one_model(model: str = PathParameter(examples=[language.name])) -> Response:
        service.check_name(model)
        return _json(entry)

    return app


class _Service:
    """Requests become work for the engine, and what it makes becomes answers."""

    def __init__(self, language: LanguageModel, engine: LMEngine, limits: TextLimits, points: PointReader):
        self._language, self._engine, self._limits, self._points = language, engine, limits, points

    async def read(self, request: Request, kind: type[Sampling]) -> Any:
        """A request's body, unless the queue is full already."""
        check_json(request)
        self._engine.check_room()
        return parse_request(kind, await request.body())

    def check_sizes(self, asked: Sampling, prompts: int, characters: int, name: str) -> None:
        """Raise before any text is made into tokens, which takes a while, where it would be in vain.

        Raises:
            Refusal: 400, too many answers, or a text that is too long however it is made into tokens.
        """
        answers, most = 1 if asked.n is None else asked.n, self._limits.max_choices
        if not prompts or answers * prompts > most:
            found = f"{prompts} prompts, {answers} answers each"
            raise Refusal(400, f"n: found {found}; expected 1 to {most} in all", parameter="n")
        tokens = self._limits.max_prompt
        if characters > tokens * prompts * self._language.longest:
            message = f"{name}: {characters} characters; expected at most {tokens} tokens"
            raise Refusal(400, message, parameter=name, code="context_length_exceeded")

    async def tokenized(self, tokens_of: Callable[[Any], list[int]], given: Any, text: str) -> list[int]:
        """The tokens of something that is about as long as the text; of a long one while other requests go on."""
        if len(text) <= DIRECT_CHARACTERS:
            return tokens_of(given)
        return await asyncio.to_thread(tokens_of, given)

    async def prompts(self, asked: CompletionRequest) -> list[list[int]]:
        """Token ids of every prompt of a completion."""
        single = isinstance(asked.prompt, str) or (asked.prompt and isinstance(asked.prompt[0], int))
        given: list[Any] = [asked.prompt] if single else list(asked.prompt)
        self.check_sizes(asked, len(given), sum(len(one) for one in given if isinstance(one, str)), "prompt")
        size = self._language.vocabulary
        found = []
        for number, one in enumerate(given):
            if isinstance(one, str):
                found.append(await self.tokenized(self._language.text, one, one))
                continue
            wrong = [i for i in one if not 0 <= i < size]
            if wrong:
                raise InputError(f"prompt[{number}]: no token {wrong[0]}; expected ids from 0 to {size - 1}")
            found.append(one)
        return found

    def check_name(self, name: str) -> None:
        """Raise unless it is the model's.

        Raises:
            Refusal: 404.
        """
        if name != self._language.name:
            message = f"model: no {name[:80]!r} here; expected {self._language.name!r}"
            raise Refusal(404, message, parameter="model", code="model_not_found")

    async def answer(
        self, request: Request, asked: Sampling, prompts: list[list[int]], tokens: int | None, *, chat: bool
    ) -> Response:
        """The answer to a request whose prompts are token ids."""
        if asked.model is not None:
            self.check_name(asked.model)
        with _bad_request("weights"):
            point = self._points.read(asked.weights, asked.scale)
            if not point.weights and self._language.model.conditioning.is_conditioned:
                raise self._points.missing()
        work = self._work(asked, prompts, tokens, point, chat)
        generations = self._engine.submit(work)
        used = sum(map(len, prompts))
        writer = AnswerWriter(self._language.name, chat, used, self._points.names, point)
        if asked.stream:
            counted = bool(asked.stream_options and asked.stream_options.include_usage)
            return StreamingResponse(
                _cancelling(generations, writer.events(generations, counted)),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        gone = asyncio.create_task(_disconnected(request))
        made = asyncio.ensure_future(asyncio.gather(*map(whole_text_of, generations)))
        try:
            await asyncio.wait((gone, made), return_when=asyncio.FIRST_COMPLETED)
            if not made.done():
                return Response(status_code=499)  # nobody reads it
            return _json(writer.whole(made.result()))
        finally:
            gone.cancel()
            made.cancel()
            for generation in generations:
                generation.cancel()

    def _work(
        self, asked: Sampling, prompts: list[list[int]], tokens: int | None, point: Point, chat: bool
    ) -> list[TextRequest]:
        """One text for each answer of each prompt.

        Raises:
            Refusal: 400, beyond a limit.
        """
        limits, name = self._limits, "messages" if chat else "prompt"
        if tokens is not None and tokens > limits.max_tokens:
            message = f"max_tokens: found {tokens}; expected at most {limits.max_tokens}"
            raise Refusal(400, message, parameter="max_tokens")
        stops = [asked.stop] if isinstance(asked.stop, str) else list(asked.stop or ())
        if len(stops) > MOST_STOPS or any(not 0 < len(stop) <= LONGEST_STOP for stop in stops):
            message = f"stop: expected at most {MOST_STOPS} texts of 1 to {LONGEST_STOP} characters"
            raise Refusal(400, message, parameter="stop")
        work: list[TextRequest] = []
        for prompt in prompts:
            wanted = self._room(prompt, tokens, CHAT_TOKENS if chat else COMPLETION_TOKENS, name)
            for _ in range(asked.n or 1):
                rng = np.random.default_rng()
                if asked.seed is not None:  # each answer has a stream of its own
                    rng = stream(asked.seed % 2**64, len(work))
                choice = TokenChoice(
                    temperature=1.0 if asked.temperature is None else asked.temperature,
                    top_p=1.0 if asked.top_p is None else asked.top_p,
                    rng=rng,
                )
                work.append(
                    TextRequest(
                        prompt=tuple(prompt),
                        weights=np.array(point.weights) if self._language.model.conditioning.is_conditioned else None,
                        scale=point.scale,
                        max_tokens=wanted,
                        choice=choice,
                        stops=tuple(stops),
                        streaming=bool(asked.stream),
                        continued=not chat,
                    )
                )
        return work

    def _room(self, prompt: Sequence[int], tokens: int | None, usual: int, name: str) -> int:
        """How many tokens an answer may have.

        Raises:
            Refusal: 400, the prompt is empty or too long, or there is no room for what is asked.
        """
        limits, context = self._limits, self._language.context
        if not prompt:
            raise Refusal(400, f"{name}: no tokens; expected a text", parameter=name)
        if len(prompt) > limits.max_prompt:
            message = f"{name}: {len(prompt)} tokens; expected at most {limits.max_prompt}"
            raise Refusal(400, message, parameter=name, code="context_length_exceeded")
        left = limits.max_tokens if context is None else context - len(prompt)
        if left < (tokens or 1):
            message = f"{name}: {len(prompt)} tokens, and {tokens or 1} to generate; the model takes {context} together"
            raise Refusal(400, message, parameter=name, code="context_length_exceeded")
        return tokens or min(usual, limits.max_tokens, left)


@contextlib.contextmanager
def _bad_request(parameter: str) -> Any:
    """A user's mistake is a 400."""
    try:
        yield
    except InputError as error:
        raise Refusal(400, str(error), parameter=parameter) from None


async def _cancelling(generations: Sequence[Generation], events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events; when they end, or nobody reads them any more, the rows are given back."""
    try:
        async for event in events:
            yield event
    finally:
        for generation in generations:
            generation.cancel()


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")

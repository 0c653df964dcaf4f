"""The servers that ``hyperdpo verify`` asks: llama.cpp's, ours, and any other with OpenAI's completions.

All are asked greedily, with token ids as the prompt. llama.cpp answers with token ids and their log-probabilities, ours
with texts, others with texts and mostly with log-probabilities.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any, ClassVar
from urllib.parse import urlsplit

from hyperdpo.errors import InputError, brief, counted, one_line
from hyperdpo.serving.verify.claims import Claims

ENGINES = ("llama.cpp", "hyperdpo", "openai")

#: Bytes of an answer: far more than any that is asked for.
MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Answer:
    """What a server made of one prompt.

    Attributes:
        ids: its tokens; None if the server gives none.
        logprobs: of its tokens, natural logarithms; None if the server gives none.
    """

    text: str
    ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Finding:
    """Something that was found out about a server, with what to do.

    Attributes:
        name: such as ``adapter-order``.
    """

    name: str
    message: str


class Client:
    """JSON over HTTP. Redirections are refused: the key would go to another server."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 120):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InputError(f"URL: found {brief(url)}; expected one such as http://127.0.0.1:8080")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = timeout
        self._opener = urllib.request.build_opener(_NoRedirects)

    def get(self, route: str) -> Any:
        """What a route answers; None if there is no such route."""
        return self._ask(route, None)

    def post(self, route: str, body: Mapping[str, Any]) -> Any:
        """The answer to a body.

        Raises:
            InputError: nobody answers, or it is a refusal, or no JSON.
        """
        found = self._ask(route, json.dumps(body).encode())
        if found is None:
            raise InputError(f"{self.url}{route}: no such route (status 404); expected another --engine or URL")
        return found

    def _ask(self, route: str, body: bytes | None) -> Any:
        place = self.url + route
        request = urllib.request.Request(place, body, self._headers)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                content = answer.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            if error.code in (404, 405, 501) and body is None:
                return None
            raise self._refusal(place, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            told = one_line(getattr(reason, "strerror", None) or str(reason)) or type(error).__name__
            raise InputError(f"{place}: no answer ({told}); expected a running server") from None
        try:
            if len(content) > MOST_BYTES:
                raise ValueError
            return json.loads(content)
        except (ValueError, RecursionError):
            if body is None:
                return None
            raise InputError(f"{place}: the answer is no JSON; expected llama.cpp, hyperdpo or OpenAI's API") from None

    def _refusal(self, place: str, error: urllib.error.HTTPError) -> InputError:
        if error.code in (401, 403):
            return InputError(
                f"{place}: no key, or a wrong one (status {error.code}); expected the server's key in HYPERDPO_API_KEY "
                "or --api-key-file"
            )
        if error.code == 404:
            return InputError(f"{place}: no such route or model (status 404); {_told(error)}")
        if 300 <= error.code < 400:
            target = brief(error.headers.get("Location", ""))
            return InputError(f"{place}: redirected to {target}; expected the server's own URL")
        return InputError(f"{place}: refused (status {error.code}); {_told(error)}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _told(error: urllib.error.HTTPError) -> str:
    """What a refusal says: OpenAI's shape, or any text."""
    try:
        text = error.read(65536).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        text = str(json.loads(text)["error"]["message"])
    return f"the server says: {one_line(text)}" if text.strip() else "the server does not say why"


@dataclass(frozen=True)
class Engine:
    """A running server.

    Attributes:
        model: the name of the model in requests; None: it needs none.
    """

    client: Client
    model: str | None = None

    name: ClassVar[str] = ""
    #: Whether a request brings weights.
    weighted: ClassVar[bool] = True

    def findings(self, claims: Claims) -> list[Finding]:
        """What the server says about itself that is not as ``dial.json`` has it."""
        return []

    def answer(self, claims: Claims, ids: Sequence[int], weights: Sequence[float] | None) -> Answer:
        """The greedy answer to a prompt.

        Args:
            ids: the prompt.
            weights: one per objective; None: as the server is set.
        """
        raise NotImplementedError


class LlamaCpp(Engine):
    """llama.cpp's ``llama-server``."""

    name = "llama.cpp"

    def findings(self, claims: Claims) -> list[Finding]:
        listed = self.client.get("/lora-adapters")
        if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
            return []
        loaded = [PureWindowsPath(str(one.get("path", ""))).name for one in listed]  # its / and \ both separate
        scales = [one.get("scale") for one in listed]
        wanted, found = [one.path for one in claims.adapters], []
        start = f"start it with --lora {','.join(wanted)} --lora-init-without-apply"
        shown = ", ".join(loaded) or "none"
        if len(loaded) != len(wanted):
            found.append(
                Finding(
                    "adapter-number",
                    f"the server has loaded {counted(len(loaded), 'adapter')} ({shown}), dial.json has {len(wanted)}; "
                    + start,
                )
            )
        elif loaded != wanted and sorted(loaded) == sorted(wanted):
            found.append(
                Finding("adapter-order", f"the server has loaded {shown} in this order; {start}, in the dial's order")
            )
        if any(isinstance(scale, int | float) and scale != 0 for scale in scales):
            counts = ", ".join(f"{scale:g}" if isinstance(scale, int | float) else "?" for scale in scales)
            found.append(
                Finding(
                    "adapters-applied",
                    f"adapters count {counts} in requests that do not name them (the server was started without "
                    "--lora-init-without-apply); clients have to name every adapter in every request",
                )
            )
        return found

    def answer(self, claims: Claims, ids: Sequence[int], weights: Sequence[float] | None) -> Answer:
        body: dict[str, Any] = {
            "prompt": list(ids),
            "n_predict": claims.recorded.max_new_tokens,
            "temperature": 0,
            "repeat_penalty": 1.0,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "dry_multiplier": 0,
            "return_tokens": True,
            "n_probs": 1,
            "cache_prompt": False,
        }
        if weights is not None:
            adapters = zip(claims.adapters, weights, strict=True)
            body["lora"] = [{"id": one.id, "scale": float(weight)} for one, weight in adapters]
        found = self.client.post("/completion", body)
        try:
            text, tokens = str(found["content"]), found.get("tokens")
            told = found.get("completion_probabilities")
            given = None if not told or "logprob" not in told[0] else tuple(float(one["logprob"]) for one in told)
            return Answer(text, tuple(map(int, tokens)) if tokens else None, given)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _unknown(self, "/completion") from None


class Hyperdpo(Engine):
    """``hyperdpo serve``."""

    name = "hyperdpo"

    def findings(self, claims: Claims) -> list[Finding]:
        (entry,) = _models(self.client)[:1] or [{}]
        wanted, found = list(claims.names), []
        served = entry.get("objectives")
        if isinstance(served, list) and sorted(map(str, served)) != sorted(wanted):
            found.append(
                Finding(
                    "objectives",
                    f"the server has the objectives {', '.join(map(str, served)) or 'none'}, dial.json has "
                    f"{', '.join(wanted)}; start it on the run that was exported",
                )
            )
        own, base = entry.get("base_fingerprint"), claims.base.fingerprint
        if own is not None and base is not None and own != base:
            found.append(
                Finding(
                    "another-base",
                    f"the server's base has the fingerprint {brief(own)}, dial.json has {brief(base)}: another base, "
                    "or the same in another precision; start it on the base of the run",
                )
            )
        return found

    def answer(self, claims: Claims, ids: Sequence[int], weights: Sequence[float] | None) -> Answer:
        body: dict[str, Any] = {
            "prompt": list(ids),
            "max_tokens": claims.recorded.max_new_tokens,
            "temperature": 0,
        }
        if weights is not None:
            names = list(claims.names)
            body |= {"weights": dict(zip(names, map(float, weights), strict=True)), "scale": 1}
        found = self.client.post("/v1/completions", body)
        return _completion(self, found)


class OpenAI(Engine):
    """Any server with OpenAI's completions that takes token ids; it has no weights."""

    name = "openai"
    weighted = False

    def answer(self, claims: Claims, ids: Sequence[int], weights: Sequence[float] | None) -> Answer:
        assert weights is None
        body: dict[str, Any] = {
            "prompt": list(ids),
            "max_tokens": claims.recorded.max_new_tokens,
            "temperature": 0,
            "logprobs": 1,
        }
        if self.model is not None:
            body["model"] = self.model
        return _completion(self, self.client.post("/v1/completions", body))


def _completion(engine: Engine, found: Any) -> Answer:
    """The one choice of a completion."""
    try:
        choice = found["choices"][0]
        told = choice.get("logprobs") or {}
        values = told.get("token_logprobs") or [one["logprob"] for one in told.get("content") or ()]
        return Answer(str(choice["text"]), None, tuple(map(float, values)) or None)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise _unknown(engine, "/v1/completions") from None


def _unknown(engine: Engine, route: str) -> InputError:
    return InputError(f"{engine.client.url}{route}: not an answer as {engine.name} gives it; expected another --engine")


def _models(client: Client) -> list[Any]:
    found = client.get("/v1/models")
    listed = found.get("data") if isinstance(found, Mapping) else None
    return [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []


def engine_at(client: Client, name: str | None = None, model: str | None = None) -> Engine:
    """The engine that answers.

    Args:
        name: one of :data:`ENGINES`; None: what the server says it is.
        model: the name of the model in requests; None: the first that the server has.

    Raises:
        InputError: nobody answers, or something that is no such server.
    """
    listed = _models(client)
    if name is None:
        owners = {str(one.get("owned_by")) for one in listed}
        if owners == {"hyperdpo"}:
            name = "hyperdpo"
        elif owners == {"llamacpp"} or isinstance(client.get("/lora-adapters"), list):
            name = "llama.cpp"
        elif listed:
            name = "openai"
        else:
            raise InputError(
                f"{client.url}: an unknown server (no model at /v1/models, no /lora-adapters); expected llama.cpp, "
                "hyperdpo serve or OpenAI's API, or --engine"
            )
    kinds: dict[str, type[Engine]] = {kind.name: kind for kind in (LlamaCpp, Hyperdpo, OpenAI)}
    if name == "openai" and model is None and listed:
        model = str(listed[0].get("id"))
    return kinds[name](client, model)

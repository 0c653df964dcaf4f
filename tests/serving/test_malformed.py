"""Requests that nobody should send: generated from the OpenAPI document, and good ones with something broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from live_server import running

from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.chat_api import TextLimits, chat_app
from hyperdpo.serving.server.lm_source import LanguageModel
from hyperdpo.serving.server.rank_api import rank_app
from hyperdpo.serving.server.rank_model import RankModel
from hyperdpo.serving.server.rank_schema import RankLimits

#: Of each kind of server.
BODIES = 10_000

GOOD_RANK = {
    "groups": [
        {"features": [[0.5, -1, 2, 0, 1e3, 4]] * 3, "weights": [0.3, 0.7], "scale": 2.0, "ids": ["x", "y", 3]},
        {"features": [[1, 2, 3, 4, 5, 6.0]], "weights": {"a": 1}, "temperatures": [1, 1]},
    ]
}
GOOD_CHAT = {
    "messages": [{"role": "system", "content": "w3"}, {"role": "user", "content": "w4 w5"}],
    "weights": {"a": 0.5, "b": 0.5},
    "scale": 1.5,
    "max_tokens": 1,
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["w7"],
    "seed": 3,
    "n": 1,
    "stream": False,
}
GOOD_TEXT = {"prompt": ["w3 w4"], "weights": [0.5, 0.5], "max_tokens": 1, "stream": True}


def _numbers(value: Any) -> list[float]:
    """The small numbers in something, however deep."""
    if isinstance(value, list | dict):
        return [number for one in (value.values() if isinstance(value, dict) else value) for number in _numbers(one)]
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
    return [float(value)] if usable else []


def _texts(value: Any) -> list[str]:
    """The texts in something, as far as they can be sent."""
    if isinstance(value, list | dict):
        return [text for one in (value.values() if isinstance(value, dict) else value) for text in _texts(one)]
    return [value] if isinstance(value, str) and value.isprintable() else []


def _with_point(body: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    share = abs(_numbers(body.get("weights"))[0]) % 1 if _numbers(body.get("weights")) else 0.25
    scale = sum(map(abs, _numbers(body.get("scale"))), 1.0)
    return found | {"weights": [share, 1 - share], "scale": scale}


def mended_lists(body: dict[str, Any]) -> dict[str, Any]:
    """A request for lists that has to be answered, of what was generated."""
    groups = body.get("groups")
    lists = [one for one in groups if isinstance(one, dict)] if isinstance(groups, list) else [body]
    found = []
    for one in lists[:3] or [{}]:
        numbers = [*_numbers(one.get("features")), *GOOD_RANK["groups"][0]["features"][0]]  # type: ignore[index]
        rows = [numbers[i : i + 6] for i in range(0, len(numbers) - 5, 6)][:50]
        ids = [text for text in _texts(one.get("ids"))][: len(rows)]
        found.append(_with_point(one, {"features": rows}) | ({"ids": ids} if len(ids) == len(rows) else {}))
    return {"groups": found}


def mended_text(body: dict[str, Any]) -> dict[str, Any]:
    """A request for texts that has to be answered, of what was generated."""
    texts = [text for text in _texts(body.get("prompt", body.get("messages"))) if text.strip()][:3] or ["w3"]
    kept = {name: body[name] for name in ("stream", "seed", "n") if isinstance(body.get(name), bool | int)}
    seed = {"seed": kept["seed"]} if isinstance(kept.get("seed"), int) and abs(kept["seed"]) < 2**62 else {}
    asked: dict[str, Any] = {"max_tokens": 2, "n": 2, **seed}
    if "messages" in body:
        asked["messages"] = [{"role": "user", "content": text} for text in texts]
    else:
        asked["prompt"] = texts
    return _with_point(body, asked)


MENDED = {"/rank": mended_lists, "/v1/chat/completions": mended_text, "/v1/completions": mended_text}


@pytest.fixture
def rank(rank_model: RankModel) -> FastAPI:
    return rank_app(rank_model, Server(), RankLimits())


@pytest.fixture
def chat(language: LanguageModel) -> FastAPI:
    return chat_app(language, Server(), TextLimits(max_tokens=8))


@pytest.mark.parametrize("kind", ["rank", "chat"])
@pytest.mark.filterwarnings("ignore")
def test_requests_made_from_the_document_get_no_server_error(kind: str, request: pytest.FixtureRequest) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    import hypothesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    app = request.getfixturevalue(kind)
    seen: Counter[tuple[str, int]] = Counter()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    for operation in schema.get_all_operations():
        api = operation.ok()
        for mode in schemathesis.GenerationMode:

            @hypothesis.seed(0)
            @hypothesis.settings(
                max_examples=12, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
            )
            @hypothesis.given(case=api.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                for _ in range(2):
                    response = case.call()
                    seen[case.operation.path, response.status_code] += 1
                    checks = [not_a_server_error, response_schema_conformance]
                    if case.method == case.operation.method.upper():
                        checks.append(status_code_conformance)
                    case.validate_response(response, checks=checks)
                    # Few of those made from the document have weights that sum to 1, or rows of one width: once more.
                    if case.operation.path not in MENDED or not isinstance(case.body, dict):
                        break
                    case.body = MENDED[case.operation.path](case.body)
                    case.media_type = "application/json"

            try:
                check()
            except hypothesis.errors.Unsatisfiable:
                continue  # nothing can be wrong about a request without parameters
    assert seen["/healthz", 200]
    assert sum(seen.values()) >= 25
    for path in MENDED:
        if path in schema.raw_schema["paths"]:
            assert seen[path, 200] >= 8, seen


@pytest.mark.parametrize("kind", ["rank", "chat"])
def test_the_documents_own_examples_are_answered(kind: str, request: pytest.FixtureRequest) -> None:
    with TestClient(request.getfixturevalue(kind)) as client:
        for path, methods in client.get("/openapi.json").json()["paths"].items():
            for method, operation in methods.items():
                named = {one["name"]: one["schema"]["examples"][0] for one in operation.get("parameters", ())}
                content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                for example in content.get("examples", {"none": {"value": None}}).values():
                    body = (
                        example["value"] | ({"max_tokens": 4} if kind == "chat" else {}) if example["value"] else None
                    )
                    answer = client.request(method, path.format(**named), json=body)
                    assert answer.status_code == 200, (path, answer.text)


def broken(rng: random.Random, good: dict[str, Any]) -> tuple[bytes, bytes]:
    """A body and its content type: a good one with something broken."""
    body, kind = json.dumps(good).encode(), b"application/json"
    way = rng.randrange(9)
    if way == 0:
        body = body[: rng.randrange(len(body))]
    elif way == 1:  # other bytes
        changed = bytearray(body)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        body = bytes(changed)
    elif way == 2:
        body = b'{"a":' * rng.randint(1, 50_000) + b"1"
    elif way == 3:
        body = b"[" * rng.randint(1, 50_000)
    elif way == 4:
        body = body.decode().encode(rng.choice(["utf-16", "utf-32", "utf-8-sig"]))
    elif way == 5:
        kind = rng.choice([b"text/plain", b"", b"multipart/form-data; boundary=x", b"application/json; charset=\xff"])
    else:
        changed_value = json.loads(body)
        for _ in range(rng.randint(1, 3)):
            _replace(rng, changed_value)
        body = json.dumps(changed_value).encode()
        if way == 8:
            body = body.replace(b"0.5", rng.choice([b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"0x1", b"1_0", b".5"]))
    return body, kind


def _replace(rng: random.Random, value: Any) -> None:
    """Put something of a wrong type or size somewhere."""
    odd: list[Callable[[], Any]] = [
        lambda: None,
        lambda: True,
        lambda: "x" * rng.randint(0, 300),
        lambda: -1,
        lambda: 2**63,
        lambda: 10**300,
        lambda: 1e308,
        lambda: 1e-320,
        lambda: [],
        lambda: {},
        lambda: [[[]]],
        lambda: {"a": {"a": "\ud800"}},
        lambda: [0.0] * rng.randint(0, 2000),
        lambda: "\x00\ud83d",
    ]
    while True:
        places = list(value.keys()) if isinstance(value, dict) else list(range(len(value)))
        if not places:
            return
        place = rng.choice(places)
        inside = value[place]
        if isinstance(inside, dict | list) and inside and rng.random() < 0.7:
            value = inside
            continue
        if isinstance(value, dict) and rng.random() < 0.2:
            value[rng.choice(["", "x" * 100, "\x00", "features", "logprobs", "tools", "prompt"])] = value.pop(place)
        else:
            value[place] = rng.choice(odd)()
        return


async def ask(app: Any, path: str, body: bytes, kind: bytes) -> tuple[int, bytes]:
    """Status and body, without a network."""
    sent = [{"type": "http.request", "body": body, "more_body": False}]
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answer: list[bytes] = []
    status = 0

    async def receive() -> Any:
        if sent:
            return sent.pop()
        await gone
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        answer.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", kind)],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
        "root_path": "",
    }
    await app(scope, receive, send)
    gone.cancel()
    return status, b"".join(answer)


def statuses(app: FastAPI, paths: dict[str, dict[str, Any]], count: int) -> Counter[int]:
    """The statuses of so many broken requests; a good one must still be answered afterwards."""
    rng = random.Random(0)
    found: Counter[int] = Counter()

    async def every(client: TestClient) -> None:
        for number in range(count):
            path = list(paths)[number % len(paths)]
            body, kind = broken(rng, paths[path])
            status, answer = await ask(app, path, body, kind)
            assert status < 500, (body[:500], answer)
            if status >= 400:
                assert b"\\n" not in answer
                assert len(answer) < 2000
            found[status] += 1

    with TestClient(app) as client:
        # A thread of its own: a browser of other tests leaves an event loop running in this one.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, every(client)).result()
        for path, good in paths.items():
            assert client.post(path, json=good).status_code == 200
        assert client.get("/healthz").status_code == 200
    return found


def test_malformed_bodies_leave_a_ranking_server_up(rank: FastAPI) -> None:
    found = statuses(rank, {"/rank": GOOD_RANK}, BODIES)
    assert found[422] > BODIES / 2
    assert found[415]


def test_malformed_bodies_leave_a_chat_server_up(chat: FastAPI) -> None:
    found = statuses(chat, {"/v1/chat/completions": GOOD_CHAT, "/v1/completions": GOOD_TEXT}, BODIES)
    assert found[400] > BODIES / 2
    assert found[415]


HEAD = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"content-length: 100\r\n\r\n{",  # the rest never comes
        HEAD + b"content-length: -1\r\n\r\n{}",
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
        HEAD + b"content-length: 99999999999999999999999\r\n\r\n{}",
        CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"2\r\n{}\r\n",  # no last chunk
        CHUNKED + b"ffffffffffffffff\r\n{}",
        CHUNKED + b"1\r\n{\r\n" * 500 + b"0\r\n\r\n",
        HEAD + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 1000,
    ],
)
def test_what_is_hardly_http_leaves_a_real_server_up(rank: FastAPI, sent: bytes) -> None:
    with running(rank) as url:
        host, port = url.removeprefix("http://").split(":")
        for _ in range(5):
            with socket.create_connection((host, int(port)), timeout=10) as connection, contextlib.suppress(OSError):
                connection.sendall(sent.replace(b"%s", b"/rank"))
                connection.settimeout(0.1)
                answer = connection.recv(4096)
                assert not answer.startswith(b"HTTP/1.1 5"), answer
        assert httpx.post(f"{url}/rank", json=GOOD_RANK, timeout=30).status_code == 200

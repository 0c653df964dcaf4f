"""OpenAI's API: the official client, and every text as the model generates it alone, offline."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from live_server import running

from hyperdpo.alignment.continuous import ContinuousBatch
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.core.point import Point
from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.chat_api import TextLimits, chat_app
from hyperdpo.serving.server.lm_source import LanguageModel

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def alone(adapter: Path) -> ConditionedLM:
    """The same model once more, that no server uses."""
    return ConditionedLM.from_pretrained(adapter)


@pytest.fixture(scope="module")
def served(language: LanguageModel) -> Iterator[tuple[str, Server]]:
    server = Server()
    with running(chat_app(language, server, TextLimits()), server) as url:
        yield url, server


def client(language: LanguageModel, *, limits: TextLimits | None = None, default: Point | None = None) -> Any:
    return TestClient(chat_app(language, Server(), limits or TextLimits(), default))


def offline(alone: ConditionedLM, language: LanguageModel, asked: dict[str, Any]) -> str:
    """The greedy text that one call of generate gives."""
    ids = language.tokenizer(asked["prompt"])["input_ids"]
    new = alone.generate(
        [ids],
        weights=asked["weights"],
        scale=asked.get("scale", 1.0),
        max_new_tokens=asked["max_tokens"],
        do_sample=False,
        pad_token_id=0,
    )[0, len(ids) :]
    return str(language.tokenizer.decode(new, skip_special_tokens=True))


def some_request(rng: np.random.Generator) -> dict[str, Any]:
    share = round(float(rng.random()), 3)
    prompt = " ".join(f"w{i}" for i in rng.integers(3, 50, rng.integers(1, 9)))
    scale = float(rng.choice([1.0, 1.0, 2.0, 0.7]))
    return {
        "prompt": prompt,
        "weights": [share, 1 - share],
        "scale": scale,
        "temperature": 0,
        "max_tokens": int(rng.integers(1, 14)),
    }


def test_sixteen_clients_get_what_they_would_get_offline_one_by_one(
    served: tuple[str, Server], language: LanguageModel, alone: ConditionedLM
) -> None:
    rng, (url, server) = np.random.default_rng(0), served
    requests = [some_request(rng) for _ in range(64)]
    barrier = threading.Barrier(16)

    def ask(number: int) -> list[Any]:
        barrier.wait(30)
        with httpx.Client(base_url=url, timeout=60) as http:
            return [http.post("/v1/completions", json=asked).json() for asked in requests[number::16]]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    for number, mine in enumerate(answers):
        for asked, answer in zip(requests[number::16], mine, strict=True):
            assert answer["choices"][0]["text"].strip() == offline(alone, language, asked), asked
            assert answer["usage"]["prompt_tokens"] == len(asked["prompt"].split())
    value = server.metrics.registry.get_sample_value
    assert (value("hyperdpo_batch_size_count") or 0) < (value("hyperdpo_generated_tokens_total") or 0)


def openai_client(url: str, key: str = "none") -> Any:
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def test_the_official_client_chats_completes_and_streams(
    served: tuple[str, Server], language: LanguageModel, alone: ConditionedLM
) -> None:
    official = openai_client(served[0])
    (model,) = official.models.list().data
    assert official.models.retrieve(model.id) == model
    asked = {"prompt": "w3 w4 w5", "weights": [0.3, 0.7], "scale": 2.0, "max_tokens": 12}
    wanted = offline(alone, language, asked)
    point = {"weights": {"a": 0.3, "b": 0.7}, "scale": 2}
    whole = official.chat.completions.create(
        model=model.id, messages=[{"role": "user", "content": "w3 w4 w5"}], extra_body=point, **GREEDY
    )
    assert whole.choices[0].message.content == wanted
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 12
    chunks = list(
        official.chat.completions.create(
            model=model.id,
            messages=[{"role": "user", "content": "w3 w4 w5"}],
            extra_body=point,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == wanted
    assert sum(map(bool, texts)) == 12
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage.total_tokens == 15
    text = official.completions.create(model=model.id, prompt="w3 w4 w5", extra_body=point, **GREEDY)
    assert text.choices[0].text == " " + wanted
    pieces = official.completions.create(model=model.id, prompt="w3 w4 w5", extra_body=point, stream=True, **GREEDY)
    assert "".join(piece.choices[0].text for piece in pieces) == " " + wanted


def test_the_official_client_gets_its_errors(served: tuple[str, Server]) -> None:
    openai = pytest.importorskip("openai")
    official = openai_client(served[0])
    with pytest.raises(openai.BadRequestError, match=r"weights: missing; expected one per objective, for a, b"):
        official.completions.create(model="adapter", prompt="w3")
    with pytest.raises(openai.NotFoundError, match="expected 'adapter'"):
        official.completions.create(model="gpt-9", prompt="w3")
    with pytest.raises(openai.NotFoundError, match="expected 'adapter'"):
        official.models.retrieve("gpt-9")


def test_a_text_ends_at_an_end_token_or_a_stop_string(language: LanguageModel) -> None:
    asked = {"prompt": "w3 w4 w5", "weights": [0.5, 0.5], "temperature": 0, "max_tokens": 20}
    with client(language) as http:
        free = http.post("/v1/completions", json=asked).json()["choices"][0]["text"]
        words = free.split()
        stop = f"{words[4]} {words[5][:2]}"  # across tokens, to the middle of one
        for stream in (False, True):
            answer = http.post("/v1/completions", json={**asked, "stop": ["never", stop], "stream": stream})
            events = [json.loads(e[6:]) for e in answer.text.split("\n\n") if stream and e.startswith("data: {")]
            choices = [event["choices"][0] for event in events] if stream else answer.json()["choices"]
            assert "".join(choice["text"] for choice in choices) == free[: free.index(stop)]
            assert choices[-1]["finish_reason"] == "stop"


def test_a_seed_draws_the_same_text_in_any_company(served: tuple[str, Server]) -> None:
    asked = {"prompt": "w9 w8", "weights": [0.5, 0.5], "max_tokens": 16, "seed": 7, "top_p": 0.9}
    with httpx.Client(base_url=served[0], timeout=60) as http, ThreadPoolExecutor(8) as pool:

        def text(more: dict[str, Any]) -> list[str]:
            return [c["text"] for c in http.post("/v1/completions", json={**asked, **more}).json()["choices"]]

        (alone,) = text({})
        crowd = list(pool.map(text, [{"seed": i, "weights": [i / 12, 1 - i / 12]} for i in range(8)] + [{}] * 3))
        assert crowd[-3:] == [[alone]] * 3
        assert len({one for (one,) in crowd[:7]}) == 7
        several = text({"n": 3})
        assert several[0] == alone
        assert len(set(several)) == 3
        (greedy,) = text({"temperature": 0})
        assert text({"top_p": 1e-9}) == [greedy]


def test_several_prompts_and_token_ids(served: tuple[str, Server], language: LanguageModel) -> None:
    ids = language.tokenizer("w3 w4")["input_ids"]
    with httpx.Client(base_url=served[0], timeout=60) as http:

        def texts(prompt: Any) -> list[str]:
            asked = {"prompt": prompt, "weights": [1, 0], **GREEDY}
            return [c["text"] for c in http.post("/v1/completions", json=asked).json()["choices"]]

        one, other = texts("w3 w4"), texts("w7")
        assert texts(["w3 w4", "w7"]) == one + other
        assert texts(ids) == texts([ids]) == one


def test_a_chat_template_is_used_where_there_is_one(adapter: Path, alone: ConditionedLM) -> None:
    language = LanguageModel.load(adapter)
    language.tokenizer.chat_template = "{% for m in messages %}w9 {{ m.content }} {% endfor %}w10"
    turns = [{"role": "system", "content": "w3"}, {"role": "user", "content": [{"type": "text", "text": "w4"}]}]
    asked = {"messages": turns, "weights": [0, 1], **GREEDY}
    with client(language) as http:
        answer = http.post("/v1/chat/completions", json=asked).json()
    wanted = offline(alone, language, {"prompt": "w9 w3 w9 w4 w10", "weights": [0, 1], "max_tokens": 12})
    assert answer["choices"][0]["message"]["content"] == wanted


def test_what_a_request_leaves_out_is_the_servers_own_point(language: LanguageModel, alone: ConditionedLM) -> None:
    with client(language, default=Point((0.9, 0.1), 3.0)) as http:
        answer = http.post("/v1/completions", json={"prompt": "w5", **GREEDY}).json()
    assert (answer["weights"], answer["scale"]) == ({"a": 0.9, "b": 0.1}, 3.0)
    wanted = offline(alone, language, {"prompt": "w5", "weights": [0.9, 0.1], "scale": 3.0, "max_tokens": 12})
    assert answer["choices"][0]["text"].strip() == wanted


@pytest.mark.parametrize(
    ("more", "parameter", "words"),
    [
        ({"prompt": ""}, "prompt", ("no tokens",)),
        ({"prompt": [99]}, "prompt", ("no token 99", "49")),
        ({"weights": [1, 1]}, "weights", ("sum 2",)),
        ({"weights": {"c": 1}}, "weights", ("'c'", "a, b")),
        ({"weights": ["1", "0"]}, "weights", ("'1'",)),
        ({"scale": 0}, "scale", ("greater than 0",)),
        ({"scale": True}, "scale", ("True",)),
        ({"prompt": [True]}, "prompt", ("True",)),
        ({"stream": "yes"}, "stream", ("'yes'",)),
        ({"temperature": -1}, "temperature", ("-1",)),
        ({"max_tokens": 1025}, "max_tokens", ("1025", "1024")),
        ({"n": 17}, "n", ("17 answers", "16")),
        ({"stop": [""]}, "stop", ("4 texts",)),
        ({"logprobs": 3}, "logprobs", ("not supported",)),
        ({"presence_penalty": 0.5}, "presence_penalty", ("not supported", "0.5")),
        ({"presence_penalty": 0, "logit_bias": {}, "user": "me", "wieghts": 1}, "wieghts", ("not a parameter",)),
        ({"prompt": "w3 " * 4097}, "prompt", ("4097 tokens", "4096")),
        ({"prompt": "w3 " * 2040, "max_tokens": 10}, "prompt", ("2040 tokens", "2045")),
    ],
)
def test_a_bad_request_gets_one_line_in_openais_shape(
    language: LanguageModel, more: dict[str, Any], parameter: str, words: tuple[str, ...]
) -> None:
    with client(language) as http:
        answer = http.post("/v1/completions", json={"prompt": "w3", "weights": [1, 0], **more})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == parameter
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]
    assert all(word in error["message"] for word in words), error


def test_only_the_assistant_may_have_said_nothing(language: LanguageModel) -> None:
    turn, silent = {"role": "user", "content": "w3"}, {"role": "assistant", "content": None}
    with client(language) as http:
        found = [
            http.post("/v1/chat/completions", json={"messages": messages, "weights": [1, 0], **GREEDY})
            for messages in ([turn, silent, turn], [turn, {**silent, "content": ""}, turn], [{**turn, "content": None}])
        ]
    assert [answer.status_code for answer in found] == [200, 200, 400]
    assert found[0].json()["choices"] == found[1].json()["choices"]
    assert found[2].json()["error"]["param"] == "messages"


def test_a_full_queue_is_429(language: LanguageModel) -> None:
    limits = TextLimits(max_batch=1, max_queue=1)
    asked = {"prompt": "w3", "weights": [1, 0], "max_tokens": 3}
    with client(language, limits=limits) as http, ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patch:
        started, go_on = threading.Event(), threading.Event()
        forward = language.model.base.forward

        def slow(*args: Any, **settings: Any) -> Any:
            started.set()
            assert go_on.wait(30)
            return forward(*args, **settings)

        patch.setattr(language.model.base, "forward", slow)
        # More than the queue has room for, where nobody else waits: it would never fit.
        first = pool.submit(http.post, "/v1/completions", json={**asked, "n": 3})
        assert started.wait(30)
        answer = http.post("/v1/completions", json=asked)
        assert answer.status_code == 429
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert "retry-after" in answer.headers
        go_on.set()
        assert len(first.result(30).json()["choices"]) == 3
        assert http.post("/v1/completions", json={**asked, "n": 2}).status_code == 200


def test_what_is_too_much_is_refused_before_it_is_made_into_tokens(language: LanguageModel) -> None:
    class Untouched:
        def get_vocab(self) -> dict[str, int]:
            return dict(language.tokenizer.get_vocab())

        def __deepcopy__(self, memo: Any) -> Any:
            return language.tokenizer

    guarded = dataclasses.replace(language, tokenizer=Untouched())
    longest = max(map(len, language.tokenizer.get_vocab()))
    text = "w" * (16 * longest + 1)
    with client(guarded, limits=TextLimits(max_prompt=16)) as http:
        for path, asked in (
            ("/v1/completions", {"prompt": text}),
            ("/v1/completions", {"prompt": ["w3"] * 10_000}),
            ("/v1/completions", {"prompt": "w3", "n": 17}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}),
        ):
            answer = http.post(path, json={"weights": [1, 0], **asked})
            assert answer.status_code == 400, answer.text
            assert "expected" in answer.json()["error"]["message"]


def test_a_prompt_that_fails_leaves_those_under_way_alone(adapter: Path) -> None:
    language = LanguageModel.load(adapter)
    app = chat_app(language, Server(), TextLimits())
    asked = {"prompt": "w3", "weights": [1, 0], "temperature": 0, "max_tokens": 200}
    with TestClient(app) as http, pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        whole = http.post("/v1/completions", json=asked).json()["choices"][0]["text"]
        admit, admitted = ContinuousBatch.admit, threading.Event()

        def picky(self: Any, prompts: Any, *more: Any) -> Any:
            if len(prompts[0]) > 5:
                raise RuntimeError("no such prompt")
            found = admit(self, prompts, *more)
            admitted.set()
            return found

        patch.setattr(ContinuousBatch, "admit", picky)
        first = pool.submit(http.post, "/v1/completions", json=asked)
        assert admitted.wait(30)
        refused = http.post("/v1/completions", json={**asked, "prompt": "w3 w4 w5 w6 w7 w8"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (500, "the model failed: no such prompt")
        assert first.result(30).json()["choices"][0]["text"] == whole


def test_a_client_that_leaves_gives_its_row_back(language: LanguageModel) -> None:
    server = Server()
    asked = {"prompt": "w3", "weights": [1, 0], "max_tokens": 1024, "temperature": 0}
    with (
        running(chat_app(language, server, TextLimits(max_batch=1)), server) as url,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        for stream in (True, False):
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/completions", json={**asked, "stream": stream}, timeout=httpx.Timeout(60, read=0.001))
            before = server.metrics.registry.get_sample_value("hyperdpo_generated_tokens_total") or 0
            # The one row is free for this request long before 1024 tokens have been generated.
            assert http.post("/v1/completions", json={**asked, "max_tokens": 2}).status_code == 200
            after = server.metrics.registry.get_sample_value("hyperdpo_generated_tokens_total") or 0
            assert after - before < 600


def test_a_model_that_fails_does_not_end_the_server(adapter: Path) -> None:
    language = LanguageModel.load(adapter)
    app = chat_app(language, Server(), TextLimits())
    asked = {"prompt": "w3", "weights": [1, 0], **GREEDY}
    with TestClient(app) as http, pytest.MonkeyPatch.context() as patch:
        whole = http.post("/v1/completions", json=asked).json()["choices"][0]["text"]

        def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("out of\nmemory")

        patch.setattr(language.model.base, "forward", broken)
        answer = http.post("/v1/completions", json=asked)
        assert (answer.status_code, answer.json()["error"]["message"]) == (500, "the model failed: out of memory")
        assert "out of memory" in http.post("/v1/completions", json={**asked, "stream": True}).text
        patch.undo()
        assert http.post("/v1/completions", json=asked).json()["choices"][0]["text"] == whole


def test_a_text_whose_prompt_is_being_read_is_given_up_too(
    language: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    admit = ContinuousBatch.admit

    def slow(self: ContinuousBatch, *given: Any) -> Any:
        reading.set()
        assert go_on.wait(30)
        return admit(self, *given)

    monkeypatch.setattr(ContinuousBatch, "admit", slow)
    server = Server()
    body = {"prompt": "w3 w4", "weights": [1, 0], **GREEDY}
    with TestClient(chat_app(language, server, TextLimits())) as http, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(http.post, "/v1/completions", json=body)
        assert reading.wait(30)
        assert server.engine is not None
        assert server.engine.abort() == 1
        assert asked.result(30).status_code == 503
        go_on.set()

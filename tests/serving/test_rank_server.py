"""``POST /rank``: every list as it would be scored alone, offline, by the run."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from helpers import START, fit_toy, with_time_stamps
from live_server import running

from hyperdpo import HyperRanker
from hyperdpo.core.point import Point
from hyperdpo.serving.server import rank_schema
from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.rank_api import rank_app
from hyperdpo.serving.server.rank_engine import DIRECT_ITEMS
from hyperdpo.serving.server.rank_model import BATCH_ITEMS, SHORTEST, ListToScore, RankModel, batches
from hyperdpo.serving.server.rank_schema import RankLimits


def some_list(rng: np.random.Generator, longest: int = 30) -> dict[str, Any]:
    """A group of a request, at a point of its own."""
    share = round(float(rng.random()), 3)
    weights: Any = [share, 1 - share] if rng.random() < 0.5 else {"a": share, "b": 1 - share}
    features = rng.normal(size=(int(rng.integers(1, longest + 1)), 6)).astype(np.float32)
    return {"features": features.tolist(), "weights": weights, "scale": round(float(rng.uniform(0.5, 3)), 2)}


def offline(run: Path, group: dict[str, Any]) -> np.ndarray:
    """(n,) scores by the public API."""
    x, weights = np.array(group["features"], np.float32), group["weights"]
    more = {"temperatures": group["temperatures"]} if "temperatures" in group else {}
    ranker = HyperRanker.load(run)
    return ranker.predict(x, qid=np.zeros(len(x)), weights=weights, scale=group.get("scale", 1.0), **more)


def client(model: RankModel, *, limits: RankLimits | None = None, default: Point | None = None, **server: Any) -> Any:
    return TestClient(rank_app(model, Server(**server), limits or RankLimits(), default))


def test_sixteen_clients_get_what_they_would_get_offline_one_by_one(rank_model: RankModel, ranker: Path) -> None:
    rng = np.random.default_rng(0)
    requests = [[some_list(rng) for _ in range(int(rng.integers(1, 4)))] for _ in range(96)]
    server = Server()
    with running(rank_app(rank_model, server, RankLimits()), server) as url, ThreadPoolExecutor(16) as pool:
        barrier = threading.Barrier(16)

        def ask(number: int) -> list[Any]:
            barrier.wait(30)
            with httpx.Client(base_url=url) as http:
                return [http.post("/rank", json={"groups": groups}).json() for groups in requests[number::16]]

        answers = list(pool.map(ask, range(16)))
    for number, mine in enumerate(answers):
        for groups, answer in zip(requests[number::16], mine, strict=True):
            for group, found in zip(groups, answer["groups"], strict=True):
                wanted = offline(ranker, group)
                np.testing.assert_allclose(found["scores"], wanted, rtol=1e-4, atol=1e-4)
                assert sorted(found["ranking"]) == list(range(len(wanted)))
                ranked = np.array(found["scores"])[found["ranking"]]
                assert (np.diff(ranked) <= 0).all()
    # They were not all scored one by one.
    passes = server.metrics.registry.get_sample_value("hyperdpo_batch_size_count")
    assert passes is not None
    assert passes < 96
    assert server.metrics.registry.get_sample_value("hyperdpo_list_length_count") == sum(map(len, requests))


def test_one_group_by_itself_names_its_items_and_says_where_it_was_answered(
    rank_model: RankModel, ranker: Path
) -> None:
    group = {"features": np.eye(3, 6).tolist(), "weights": {"b": 1}, "ids": ["x", 7, "z"]}
    with client(rank_model) as http:
        answer = http.post("/rank", json=group).json()["groups"][0]
    wanted = offline(ranker, {**group, "weights": [0, 1]})
    assert answer["ranking"] == [group["ids"][i] for i in np.argsort(-wanted, kind="stable")]
    assert answer["weights"] == {"a": 0.0, "b": 1.0}
    assert answer["scale"] == 1.0


def test_packed_features_are_the_same_features(rank_model: RankModel) -> None:
    x = np.random.default_rng(1).normal(size=(9, 6)).astype("<f4")
    packed = {"features_base64": base64.b64encode(x.tobytes()).decode(), "weights": [0.5, 0.5]}
    with client(rank_model) as http:
        plain = http.post("/rank", json={"features": x.tolist(), "weights": [0.5, 0.5]}).json()
        assert http.post("/rank", json=packed).json() == plain


def test_what_a_request_leaves_out_is_the_servers_own_point(rank_model: RankModel, ranker: Path) -> None:
    group = {"features": np.eye(4, 6).tolist()}
    with client(rank_model, default=Point((0.2, 0.8), 2.0)) as http:
        answer = http.post("/rank", json=group).json()["groups"][0]
    assert (answer["weights"], answer["scale"]) == ({"a": 0.2, "b": 0.8}, 2.0)
    np.testing.assert_allclose(
        answer["scores"], offline(ranker, {**group, "weights": [0.2, 0.8], "scale": 2.0}), atol=1e-4
    )


def test_a_mixture_answers_at_other_temperatures_with_torch_beside_the_graph(
    rank_model: RankModel, ranker: Path
) -> None:
    rng = np.random.default_rng(2)
    groups = [some_list(rng) | {"temperatures": [1.0, beta]} for beta in (0.5, 1.0, 2.0, 0.5)] + [some_list(rng)]
    with client(rank_model) as http:
        found = http.post("/rank", json={"groups": groups}).json()["groups"]
    assert rank_model.backend == "onnx"
    for group, answer in zip(groups, found, strict=True):
        np.testing.assert_allclose(answer["scores"], offline(ranker, group), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parametrization", ["scratch", "temperature", "mixture"])
def test_torch_alone_answers_too(parametrization: str, tmp_path: Path) -> None:
    fit_toy(out=tmp_path / "run", parametrization=parametrization)
    model = RankModel.load(tmp_path / "run", "torch")
    rng = np.random.default_rng(3)
    groups = [some_list(rng) for _ in range(3)]
    if parametrization == "temperature":
        groups[1]["temperatures"] = [0.7, 1.3]
    if parametrization == "scratch":
        groups[1]["temperatures"] = [2.0, 2.0]
    with client(model) as http:
        found = http.post("/rank", json={"groups": groups}).json()["groups"]
    for group, answer in zip(groups, found, strict=True):
        np.testing.assert_allclose(answer["scores"], offline(tmp_path / "run", group), rtol=1e-4, atol=1e-4)


def test_lists_are_batched_by_length_and_by_what_scores_them() -> None:
    def one(length: int, betas: tuple[float, ...] | None = None) -> ListToScore:
        features = np.zeros((length, 2), np.float32)
        return ListToScore(features, np.ones(1, np.float32), 1.0, None, betas, betas is None)

    lists = [one(60), one(10), one(50), one(9), one(60, (1.0,)), one(59, (2.0,)), *[one(1000)] * 9]
    found = [sorted(batch) for batch in batches(lists)]
    assert sorted(i for batch in found for i in batch) == list(range(len(lists)))
    assert [0, 2] in found
    assert [1, 3] in found
    assert [4] in found
    assert [5] in found
    for batch in found:
        sizes = [len(lists[i]) for i in batch]
        assert min(sizes) >= SHORTEST * max(sizes)
        assert len(batch) * max(sizes) <= max(BATCH_ITEMS, max(sizes))


ROW = [0.0] * 6


NAMES = [f"f{i}" for i in range(6)]


def test_a_missing_value_is_null_or_nan(rank_model: RankModel, ranker: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    rows[[1, 3], [0, 5]] = np.nan
    listed = [[None if value != value else value for value in row] for row in rows.tolist()]
    with pytest.warns(UserWarning, match="values of f0, f5 are missing"):
        wanted = HyperRanker.load(ranker).predict(rows, qid=np.zeros(5), weights=[0.3, 0.7])
    packed = base64.b64encode(rows.tobytes()).decode()
    with client(rank_model) as http:
        for features in ({"features": listed}, {"features_base64": packed}):
            answer = http.post("/rank", json={**features, "weights": [0.3, 0.7]})
            np.testing.assert_allclose(answer.json()["groups"][0]["scores"], wanted, rtol=1e-4, atol=1e-5)


def test_features_may_be_named_in_another_order(rank_model: RankModel) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 6))
    with client(rank_model) as http:
        plain = http.post("/rank", json={"features": rows.tolist(), "weights": [0.3, 0.7]}).json()
        turned = {"features": rows[:, ::-1].tolist(), "feature_names": NAMES[::-1], "weights": [0.3, 0.7]}
        assert http.post("/rank", json=turned).json() == plain


def test_time_stamps_are_told_apart_by_the_server(tmp_path: Path) -> None:
    """Seconds since 1970 differ by less than 32-bit floats resolve; the graph takes 64."""
    fit_toy(with_time_stamps(), out=tmp_path / "run")
    model = RankModel.load(tmp_path / "run")
    assert (model.backend, model.feature_type) == ("onnx", np.float64)
    rows = np.tile(np.random.default_rng(0).normal(size=7), (4, 1))
    rows[:, model.features.index("t")] = START + np.array([0, 600, 601, 3000])
    wanted = HyperRanker.load(tmp_path / "run").predict(rows, qid=np.zeros(4), weights=[0.3, 0.7])
    assert len(set(wanted)) == 4
    with client(model) as http:
        assert http.get("/info").json()["feature_type"] == "float64"
        for body in ({"features": rows.tolist()}, {"features_base64": base64.b64encode(rows.tobytes()).decode()}):
            found = http.post("/rank", json={**body, "weights": [0.3, 0.7]}).json()["groups"][0]["scores"]
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], ("object",)),
        ({}, ("features",)),
        ({"groups": []}, ("groups", "1 to 64")),
        ({"groups": [{}] * 65}, ("65 groups",)),
        ({"groups": [{"features": [ROW], "weights": [1, 0]}, {"features": [ROW[:5]]}]}, ("groups[1]", "5 values")),
        ({"features": [ROW] * 1001, "weights": [1, 0]}, ("1001 items",)),
        ({"features": [[*ROW[:5], [None]]], "weights": [1, 0]}, ("features[0][5]", "a list of 1")),
        ({"features": [ROW], "feature_names": [*NAMES[:5], "f9"], "weights": [1, 0]}, ("no 'f5'", "/info")),
        ({"features": [ROW], "feature_names": [*NAMES, "f5"], "weights": [1, 0]}, ("'f5'", "each once")),
        ({"features": [ROW], "feature_names": "f0", "weights": [1, 0]}, ("feature_names", "list of texts")),
        ({"features": [[*ROW[:5], "1"]], "weights": [1, 0]}, ("features[0][5]", "'1'")),
        ({"features": [[*ROW[:5], True]], "weights": [1, 0]}, ("features[0][5]", "True")),
        ({"features": [[*ROW[:5], 1e39]], "weights": [1, 0]}, ("features[0][5]", "finite")),
        ({"features": [ROW, "abcdef"], "weights": [1, 0]}, ("features[1]",)),
        ({"features_base64": "AAAA", "weights": [1, 0]}, ("3 bytes", "24")),
        ({"features_base64": "!", "weights": [1, 0]}, ("base64",)),
        ({"features": [ROW]}, ("weights", "missing", "a, b")),
        ({"features": [ROW], "weights": [0.5, 0.6]}, ("weights", "sum 1.1")),
        ({"features": [ROW], "weights": {"c": 1}}, ("'c'", "a, b")),
        ({"features": [ROW], "weights": [1, 0], "scale": -1}, ("scale", "-1")),
        ({"features": [ROW], "weights": [1, 0], "temperatures": [1, 0]}, ("temperatures",)),
        ({"features": [ROW], "weights": [1, 0], "base_scores": [1]}, ("base_scores", "its own")),
        ({"features": [ROW], "weights": [1, 0], "ids": [1, 2]}, ("ids", "2 values")),
        ({"features": [ROW], "weights": [1, 0], "wieghts": [1, 0]}, ("'wieghts'",)),
    ],
)
def test_a_bad_request_gets_one_line(rank_model: RankModel, body: Any, words: tuple[str, ...]) -> None:
    with client(rank_model) as http:
        answer = http.post("/rank", json=body)
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert "\n" not in detail
    assert all(word in detail for word in words), detail


@pytest.mark.parametrize("text", ['{"features": [[NaN]]}', "{", "", '{"features": 1e999}', "[" * 5000, '"\ud800"'])
def test_what_is_no_json_gets_one_line(rank_model: RankModel, text: str) -> None:
    with client(rank_model) as http:
        answer = http.post(
            "/rank", content=text.encode("utf-8", "surrogatepass"), headers={"content-type": "application/json"}
        )
    assert answer.status_code == 422
    assert answer.json().keys() == {"detail"}


def test_the_body_has_a_limit_however_it_comes(rank_model: RankModel) -> None:
    json = {"content-type": "application/json"}
    with client(rank_model, max_body=1000) as http:
        assert http.post("/rank", content=b" " * 1001, headers=json).status_code == 413
        assert http.post("/rank", content=iter([b" " * 600] * 2), headers=json).status_code == 413
        assert http.post("/rank", content=b" " * 1000, headers=json).status_code == 422
        assert http.post("/rank", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_a_full_queue_is_429_and_says_when_to_come_back(rank_model: RankModel) -> None:
    started, go_on = threading.Event(), threading.Event()

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(rank_model, name)

        def score(self, lists: Any) -> Any:
            started.set()
            assert go_on.wait(30)
            return rank_model.score(lists)

    group = {"features": [ROW], "weights": [1, 0]}
    large = {"features": [ROW] * (DIRECT_ITEMS + 1), "weights": [1, 0]}  # or the event loop would score it itself
    with client(Slow(), limits=RankLimits(max_queue=2)) as http, ThreadPoolExecutor(4) as pool:  # type: ignore[arg-type]
        first = pool.submit(http.post, "/rank", json=large)
        assert started.wait(30)
        others = [pool.submit(http.post, "/rank", json=group) for _ in range(2)]
        while not _waits(http, 2):
            pass
        assert "hyperdpo_queue_length 2.0" in http.get("/metrics").text.splitlines()
        refused = http.post("/rank", json=group)
        assert refused.status_code == 429
        # It is refused before anybody reads what it is.
        assert http.post("/rank", content=b"?", headers={"content-type": "application/json"}).status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        go_on.set()
        assert [answer.result(30).status_code for answer in (first, *others)] == [200, 200, 200]
        assert http.post("/rank", json=group).status_code == 200


def test_a_request_larger_than_the_queue_is_answered_where_nobody_else_waits(rank_model: RankModel) -> None:
    with client(rank_model, limits=RankLimits(max_queue=2)) as http:
        answer = http.post("/rank", json={"groups": [{"features": [ROW], "weights": [1, 0]}] * 5})
    assert len(answer.json()["groups"]) == 5


def test_a_server_without_a_key_answers_to_its_own_names_only(rank_model: RankModel) -> None:
    server = Server(hosts=("127.0.0.1", "localhost", "::1"))
    with running(rank_app(rank_model, server, RankLimits()), server) as url:
        for name, status in (
            ("localhost:8000", 200),
            ("LOCALHOST", 200),
            ("127.0.0.1:1", 200),
            ("[::1]:80", 200),
            ("evil.example", 421),
            ("localhost.evil.example:8000", 421),
            ("", 421),
        ):
            answer = httpx.get(f"{url}/healthz", headers={"host": name})
            assert answer.status_code == status, name
            if status == 421:
                expected = f"Host: found {name!r}; expected 127.0.0.1 or ::1 or localhost (--allow-host)"
                assert answer.json() == {"detail": expected}


def _waits(http: Any, count: int) -> bool:
    """Whether so many requests are in flight beside the one that is being scored, and this one."""
    line = next(t for t in http.get("/metrics").text.splitlines() if t.startswith("hyperdpo_requests_in_flight "))
    return float(line.split()[1]) >= count + 2


def test_the_key_is_asked_for_but_for_health(rank_model: RankModel) -> None:
    with client(rank_model, api_key="s3cret") as http:
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}, {"authorization": "é"}):
            sent = {name: value.encode() for name, value in headers.items()}
            answer = http.get("/info", headers=sent)
            assert answer.status_code == 401
            assert "s3cret" not in answer.text
        assert http.get("/metrics").status_code == 401
        assert http.get("/info", headers={"authorization": "Bearer s3cret"}).json()["objectives"] == ["a", "b"]
        document = http.get("/openapi.json", headers={"authorization": "Bearer s3cret"}).json()
        assert "401" in document["paths"]["/metrics"]["get"]["responses"]
        assert "401" not in document["paths"]["/healthz"]["get"]["responses"]
        assert document["security"] == [{"key": []}]
        assert set(document["paths"]["/rank"]["post"]["responses"]) >= {"200", "401", "413", "422", "429", "503"}


def test_metrics_count_by_route_and_code(rank_model: RankModel) -> None:
    with client(rank_model, max_body=1000) as http:
        http.post("/rank", json={"features": [ROW] * 3, "weights": [1, 0]})
        http.post("/rank", json={})
        http.post("/rank", content=b" " * 1001, headers={"content-type": "application/json"})
        lost = http.get("/no/such/path")
        text = http.get("/metrics").text
    assert lost.json() == {"detail": "no GET /no/such/path here; expected a route of /openapi.json"}
    for line in (
        'hyperdpo_requests_total{code="200",route="/rank"} 1.0',
        'hyperdpo_requests_total{code="422",route="/rank"} 1.0',
        'hyperdpo_requests_total{code="413",route="/rank"} 1.0',
        'hyperdpo_requests_total{code="404",route="other"} 1.0',
        'hyperdpo_request_seconds_count{route="/rank"} 3.0',
        'hyperdpo_list_length_bucket{le="10.0"} 1.0',
        "hyperdpo_batch_size_count 1.0",
        "hyperdpo_queue_length 0.0",
    ):
        assert line in text.splitlines(), line


def test_info_tells_the_servers_own_point(rank_model: RankModel) -> None:
    with client(rank_model) as http:
        assert http.get("/info").json()["point"] is None
    with client(rank_model, default=Point((0.25, 0.75), 2.0)) as http:
        assert http.get("/info").json()["point"] == {"weights": {"a": 0.25, "b": 0.75}, "scale": 2.0}


def test_numbers_that_json_does_not_have_are_named(rank_model: RankModel) -> None:
    with client(rank_model) as http:
        for number in (b"NaN", b"-Infinity"):
            body = b'{"features": [[1, ' + number + b"]], " + b'"weights": [1, 0]}'
            answer = http.post("/rank", content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 422
            assert "JSON has no NaN or Infinity" in answer.json()["detail"]
        answer = http.post("/rank", content=b'{"features": [[1,', headers={"content-type": "application/json"})
        assert "NaN" not in answer.json()["detail"]


def test_large_bodies_of_far_more_objects_than_any_list_are_not_parsed(
    rank_model: RankModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty lists in 16 MiB would take 350 MiB."""
    parsed: list[int] = []
    real = rank_schema.parsed
    monkeypatch.setattr(rank_schema, "parsed", lambda body, *more: parsed.append(len(body)) or real(body, *more))
    kind = {"content-type": "application/json"}
    with client(rank_model, limits=RankLimits(max_groups=20)) as http:
        for part in (b"[],", b"{},", b"1,", b'"ab",'):
            body = b'{"features": [' + part * (2 * 2**20 // len(part)) + b"[]]}"
            answer = http.post("/rank", content=body, headers=kind)
            assert answer.status_code == 422
            assert "expected at most 20 groups of 1000 items with 6 features" in answer.json()["detail"]
        assert parsed == []
        # As large as a request may be, of numbers that are long, and a value that simdjson does not read.
        rows = [[0.12345678901234567] * 6] * 999 + [[None] * 6]
        answer = http.post("/rank", json={"groups": [{"features": rows, "weights": [1, 0]}] * 20})
        assert answer.status_code == 200
        assert parsed[0] > 2 * 2**20

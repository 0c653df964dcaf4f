"""Components from an exported graph and from ``POST /components``: those of ``rank score --components``."""

from __future__ import annotations

import asyncio
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fastapi.testclient import TestClient
from test_malformed import ask, broken

from hyperdpo.core.point import Point
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_values
from hyperdpo.errors import InputError
from hyperdpo.ranking.components import component_names, components
from hyperdpo.ranking.run import RankRun
from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.rank_api import rank_app
from hyperdpo.serving.server.rank_model import RankModel
from hyperdpo.serving.server.rank_schema import RankLimits


def some_list(forms: Path, run: RankRun, group: int) -> tuple[np.ndarray, Part]:
    part = Part(read_table(forms / "data.txt"), np.array([group]))
    return column_values(part, run.transform.columns), part


@pytest.mark.parametrize("form", ["gain", "product"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_graph_has_the_components_of_the_run_beside_its_scores(forms, form, scale) -> None:
    run, session = RankRun.load(forms / form), onnxruntime.InferenceSession(forms / f"{form}.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    names = component_names(run)
    assert [one.name for one in session.get_outputs()] == ["scores", "components"]
    assert json.loads(metadata["components"]) == list(names)
    assert json.loads(metadata["outputs"])["components"] == ["batch", "items", len(names)]
    (first, one), (second, other) = some_list(forms, run, 0), some_list(forms, run, 1)
    longest = max(len(first), len(second))
    given: dict[str, Any] = {
        "features": np.full((2, longest, first.shape[1]), np.nan, np.float32),
        "mask": np.arange(longest) < np.array([[len(first)], [len(second)]]),
        "weights": np.array([[0.2, 0.8], [1, 0]], np.float32),
        "scale": np.full(2, scale, np.float32),
    }
    given["features"][0, : len(first)], given["features"][1, : len(second)] = first, second
    if form == "gain":
        given["main_share"] = np.array([0.1, 0.7], np.float32)
    found = session.run(["components"], given)[0]
    assert found.shape == (2, longest, len(names))
    np.testing.assert_allclose(found[0, : len(first)], components(run, one, scale), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found[1, : len(second)], components(run, other, scale), rtol=1e-3, atol=1e-6)
    assert not found[~given["mask"]].any()


def test_a_graph_without_components_has_scores_alone(forms) -> None:
    session = onnxruntime.InferenceSession(forms / "powers.onnx")
    assert [one.name for one in session.get_outputs()] == ["scores"]
    assert "components" not in session.get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("form", ["gain", "product"])
@pytest.mark.parametrize("source", ["graph", "torch"])
def test_requests_get_named_columns_whose_sum_ranks_as_rank_does(forms, form, source) -> None:
    run = RankRun.load(forms / form)
    model = RankModel.load(forms / f"{form}.onnx") if source == "graph" else RankModel.load(forms / form, "torch")
    (first, one), (second, other) = some_list(forms, run, 0), some_list(forms, run, 1)
    lists = [
        {"features": first.tolist(), "scale": 2, "ids": [f"d{i}" for i in range(len(first))]},
        {"features": second.tolist()},
    ]
    with TestClient(rank_app(model, Server(), RankLimits(), Point(scale=1.5))) as client:
        found = client.post("/components", json={"groups": lists})
        assert found.status_code == 200, found.text
        answered = found.json()["groups"]
        assert client.post("/components", json=lists[1]).json() == {"groups": [answered[1]]}
        assert client.get("/info").json()["components"] == list(component_names(run))
        share = {"main_share": 0.4} if form == "gain" else {}
        ranked = client.post("/rank", json={**lists[0], "weights": [0.3, 0.7], **share}).json()["groups"][0]
    assert [group["scale"] for group in answered] == [2.0, 1.5]
    assert answered[0]["ids"] == lists[0]["ids"]
    assert answered[1]["ids"] == list(range(len(second)))
    for group, part in zip(answered, (one, other), strict=True):
        assert list(group["components"]) == list(component_names(run))
        columns = np.stack(list(group["components"].values()), 1)
        np.testing.assert_allclose(columns, components(run, part, group["scale"]), rtol=1e-3, atol=1e-6)
    v = [0.6 * 0.3, 0.6 * 0.7, 0.4] if form == "gain" else [0.3, 0.7]
    summed = dict(zip(lists[0]["ids"], np.stack(list(answered[0]["components"].values()), 1) @ v, strict=True))
    falling = [summed[name] for name in ranked["ranking"]]
    assert np.diff(falling).max() < 1e-6


def test_what_has_no_meaning_for_columns_is_refused_in_one_line(forms) -> None:
    features = some_list(forms, RankRun.load(forms / "gain"), 0)[0].tolist()
    with TestClient(rank_app(RankModel.load(forms / "gain.onnx"), Server(), RankLimits())) as client:
        for name, value in (("weights", [0.5, 0.5]), ("main_share", 0.2), ("temperatures", [1, 1]), ("scale", 0)):
            refused = client.post("/components", json={"features": features, name: value})
            assert refused.status_code == 422
            assert refused.json()["detail"].lstrip("'").startswith(("weights", "main_share", "temperatures", "scale"))
        document = client.get("/openapi.json").json()
        fields = document["components"]["schemas"]["ComponentsGroup"]["properties"]
        assert "scale" in fields
        assert not {"weights", "main_share", "temperatures"} & set(fields)
        assert document["paths"]["/components"]["post"]["responses"]["200"]


def test_a_ranker_without_components_says_so(forms) -> None:
    with TestClient(rank_app(RankModel.load(forms / "powers.onnx"), Server(), RankLimits())) as client:
        features = some_list(forms, RankRun.load(forms / "powers"), 0)[0].tolist()
        refused = client.post("/components", json={"features": features})
        assert refused.status_code == 422
        assert "components: this ranker has none" in refused.json()["detail"]
        assert "/components" not in client.get("/openapi.json").json()["paths"]


def test_different_temperatures_of_the_server_are_refused(forms) -> None:
    model = RankModel.load(forms / "product", "torch")
    features = some_list(forms, RankRun.load(forms / "product"), 0)[0]
    with pytest.raises(InputError, match="only equal β"):
        model.prepare_components(features, Point(temperatures=(1.0, 0.5)), None)
    doubled = model.score([model.prepare_components(features, Point(temperatures=(2.0, 2.0)), None)])[0]
    base = model.score([model.prepare_components(features, Point(scale=2.0), None)])[0]
    np.testing.assert_allclose(doubled, base, rtol=1e-4, atol=1e-7)


def test_malformed_bodies_leave_a_server_of_components_up(forms) -> None:
    features = some_list(forms, RankRun.load(forms / "gain"), 0)[0][:3].tolist()
    good = {"groups": [{"features": features, "scale": 2.0, "ids": ["x", "y", 3]}, {"features": features}]}
    app, rng, found = rank_app(RankModel.load(forms / "gain.onnx"), Server(), RankLimits()), random.Random(0), []

    async def every() -> None:
        for _ in range(600):
            status, answer = await ask(app, "/components", *broken(rng, good))
            assert status < 500, answer
            assert status < 400 or (b"\\n" not in answer and len(answer) < 2000)
            found.append(status)

    with TestClient(app) as client:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, every()).result()
        assert client.post("/components", json=good).status_code == 200
    assert found.count(422) > 300
    assert 415 in found

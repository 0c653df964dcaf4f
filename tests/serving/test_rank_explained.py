"""``explain`` of ``POST /rank``: the explanation of ``hyperdpo rank explain``, from a graph's components."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from helpers import fit_generated

from hyperdpo import extras
from hyperdpo.core.point import Point
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_values
from hyperdpo.files import read_json
from hyperdpo.ranking.explain import explain
from hyperdpo.ranking.gbdt_model import GbdtModel
from hyperdpo.ranking.run import RankRun
from hyperdpo.serving.export.ranker import export_ranker
from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.rank_api import rank_app
from hyperdpo.serving.server.rank_model import RankModel
from hyperdpo.serving.server.rank_schema import RankLimits
from hyperdpo.serving.server.rank_trees import TREE_METADATA


def group(forms: Path, form: str, number: int) -> tuple[list[list[float]], Part]:
    part = Part(read_table(forms / "data.txt"), np.array([number]))
    return column_values(part, RankRun.load(forms / form).transform.columns).tolist(), part


@pytest.mark.parametrize("form", ["gain", "product"])
def test_lists_that_ask_are_explained_as_the_command_does(forms, form) -> None:
    (first, one), (second, _) = group(forms, form, 0), group(forms, form, 1)
    share = {"main_share": 0.4} if form == "gain" else {}
    ids = [f"d{i}" for i in range(len(first))]
    point = {"weights": [0.3, 0.7], "scale": 2}
    asked = [{"features": second, **point}, {"features": first, "explain": True, "ids": ids, **point, **share}]
    with TestClient(rank_app(RankModel.load(forms / f"{form}.onnx"), Server(), RankLimits())) as client:
        answered = client.post("/rank", json={"groups": asked}).json()["groups"]
        plain = client.post("/rank", json={**asked[1], "explain": False}).json()["groups"][0]
    assert "explanation" not in answered[0]
    assert plain == {name: value for name, value in answered[1].items() if name != "explanation"}
    run = RankRun.load(forms / form)
    expected = explain(run, one, [0.3, 0.7], 2.0, main_share=share.get("main_share")).to_dict()["documents"]
    found = answered[1]["explanation"]
    start = int(one.rows()[0])
    assert [item["id"] for item in found] == answered[1]["ranking"]
    assert [item["id"] for item in found] == [f"d{item['row'] - start}" for item in expected]
    assert "over_next" not in found[-1]
    for mine, theirs in zip(found[:5], expected[:5], strict=True):
        assert mine["parts"] == pytest.approx(theirs["parts"], abs=1e-3)
        pair, other = mine["over_next"], theirs["over_next"]
        assert pair["id"] == f"d{other['row'] - start}"
        if other["lead"] > 1e-3:
            assert pair["parts"] == pytest.approx(other["parts"], abs=0.02)
            assert pair["swaps"] == pytest.approx(other["swaps"], abs=0.02)


@pytest.mark.parametrize(
    ("form", "more", "message"),
    [
        ("gain", {"explain": "yes"}, "explain: found 'yes'; expected true or false"),
        ("gain", {"explain": 1}, "explain: found 1; expected true or false"),
        ("powers", {"explain": True}, "components: this ranker has none"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_line(forms, form, more, message) -> None:
    with TestClient(rank_app(RankModel.load(forms / f"{form}.onnx"), Server(), RankLimits())) as client:
        refused = client.post("/rank", json={"features": group(forms, form, 0)[0], "weights": [0.5, 0.5], **more})
        assert refused.status_code == 422
        assert message in refused.json()["detail"]


def test_different_temperatures_are_not_explained(forms) -> None:
    with TestClient(rank_app(RankModel.load(forms / "product", "torch"), Server(), RankLimits())) as client:
        asked = {"features": group(forms, "product", 0)[0], "weights": [0.5, 0.5], "temperatures": [1.0, 0.5]}
        assert client.post("/rank", json=asked).status_code == 200
        refused = client.post("/rank", json={**asked, "explain": True})
        assert refused.status_code == 422
        assert "only equal β" in refused.json()["detail"]


TREES = {"trees": 5, "threads": 1}
WITH_TREES = {
    "gbdt": {"mixture": {"form": "gain"}, "scorer": {"kind": "gbdt"}, "gbdt": TREES | {"loss": "l2"}},
    "blend": {
        "mixture": {"form": "gain"},
        "scorer": {"kind": "blend", "width": 8},
        "gbdt": TREES | {"loss": "cross_entropy"},
    },
}


@pytest.fixture(scope="module")
def trees(forms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of :data:`WITH_TREES`, whose columns have something of each source, and their graphs."""
    place = tmp_path_factory.mktemp("trees")
    for name, own in WITH_TREES.items():
        run = fit_generated(forms / "data.txt", own)
        run.ranker.use(learned_main=0.5, **({"tree_weight": 0.5} if name == "blend" else {}))
        run.save(place / name)
        export_ranker(run, place / f"{name}.onnx")
    return place


def answered(model: RankModel, forms: Path, run: RankRun) -> tuple[dict[str, Any], Part]:
    """The second list, explained."""
    part = Part(read_table(forms / "data.txt"), np.array([1]))
    features = column_values(part, run.transform.columns).tolist()
    asked = {"features": features, "explain": True, "weights": [0.3, 0.7], "scale": 2, "main_share": 0.4}
    with TestClient(rank_app(model, Server(), RankLimits())) as client:
        return client.post("/rank", json=asked).json()["groups"][0], part


@pytest.mark.parametrize(("kind", "served"), [("gbdt", "gbdt.onnx"), ("blend", "blend.onnx"), ("blend", "blend")])
def test_trees_are_explained_by_the_features_that_the_command_names(forms, trees, kind, served) -> None:
    run = RankRun.load(trees / kind)
    answer, part = answered(RankModel.load(trees / served), forms, run)
    expected = explain(run, part, [0.3, 0.7], 2.0, main_share=0.4).to_dict()
    assert answer["contributions_in"] == expected["contributions_in"]
    assert "explanation_lacks" not in answer
    start, compared = int(part.rows()[0]), 0
    rows = [item["row"] - start for item in expected["documents"]]
    by_id = {item["id"]: item for item in answer["explanation"]}
    for row, theirs in zip(rows, expected["documents"][:-1], strict=False):
        mine, other = by_id[row]["over_next"], theirs["over_next"]
        if mine["id"] != other["row"] - start or other["lead"] < 1e-3:
            continue  # level within rounding
        assert list(mine["sources"]) == list(other["sources"])
        for source, parts in other["sources"].items():
            assert mine["sources"][source] == pytest.approx(parts, abs=0.02)
        for column, features in other["features"].items():
            assert mine["features"][column] == pytest.approx(features, abs=1e-9)
        compared += 1
    assert compared > 3
    assert any(item["over_next"]["features"]["main"] for item in answer["explanation"][:-1])


def test_without_lightgbm_an_answer_says_what_it_lacks(forms, trees, monkeypatch) -> None:
    run, model = RankRun.load(trees / "blend"), RankModel.load(trees / "blend.onnx")
    monkeypatch.setattr(extras, "find_spec", lambda module: None if module == "lightgbm" else find_spec(module))
    answer, _ = answered(model, forms, run)
    assert answer["explanation_lacks"] == ("features: lightgbm is not installed; run: pip install 'hyperdpo[gbdt]'")
    pair = answer["explanation"][0]["over_next"]
    assert pair["features"] == {}
    assert set(pair["sources"]) == {"trees", "base", "neural"}


def test_trees_are_read_for_the_first_explanation_and_not_before(forms, trees, monkeypatch) -> None:
    loads: list[str] = []
    load = GbdtModel.load
    monkeypatch.setattr(GbdtModel, "load", lambda text, *a, **k: loads.append(text) or load(text, *a, **k))
    run, model = RankRun.load(trees / "gbdt"), RankModel.load(trees / "gbdt.onnx")
    loads.clear()
    part = Part(read_table(forms / "data.txt"), np.array([1]))
    features = column_values(part, run.transform.columns)
    model.score([model.prepare(features, Point(weights=(0.5, 0.5)), None)])
    assert not loads
    for _ in range(2):
        answered(model, forms, run)
    assert loads == run.ranker.trees.texts


def test_the_json_beside_the_graph_does_without_the_trees(trees) -> None:
    beside = read_json(trees / "blend.onnx.json")
    assert beside["sources"] == ["trees", "base", "neural"]
    assert beside["outputs"]["sources"] == ["batch", "items", 3, 3]
    assert TREE_METADATA not in beside

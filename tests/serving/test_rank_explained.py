"""``explain`` of ``POST /rank``: the explanation of ``hyperdpo rank explain``, from a graph's components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.data.transform import column_values
from hyperdpo.ranking.config import build_config
from hyperdpo.ranking.explain import explain
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import make_accelerator
from hyperdpo.serving.export.ranker import exported_ranker
from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.rank_api import rank_app
from hyperdpo.serving.server.rank_model import RankModel
from hyperdpo.serving.server.rank_schema import RankLimits

FORMS = {"gain": {"form": "gain"}, "product": {"form": "product"}, "powers": {"form": "product", "power": 0.5}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data.txt``, the runs of :data:`FORMS`, and their graphs ``FORM.onnx``."""
    place = tmp_path_factory.mktemp("explained")
    generate(place / "data.txt", 20, seed=9)
    for name, form in FORMS.items():
        quick = {"scorer": {"width": 8}, "base_scorer": {"width": 8}, "mixture": form}
        quick |= {"training": {"epochs": 1}, "base_training": {"epochs": 1}}
        config = build_config(preset="mslr", objectives=["query_url_clicks", "quality"], overrides=quick)
        parts = split_table(read_table(place / "data.txt"), config)
        run = fit_run(config, parts, make_accelerator("no", cpu=True), out=place / name)
        (place / f"{name}.onnx").write_bytes(exported_ranker(run)[0])
    return place


def group(place: Path, form: str, number: int) -> tuple[list[list[float]], Part]:
    part = Part(read_table(place / "data.txt"), np.array([number]))
    return column_values(part, RankRun.load(place / form).transform.columns).tolist(), part


@pytest.mark.parametrize("form", ["gain", "product"])
def test_lists_that_ask_are_explained_as_the_command_does(place, form) -> None:
    (first, one), (second, _) = group(place, form, 0), group(place, form, 1)
    share = {"main_share": 0.4} if form == "gain" else {}
    ids = [f"d{i}" for i in range(len(first))]
    point = {"weights": [0.3, 0.7], "scale": 2}
    asked = [{"features": second, **point}, {"features": first, "explain": True, "ids": ids, **point, **share}]
    with TestClient(rank_app(RankModel.load(place / f"{form}.onnx"), Server(), RankLimits())) as client:
        answered = client.post("/rank", json={"groups": asked}).json()["groups"]
        plain = client.post("/rank", json={**asked[1], "explain": False}).json()["groups"][0]
    assert "explanation" not in answered[0]
    assert plain == {name: value for name, value in answered[1].items() if name != "explanation"}
    run = RankRun.load(place / form)
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
def test_what_cannot_be_explained_is_refused_in_one_line(place, form, more, message) -> None:
    with TestClient(rank_app(RankModel.load(place / f"{form}.onnx"), Server(), RankLimits())) as client:
        refused = client.post("/rank", json={"features": group(place, form, 0)[0], "weights": [0.5, 0.5], **more})
        assert refused.status_code == 422
        assert message in refused.json()["detail"]


def test_different_temperatures_are_not_explained(place) -> None:
    with TestClient(rank_app(RankModel.load(place / "product", "torch"), Server(), RankLimits())) as client:
        asked = {"features": group(place, "product", 0)[0], "weights": [0.5, 0.5], "temperatures": [1.0, 0.5]}
        assert client.post("/rank", json=asked).status_code == 200
        refused = client.post("/rank", json={**asked, "explain": True})
        assert refused.status_code == 422
        assert "only equal β" in refused.json()["detail"]

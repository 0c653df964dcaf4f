"""The main label's share λ in exports and in the server: per list, as the run itself answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fastapi.testclient import TestClient

from hyperdpo.core.point import Point
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.data.transform import column_values
from hyperdpo.errors import InputError
from hyperdpo.ranking.config import build_config
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import make_accelerator
from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.rank_api import rank_app
from hyperdpo.serving.server.rank_model import RankModel
from hyperdpo.serving.server.rank_schema import RankLimits


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data.txt``, and the runs ``gain`` and ``product`` of it."""
    place = tmp_path_factory.mktemp("share")
    generate(place / "data.txt", 20, seed=9)
    for form in ("gain", "product"):
        quick = {"scorer": {"width": 8}, "base_scorer": {"width": 8}, "mixture": {"form": form}}
        quick |= {"training": {"epochs": 1}, "base_training": {"epochs": 1}}
        config = build_config(preset="mslr", objectives=["query_url_clicks", "quality"], overrides=quick)
        parts = split_table(read_table(place / "data.txt"), config)
        fit_run(config, parts, make_accelerator("no", cpu=True), out=place / form)
    return place


def lists(place: Path, run: RankRun, groups: int) -> list[np.ndarray]:
    table = read_table(place / "data.txt")
    return [column_values(Part(table, np.array([g])), run.transform.columns, None) for g in range(groups)]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_lists_of_one_batch_have_shares_of_their_own(place, backend) -> None:
    run, model = RankRun.load(place / "gain"), RankModel.load(place / "gain", backend)
    table, shares = read_table(place / "data.txt"), (0.0, 0.3, None, 0.9)
    found = model.score(
        [
            model.prepare(features, Point((0.3, 0.7), 1.5, main_share=share), None)
            for features, share in zip(lists(place, run, 4), shares, strict=True)
        ]
    )
    for group, (scores, share) in enumerate(zip(found, shares, strict=True)):
        expected = run.score(Part(table, np.array([group])), [0.3, 0.7], 1.5, main_share=share)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_the_share_is_an_input_of_the_graph_and_its_default_in_the_metadata(place, command, tmp_path) -> None:
    out = tmp_path / "ranker.onnx"
    done = command("export", place / "gain", "--out", out, "--main-share", "0.35")
    assert done.code == 0, done.err
    metadata = json.loads((tmp_path / "ranker.onnx.json").read_text())
    run = RankRun.load(place / "gain")
    assert metadata["inputs"]["main_share"] == ["batch"]
    assert metadata["main_share"] == 0.35 != run.ranker.chosen["main_share"]
    features = lists(place, run, 1)[0]
    given = {
        "features": features[None],
        "mask": np.ones((1, len(features)), bool),
        "weights": np.array([[0.5, 0.5]], np.float32),
        "scale": np.ones(1, np.float32),
        "main_share": np.array([0.4], np.float32),
    }
    scores = onnxruntime.InferenceSession(out).run(["scores"], given)[0][0]
    part = Part(read_table(place / "data.txt"), np.array([0]))
    np.testing.assert_allclose(scores, run.score(part, [0.5, 0.5], main_share=0.4), rtol=1e-4, atol=1e-4)
    exported = RankModel.load(out)
    default = exported.score([exported.prepare(features, Point((0.5, 0.5)), None)])[0]
    np.testing.assert_allclose(default, run.score(part, [0.5, 0.5], main_share=0.35), rtol=1e-4, atol=1e-4)


def test_a_share_that_an_export_cannot_have_is_refused(place, command, tmp_path) -> None:
    out = tmp_path / "ranker.onnx"
    assert command("export", place / "product", "--out", out, "--main-share", "0.3").refused("main share", "takes none")
    assert command("export", place / "gain", "--out", out, "--main-share", "1").refused("main share 1", "below 1")
    assert not list(tmp_path.iterdir())


def test_a_ranker_that_takes_no_share_refuses_one(place) -> None:
    model = RankModel.load(place / "product", "torch")
    features = lists(place, RankRun.load(place / "product"), 1)[0]
    with pytest.raises(InputError, match="main_share: this ranker takes none"):
        model.prepare(features, Point((0.5, 0.5), main_share=0.2), None)
    assert model.prepare(features, Point((0.5, 0.5)), None).main_share is None


def test_requests_name_a_share_per_list_and_are_told_which_was_used(place) -> None:
    run = RankRun.load(place / "gain")
    app = rank_app(RankModel.load(place / "gain", "torch"), Server(), RankLimits(), Point(main_share=0.6))
    features = [x.tolist() for x in lists(place, run, 2)]
    groups = [
        {"features": features[0], "weights": [0.5, 0.5], "main_share": 0.2},
        {"features": features[1], "weights": [0.5, 0.5]},
    ]
    table = read_table(place / "data.txt")
    with TestClient(app) as client:
        found = client.post("/rank", json={"groups": groups})
        assert found.status_code == 200, found.text
        answered = found.json()["groups"]
        assert [group["main_share"] for group in answered] == [0.2, 0.6]
        for g, group in enumerate(answered):
            expected = run.score(Part(table, np.array([g])), [0.5, 0.5], main_share=group["main_share"])
            np.testing.assert_allclose(group["scores"], expected, rtol=1e-4, atol=1e-4)
        for bad in (1, -0.1, "x", True):
            wrong = client.post("/rank", json={**groups[1], "main_share": bad})
            assert wrong.status_code == 422
            assert "main_share: found" in wrong.text

"""Trees in an exported graph: every item reaches the leaf that LightGBM sends it to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pytest
from fastapi.testclient import TestClient
from helpers import fit_toy, with_time_stamps
from onnx import TensorProto, helper

from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.ranking.components import components
from hyperdpo.ranking.run import RankRun
from hyperdpo.serving.export.ranker import TOLERANCE, export_ranker
from hyperdpo.serving.export.trees import ensemble_attributes, graph_threshold
from hyperdpo.serving.server.app import Server
from hyperdpo.serving.server.rank_api import rank_app
from hyperdpo.serving.server.rank_model import RankModel
from hyperdpo.serving.server.rank_schema import RankLimits

CROSS_ENTROPY = {"objective": "cross_entropy", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}


def trained(x: np.ndarray, y: np.ndarray, *, trees: int = 5, **more: Any) -> Any:
    settings = {**CROSS_ENTROPY, "num_leaves": 15, "max_bin": 511, **more}
    return lightgbm.train(settings, lightgbm.Dataset(x, y, params=settings), trees)


def graph_sums(boosters: list[Any], x: np.ndarray) -> np.ndarray:
    """(N, M) sums of leaves, by ONNX Runtime."""
    attributes = ensemble_attributes([booster.dump_model() for booster in boosters])
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, x.shape[1]])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, len(boosters)])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(helper.make_graph([node], "trees", [given], [made]), opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return np.asarray(onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0])


def thresholds(booster: Any) -> list[tuple[int, float]]:
    """Feature and threshold of every split."""
    table = booster.trees_to_dataframe().dropna(subset=["threshold"])
    return [(int(name.split("_")[1]), float(t)) for name, t in zip(table.split_feature, table.threshold, strict=True)]


@pytest.fixture(scope="module")
def boosters() -> list[Any]:
    """Trees on neighbouring numbers of single precision, whose middles it does not hold; on features of which training
    misses some, and on such of which it misses none."""
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 40, (1500, 4))
    x = np.ones((1500, 4), np.float32)
    for start, column in zip((1.0, -3.0, 0.0, 1e-3), range(4), strict=True):
        ladder = np.full(40, start, np.float32)
        for step in range(1, 40):
            ladder[step] = np.nextafter(ladder[step - 1], np.float32(np.inf))
        x[:, column] = ladder[steps[:, column]] if column != 2 else np.float32(steps[:, 2] - 20)
    x[rng.random(1500) < 0.2, 0] = np.nan
    y = ((steps**1.5 * [1, -2, 1.5, 1]).sum(1) + 60 * np.isnan(x[:, 0]) + rng.normal(0, 20, 1500)).astype(np.float32)
    y = (y - y.min()) / np.ptp(y)
    return [trained(x, y), trained(x, 1 - y, trees=2), trained(x[:, ::-1], y)]


def test_items_at_thresholds_and_one_step_beside_them_reach_lightgbms_leaf(boosters) -> None:
    rows, inexact = [np.zeros(4, np.float32)], 0
    for feature, threshold in (pair for booster in boosters for pair in thresholds(booster)):
        nearest = np.float32(threshold)
        inexact += float(nearest) > threshold  # rounding to the nearest would send it to the other side
        for value in (nearest, *(np.nextafter(nearest, np.float32(end)) for end in (-np.inf, np.inf))):
            row = rows[0].copy()
            row[feature] = value
            rows += [row, np.where(np.arange(4) == feature, value, np.float32(1))]
    assert inexact > 3
    x = np.array(rows, np.float32)
    wanted = np.stack([booster.predict(x, raw_score=True) for booster in boosters], 1)
    np.testing.assert_allclose(graph_sums(boosters, x), wanted, rtol=1e-5, atol=1e-6)


def test_missing_and_extreme_values_go_where_lightgbm_sends_them(boosters) -> None:
    rng = np.random.default_rng(1)
    x = rng.choice(np.float32([np.nan, 0, -0.0, 1, -3, 1e-3, 1e-35, -1e-35, 1e-40, 3e38, -3e38]), (4000, 4))
    wanted = np.stack([booster.predict(x, raw_score=True) for booster in boosters], 1)
    kinds = {
        (node["missing_type"], node["default_left"], node["threshold"] >= 0)
        for booster in boosters
        for tree in booster.dump_model()["tree_info"]
        for node in splits_of(tree["tree_structure"])
    }
    assert {kind[0] for kind in kinds} == {"NaN", "None"}
    assert {kind[2] for kind in kinds if kind[0] == "None"} == {True, False}
    np.testing.assert_allclose(graph_sums(boosters, x), wanted, rtol=1e-5, atol=1e-6)


def splits_of(node: dict[str, Any]) -> list[dict[str, Any]]:
    if "leaf_value" in node:
        return []
    return [node, *splits_of(node["left_child"]), *splits_of(node["right_child"])]


def test_a_tree_of_one_leaf_is_its_value() -> None:
    x = np.zeros((50, 2), np.float32)
    booster = trained(x, np.full(50, 0.25, np.float32))
    np.testing.assert_allclose(graph_sums([booster], x), booster.predict(x, raw_score=True)[:, None], rtol=1e-6)


@pytest.mark.parametrize(
    ("threshold", "rounded"),
    [
        (0.5, 0.5),
        (1 + 2**-24, 1.0),  # half a step above 1
        (1 + 2**-23 - 2**-40, 1.0),  # nearer to the next number
        (-1 - 2**-25, -1 - 2**-23),
        (1e300, float(np.finfo(np.float32).max)),
        (-1e300, -np.inf),
        (1e-36, float(np.float32(1e-35))),  # LightGBM reads numbers up to 1e-35 as 0, which is left of this one
        (-1e-36, float(np.nextafter(np.float32(-1e-35), np.float32(-1)))),
    ],
)
def test_thresholds_are_rounded_down(threshold, rounded) -> None:
    assert graph_threshold(threshold) == rounded


def test_what_a_graph_cannot_hold_is_refused_in_one_line() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, (400, 2)).astype(np.float32)
    y = np.isin(x[:, 0], [1, 4]).astype(np.float32)
    for more, words in (
        ({"categorical_feature": [0], "min_data_per_group": 1, "cat_smooth": 1}, "split on categories"),
        ({"zero_as_missing": True}, "zeros for missing values"),
        ({"objective": "poisson"}, "objective poisson"),
    ):
        with pytest.raises(InputError, match=words):
            ensemble_attributes([trained(x, y, **more).dump_model()])


# --- Runs

#: Settings of the scorer and of its trees by the name of the run. Those of gbdt-l2 predict gains below 0 and above 1.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gbdt": ({"kind": "gbdt"}, {"loss": "cross_entropy"}),
    "gbdt-l2": ({"kind": "gbdt"}, {"loss": "l2", "trees": 60, "learning_rate": 0.3, "patience": 0}),
    "blend": ({"kind": "blend", "width": 8}, {"loss": "l2"}),
}
#: Those with a graph.
GRAPHS = ("gbdt", "blend")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RankRun]:
    """On toy data with a time stamp, which has an origin, and missing values; with their graphs ``ranker.onnx``."""
    table = with_time_stamps()
    values = np.array(table.values)
    values[::5, 1] = np.nan
    table = dataclasses.replace(table, values=values)
    found = {}
    for kind, (scorer, trees) in KINDS.items():
        out = tmp_path_factory.mktemp(kind) / "run"
        settings: dict[str, Any] = {"objectives": [{"name": "a"}, {"name": "b"}], "mixture": {"form": "gain"}}
        settings |= {"scorer": scorer, "gbdt": {"trees": 20, "min_items_in_leaf": 3, "threads": 1, **trees}}
        run = fit_toy(table, out=out, **settings)
        if kind == "blend":
            run.ranker.use(tree_weight=0.5)
            run.save(out)
        if kind in GRAPHS:
            export_ranker(run, out.parent / "ranker.onnx")
        found[kind] = RankRun.load(out)
    return found


def part_of(groups: list[int]) -> Part:
    table = with_time_stamps()
    values = np.array(table.values)
    values[::5, 1] = np.nan
    return Part(dataclasses.replace(table, values=values, fingerprint=""), np.array(groups))


def raw(run: RankRun, part: Part) -> np.ndarray:
    """(N, F) numbers as a user has them, in double precision."""
    table = part.table
    return (
        table.values[part.rows()][:, table.column_indices(run.transform.columns)].astype(float) + run.transform.origins
    )


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("scale", [0.7, 1.0, 4.0])
def test_the_graph_of_a_run_with_trees_has_its_scores_and_components(runs, kind, scale) -> None:
    run, part = runs[kind], part_of([3])
    session = onnxruntime.InferenceSession(run.path.parent / "ranker.onnx")
    features = raw(run, part)
    given = {
        "features": np.concatenate([features, np.full((2, features.shape[1]), np.nan)])[None],
        "mask": np.arange(len(features) + 2)[None] < len(features),
        "weights": np.array([[0.3, 0.7]], np.float32),
        "scale": np.array([scale], np.float32),
        "main_share": np.array([0.2], np.float32),
    }
    assert {one.name for one in session.get_inputs()} == set(given)
    scores, columns = session.run(["scores", "components"], given)
    wanted = run.score(part, [0.3, 0.7], scale, main_share=0.2)
    assert np.abs(scores[0, : len(features)] - wanted).max() <= TOLERANCE * max(1, np.abs(wanted).max())
    np.testing.assert_allclose(columns[0, : len(features)], components(run, part, scale), rtol=1e-4, atol=1e-7)
    assert not columns[0, len(features) :].any()


def test_runs_with_trees_are_served_as_their_graph(runs) -> None:
    run, part = runs["gbdt"], part_of([4])
    with pytest.raises(InputError, match=r"--backend torch: .* has trees"):
        RankModel.load(run.path, "torch")
    model = RankModel.load(run.path)
    body = [[None if np.isnan(value) else value for value in row] for row in raw(run, part).tolist()]
    with TestClient(rank_app(model, Server(), RankLimits())) as client:
        asked = {"features": body, "weights": [0.5, 0.5], "main_share": 0.3}
        ranked = client.post("/rank", json=asked).json()["groups"][0]
        columns = client.post("/components", json={"features": body}).json()["groups"][0]["components"]
    np.testing.assert_allclose(ranked["scores"], run.score(part, [0.5, 0.5], main_share=0.3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.stack(list(columns.values()), 1), components(run, part), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["gbdt", "gbdt-l2"])
def test_lightgbms_own_files_and_their_description_make_the_ranking(runs, kind, command, tmp_path) -> None:
    """By what the JSON says, with LightGBM and numpy alone."""
    run, lists = RankRun.load(runs[kind].path), range(20)
    lowest = np.inf
    for learned in (0.5, 1.0):
        run.ranker.use(learned_main=learned)
        run.save(tmp_path / "run")
        out = tmp_path / f"trees-{learned}"
        done = command("export", run.path, "--out", out, "--format", "lightgbm", "--main-share", "0.15")
        assert done.code == 0, done.err
        told = json.loads((out / "ranker.json").read_text())
        assert told["main_share"] == 0.15
        assert [column["name"] for column in told["columns"]] == ["a", "b", "main"]
        assert all(column["per_document"] == (column["learned"] == 1) for column in told["columns"])
        for part in (part_of([number]) for number in lists):
            columns, least = described_columns(told, out, run, part)
            lowest = min(lowest, least)
            base = told["base"]["slope"] * run.base_scores(part.table)[part.rows()].astype(float)
            summed = np.maximum(columns @ [0.85 * 0.4, 0.85 * 0.6, 0.15], told["least_sum"])
            for scale in (1.0, 3.0):
                scores = run.score(part, [0.4, 0.6], scale, main_share=0.15)
                made = (np.log(summed) + (scale - 1) * base) / (told["base"]["slope"] * scale)
                np.testing.assert_allclose(made, scores, rtol=1e-4, atol=1e-4)
    assert (lowest < 0) is (kind == "gbdt-l2")
    assert command("export", run.path, "--out", out, "--format", "lightgbm").refused("holds an export", "--overwrite")
    done = command("export", run.path, "--out", out, "--format", "lightgbm", "--overwrite")
    assert done.code == 0, done.err


def described_columns(told: dict[str, Any], out: Path, run: RankRun, part: Part) -> tuple[np.ndarray, float]:
    """(n, m + 1) columns of one list, as the JSON says, and the trees' lowest prediction."""
    origins = np.array([told["origins"].get(name, 0.0) for name in told["features"]])
    rows = (raw(run, part) - origins).astype(np.float32)
    base = told["base"]["slope"] * run.base_scores(part.table)[part.rows()].astype(float)
    softmax = np.exp(base - base.max())
    columns, lowest = [], np.inf
    for column in told["columns"]:
        own, total = np.zeros(len(rows)), 1.0
        if column["file"]:
            predicted = lightgbm.Booster(model_file=str(out / column["file"])).predict(rows)
            lowest = min(lowest, float(predicted.min()))
            own = np.clip(predicted, *column["clip"]) / column["divide_by"]
            total = own.sum()
        columns.append(column["learned"] * own + (1 - column["learned"]) * total * softmax / softmax.sum())
    return np.stack(columns, 1), lowest


def test_a_blend_is_no_lightgbm_model(runs, command, tmp_path) -> None:
    done = command("export", runs["blend"].path, "--out", tmp_path / "trees", "--format", "lightgbm")
    assert done.refused("--format lightgbm", "weight 0.5", "use --format onnx")


def test_a_torch_program_is_refused(runs, command, tmp_path) -> None:
    run: RankRun = runs["gbdt"]
    out = tmp_path / "ranker"
    assert command("export", run.path, "--out", out, "--format", "torch").refused("--format torch", "has trees", "onnx")
    assert not list(tmp_path.iterdir())

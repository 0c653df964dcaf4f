"""An exported ranker: the scores of the run, from raw features, without this package."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import cpu, fit_toy, is_one_line, read, subprocess_environment, toy_config, toy_table, with_time_stamps

from hyperdpo._version import __version__
from hyperdpo.checksums import KEY
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.files import read_json
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.serving.export import ranker as module
from hyperdpo.serving.export.ranker import PADDING_SCORE, export_ranker
from hyperdpo.serving.server.rank_model import RankModel

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

#: Of scores in single precision, as a part of the largest (at least 1).
PARITY = 1e-5

#: Sizes of the lists of a batch.
SHAPES = [(1,), (12,), (1, 1), (5, 2, 9), (70, 1, 33), (1200, 3)]

SETTINGS: dict[str, dict[str, Any]] = {
    "mixture": {},
    "mixture of powers": {"mixture": {"power": [0.5], "smoothing": [0.5]}},
    "geometric mixture": {"mixture": {"power": [0], "distillation": 0}, "scorer": {"kind": "mlp"}},
    "scratch": {"parametrization": "scratch", "scorer": {"conditioning": "modulation", "heads": 2}},
    "augmentation": {"parametrization": "augmentation"},
    "temperature": {"parametrization": "temperature"},
}


@pytest.fixture(scope="module")
def table() -> GroupedTable:
    return toy_table()


@pytest.fixture(scope="module", params=SETTINGS)
def run(request: pytest.FixtureRequest, table: GroupedTable, tmp_path_factory: pytest.TempPathFactory) -> RankRun:
    """A run as it is read from disk, with a base of its own."""
    out = tmp_path_factory.mktemp("run") / "run"
    fit_toy(table, out=out, **SETTINGS[request.param])
    return RankRun.load(out)


def given(table: GroupedTable, out: Path, parametrization: str = "mixture") -> Path:
    """A run on base scores that were given to it."""
    config = toy_config(parametrization=parametrization)
    parts = split_table(table, config)
    scores = {name: table.column("f1") for name in parts}
    fit_run(config, parts, cpu(), out=out, base_source=BaseSource("given"), given_base=scores)
    return out


def lists(sizes: tuple[int, ...], seed: int = 0) -> GroupedTable:
    """Groups of these sizes; features of many magnitudes."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(sum(sizes), 9)) * 10 ** rng.uniform(-3, 3, (sum(sizes), 1))
    columns = toy_table().columns
    return GroupedTable(values.astype(np.float32), columns, np.arange(len(sizes)), np.append(0, np.cumsum(sizes)))


def asked(table: GroupedTable, run: RankRun, seed: int = 0) -> dict[str, np.ndarray]:
    """A padded batch of all groups, with junk on padding and weights and scales of each group's own."""
    rng = np.random.default_rng(seed)
    groups, m = table.num_groups, len(run.objectives)
    mask = np.arange(table.group_sizes.max()) < table.group_sizes[:, None]
    features = np.full((*mask.shape, len(run.transform.columns)), np.nan, np.float32)
    features[mask] = table.values[:, table.column_indices(run.transform.columns)]
    weights = rng.dirichlet(np.ones(m), groups).astype(np.float32)
    weights[0] = np.eye(m)[0]
    scale = rng.uniform(0.5, 3, groups).astype(np.float32)
    scale[0] = 1
    return {"features": features, "mask": mask, "weights": weights, "scale": scale}


def difference(found: np.ndarray, wanted: np.ndarray, mask: np.ndarray) -> float:
    """The largest, as a part of the largest score (at least 1)."""
    assert np.array_equal(found[~mask], np.full((~mask).sum(), PADDING_SCORE, np.float32))
    return float(np.abs(found[mask] - wanted).max() / max(1.0, np.abs(wanted).max()))


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_any_batch_has_the_scores_of_the_run(run, tmp_path):
    written = export_ranker(run, tmp_path / "a.onnx")
    assert written.difference is not None
    assert written.difference < PARITY
    loaded = session(tmp_path / "a.onnx")
    for seed, sizes in enumerate(SHAPES):
        data = lists(sizes, seed)
        inputs = asked(data, run, seed)
        weights, scale = inputs["weights"], inputs["scale"]
        wanted = run.score(Part.whole(data), weights / weights.sum(-1, keepdims=True, dtype=float), scale)
        if run.config.parametrization == "temperature":
            inputs["temperatures"] = np.tile(np.float32(run.betas), (len(sizes), 1))
        (found,) = loaded.run(["scores"], inputs)
        assert difference(found, wanted, inputs["mask"]) < PARITY


def test_the_torch_file_has_the_same_inputs_and_scores(run, tmp_path):
    export_ranker(run, tmp_path / "a.pt2", "torch")
    loaded = torch.export.load(tmp_path / "a.pt2").module()
    for seed, sizes in enumerate(SHAPES):
        data = lists(sizes, seed)
        inputs = asked(data, run, seed)
        weights, scale = inputs["weights"], inputs["scale"]
        wanted = run.score(Part.whole(data), weights / weights.sum(-1, keepdims=True, dtype=float), scale)
        if run.config.parametrization == "temperature":
            inputs["temperatures"] = np.tile(np.float32(run.betas), (len(sizes), 1))
        found = loaded(**{name: torch.from_numpy(value) for name, value in inputs.items()}).detach().numpy()
        assert difference(found, wanted, inputs["mask"]) < PARITY


@pytest.mark.parametrize("parametrization", ["mixture", "scratch", "augmentation", "temperature"])
def test_a_run_on_given_base_scores_takes_them_as_an_input(table, tmp_path, parametrization):
    run = RankRun.load(given(table, tmp_path / "run", parametrization))
    export_ranker(run, tmp_path / "a.onnx")
    data = lists((4, 9, 1))
    inputs = asked(data, run)
    base = np.random.default_rng(1).normal(size=data.num_rows).astype(np.float32)
    weights, scale = inputs["weights"].astype(float), inputs["scale"]
    wanted = run.score(Part.whole(data), weights / weights.sum(-1, keepdims=True), scale, base_scores=base)
    inputs["base_scores"] = np.full(inputs["mask"].shape, np.nan, np.float32)
    inputs["base_scores"][inputs["mask"]] = base
    if parametrization == "temperature":
        inputs["temperatures"] = np.ones((3, 2), np.float32)
    (found,) = session(tmp_path / "a.onnx").run(["scores"], inputs)
    assert difference(found, wanted, inputs["mask"]) < PARITY


@pytest.mark.parametrize(
    ("parametrization", "temperatures"),
    [("mixture", [2, 2]), ("scratch", [0.5, 0.5]), ("augmentation", [3, 3]), ("temperature", [0.7, 1.4])],
)
def test_temperatures_may_be_frozen(table, tmp_path, parametrization, temperatures):
    run = fit_toy(table, parametrization=parametrization)
    written = export_ranker(run, tmp_path / "a.onnx", temperatures=temperatures)
    assert written.metadata["temperatures"] == pytest.approx(temperatures)
    data = lists((4, 9, 1))
    inputs = asked(data, run)
    weights = inputs["weights"].astype(float)
    weights /= weights.sum(-1, keepdims=True)
    wanted = run.score(Part.whole(data), weights, inputs["scale"], temperatures=temperatures)
    (found,) = session(tmp_path / "a.onnx").run(["scores"], inputs)
    assert difference(found, wanted, inputs["mask"]) < PARITY


def test_a_temperature_ranker_takes_temperatures_of_each_group(table, tmp_path):
    run = fit_toy(table, parametrization="temperature")
    export_ranker(run, tmp_path / "a.onnx")
    inputs = asked(lists((4, 4)), run)
    betas = np.float32([[0.7, 1.4], [1.2, 0.8]])
    (together,) = session(tmp_path / "a.onnx").run(["scores"], inputs | {"temperatures": betas})
    for k in (0, 1):
        wanted = run.score(
            Part(lists((4, 4)), np.array([k])), inputs["weights"][k], inputs["scale"][k], temperatures=betas[k]
        )
        assert difference(together[k], wanted, inputs["mask"][k]) < PARITY


def test_the_file_says_what_it_takes(table, tmp_path):
    run = RankRun.load(given(table, tmp_path / "run"))
    written = export_ranker(run, tmp_path / "a.onnx")
    beside = read_json(tmp_path / "a.onnx.json", sealed=True)
    assert written.metadata_path == tmp_path / "a.onnx.json"
    assert beside == written.metadata
    assert beside["objectives"] == ["a", "b"]
    assert beside["features"] == [f"f{i}" for i in range(6)]
    assert beside["versions"]["hyperdpo"] == __version__
    assert beside["inputs"] == {
        "features": ["batch", "items", 6],
        "mask": ["batch", "items"],
        "weights": ["batch", 2],
        "scale": ["batch"],
        "base_scores": ["batch", "items"],
    }
    model = onnx.load(tmp_path / "a.onnx")
    inside = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(inside["features"]) == beside["features"]
    assert json.loads(inside["objectives"]) == ["a", "b"]
    shapes = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert shapes == beside["inputs"]
    assert [o.name for o in model.graph.output] == ["scores", "components"]


def test_a_graph_without_a_checksum_loads_with_a_note(table, tmp_path):
    export_ranker(RankRun.load(given(table, tmp_path / "run")), tmp_path / "a.onnx")
    graph = onnx.load(tmp_path / "a.onnx")
    kept = [prop for prop in graph.metadata_props if prop.key != KEY]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    onnx.save(graph, tmp_path / "older.onnx")
    with pytest.warns(UserWarning, match=r"older\.onnx: written without a checksum; export it again"):
        assert RankModel.load(tmp_path / "older.onnx").objectives == ("a", "b")


ALONE = """
import sys, json
import numpy as np, onnxruntime
try:
    import hyperdpo
except ImportError:
    pass
else:
    raise SystemExit("hyperdpo can be imported")
path, data, out = sys.argv[1:]
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
assert "torch" not in sys.modules
objectives = json.loads(session.get_modelmeta().custom_metadata_map["objectives"])
assert objectives == ["a", "b"], objectives
np.save(out, session.run(["scores"], dict(np.load(data)))[0])
"""

BLOCK = "import sys; sys.modules['hyperdpo'] = None\n"


def test_a_process_without_this_package_has_the_scores(table, tmp_path):
    run = fit_toy(table)
    export_ranker(run, tmp_path / "a.onnx")
    data = lists((8, 3, 40), 5)
    inputs = asked(data, run, 5)
    np.savez(tmp_path / "in.npz", **inputs)
    environment = subprocess_environment()
    environment.pop("PYTHONPATH", None)
    script = tmp_path / "alone.py"
    script.write_text(BLOCK + ALONE)
    done = subprocess.run(
        [sys.executable, "-P", script, tmp_path / "a.onnx", tmp_path / "in.npz", tmp_path / "out.npy"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    weights = inputs["weights"].astype(float)
    wanted = run.score(Part.whole(data), weights / weights.sum(-1, keepdims=True), inputs["scale"])
    assert difference(np.load(tmp_path / "out.npy"), wanted, inputs["mask"]) < PARITY


def test_different_temperatures_of_a_mixture_are_refused(table, tmp_path):
    objectives = [{"name": "a", "target": "l1", "beta": 2.0}, {"name": "b", "target": "softmax"}]
    run = fit_toy(table, objectives=objectives)
    with pytest.raises(InputError) as error:
        export_ranker(run, tmp_path / "a.onnx")
    assert is_one_line(error.value, "--beta", "2, 1")
    assert not list(tmp_path.iterdir())
    assert export_ranker(run, tmp_path / "a.onnx", temperatures=[1, 1]).path.exists()


def test_what_is_there_is_only_replaced_on_demand(table, tmp_path):
    run = fit_toy(table)
    (tmp_path / "a.onnx.json").write_text("mine")
    with pytest.raises(InputError) as error:
        export_ranker(run, tmp_path / "a.onnx")
    assert is_one_line(error.value, "a.onnx.json", "--overwrite")
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx.json"]
    export_ranker(run, tmp_path / "a.onnx", overwrite=True)
    assert read(tmp_path / "a.onnx.json")["kind"] == "rank"


def test_a_graph_that_differs_is_not_written(table, tmp_path, monkeypatch):
    """A graph whose scale is one ten-thousandth more than it should be is too far."""
    forward = module.ExportedRanker.forward

    def other(self, features, mask, weights, scale, *rest):
        exporting = torch.compiler.is_exporting()
        return forward(self, features, mask, weights, scale * (1 + 1e-4 * exporting), *rest)

    monkeypatch.setattr(module.ExportedRanker, "forward", other)
    with pytest.raises(InputError) as error:
        export_ranker(fit_toy(table), tmp_path / "a.onnx")
    assert is_one_line(error.value, "--format onnx", "differ", "1e-05")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("found", "wanted", "difference"),
    [
        ([1.0, 2.5], [1.0, 2.0], 0.25),  # 0.5 of 2
        ([0.1, 0.2], [0.1, 0.1], 0.1),  # of 1, where all are smaller
        ([-300.0, 0.0], [-400.0, 0.0], 0.25),
        ([np.nan, 0.0], [1.0, 0.0], np.inf),
    ],
)
def test_the_difference_is_a_part_of_the_largest_score(found, wanted, difference):
    assert module.relative_difference(np.float32(found), np.float32(wanted)) == pytest.approx(difference)


def test_lists_of_any_shape_with_any_features_have_the_scores_of_the_run(run, tmp_path):
    """Corners of the simplex, scales from 0.05 to 20, and features up to the largest number of single precision."""
    export_ranker(run, tmp_path / "a.onnx")
    loaded = session(tmp_path / "a.onnx")
    rng = np.random.default_rng(11)
    for sizes in [(1,), (1500,), *(tuple(rng.integers(1, 120, rng.integers(1, 9)).tolist()) for _ in range(5))]:
        data = lists(sizes, int(rng.integers(1000)))
        extreme = rng.random(data.values.shape) < 0.15
        data.values[extreme] = rng.choice(np.float32([0, -0.0, 1e-40, 1e30, -1e30, 3.4e38, -3.4e38]), extreme.sum())
        inputs = asked(data, run)
        corners = np.eye(2, dtype=np.float32)[rng.integers(0, 2, len(sizes))]
        weights = np.where(rng.random((len(sizes), 1)) < 0.5, corners, inputs["weights"])
        scale = np.exp(rng.uniform(-3, 3, len(sizes))).astype(np.float32)
        inputs |= {"weights": weights, "scale": scale}
        wanted = run.score(Part.whole(data), weights / weights.sum(-1, keepdims=True, dtype=float), scale)
        if run.config.parametrization == "temperature":
            inputs["temperatures"] = np.tile(np.float32(run.betas), (len(sizes), 1))
        (found,) = loaded.run(["scores"], inputs)
        assert np.isfinite(wanted).all()
        assert difference(found, wanted, inputs["mask"]) < PARITY


def test_missing_values_and_time_stamps_are_inputs_of_the_graph(tmp_path):
    table = with_time_stamps()
    values = np.array(table.values)
    values[::5, 1] = np.nan  # f0, missing in training too
    run = fit_toy(dataclasses.replace(table, values=values))
    written = export_ranker(run, tmp_path / "a.onnx")
    assert written.metadata["feature_type"] == "float64"
    assert written.difference < PARITY
    export_ranker(run, tmp_path / "a.pt2", "torch")
    loaded = session(tmp_path / "a.onnx")
    assert loaded.get_inputs()[0].type == "tensor(double)"
    data = dataclasses.replace(table, values=values, fingerprint="")
    raw = values[:, data.column_indices(run.transform.columns)].astype(np.float64) + run.transform.origins
    raw[3, 2] = np.nan  # not missing in training
    first = data.offsets[1]
    inputs = {
        "features": raw[None, :first],
        "mask": np.ones((1, first), bool),
        "weights": np.float32([[0.3, 0.7]]),
        "scale": np.float32([1]),
    }
    values[3, data.column_indices([run.transform.columns[2]])] = np.nan
    one = dataclasses.replace(data, values=values[:first], qids=data.qids[:1], offsets=data.offsets[:2])
    with pytest.warns(UserWarning, match="missing"):
        wanted = run.score(Part.whole(one), [0.3, 0.7])
    (found,) = loaded.run(["scores"], inputs)
    assert difference(found, wanted, inputs["mask"]) < PARITY
    graph = torch.export.load(tmp_path / "a.pt2").module()
    found = graph(**{name: torch.from_numpy(value) for name, value in inputs.items()}).detach().numpy()
    assert difference(found, wanted, inputs["mask"]) < PARITY

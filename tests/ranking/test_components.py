"""Components: the weighted sum of their columns ranks every list as the run does, at any weights, share and scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from helpers import fit_generated

from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.errors import InputError
from hyperdpo.ranking.components import component_names, components
from hyperdpo.ranking.run import RankRun

KINDS = {
    "product": {"mixture": {"form": "product"}},
    "gain": {"mixture": {"form": "gain"}},
    "blend": {"mixture": {"form": "gain"}, "scorer": {"kind": "blend", "width": 8}, "gbdt": {"trees": 5, "threads": 1}},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("components") / "data.txt"
    generate(path, 30, seed=8)
    return path


@pytest.fixture(scope="module")
def runs(data: Path) -> dict[str, RankRun]:
    return {kind: fit_generated(data, own) for kind, own in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 8.0])
def test_the_weighted_sum_ranks_as_the_run_does_at_any_point(runs, data, kind, scale) -> None:
    run, part = runs[kind], Part.whole(read_table(data))
    columns = components(run, part, scale)
    assert columns.shape == (part.table.num_rows, len(component_names(run)))
    assert (columns >= 0).all()
    ends = np.cumsum(part.sizes)
    assert [columns[a:b].max() for a, b in zip(ends - part.sizes, ends, strict=True)] == [1.0] * len(ends)
    rng = np.random.default_rng(0)
    for _ in range(6):
        w, share = rng.dirichlet([0.5, 0.5]), float(rng.uniform(0, 0.95))
        if kind == "product":
            v, scores = w, run.score(part, w, scale)
        else:
            v, scores = np.append((1 - share) * w, share), run.score(part, w, scale, main_share=share)
        summed = columns.astype(np.float64) @ v
        for a, b in zip(ends - part.sizes, ends, strict=True):
            # Sorted by the sum, the run's scores never rise by more than rounding.
            falling = scores[a:b][np.argsort(-summed[a:b], kind="stable")]
            kept = -np.sort(-summed[a:b]) > 1e-6
            assert np.diff(falling[kept]).max(initial=-np.inf) < 1e-4 * max(1, np.ptp(scores[a:b]))


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_a_list_without_any_expected_gain_is_ranked_as_the_run_ranks_it(runs, data, monkeypatch, scale) -> None:
    """Trees clipped at 0 may predict none: then the base decides, and at scale 1 nothing does."""
    run, part = runs["blend"], Part(read_table(data), np.array([0]))
    monkeypatch.setattr(run.ranker, "columns", lambda batch: torch.zeros(*batch.mask.shape, 3).mT)
    columns = components(run, part, scale)
    assert columns.max() == 1
    scores = run.score(part, [0.4, 0.6], scale, main_share=0.2)
    total = columns @ np.array([0.32, 0.48, 0.2])
    assert (np.ptp(total) < 1e-6) == (scale == 1)
    slope = scale * float(run.ranker.base_slope)  # s_c = (1 - 1 / c) s_base + s / c
    np.testing.assert_allclose(np.log(total / total.max()), slope * (scores - scores.max()), atol=1e-4)


def test_the_weighted_sum_ranks_as_the_run_does_at_other_equal_temperatures(runs, data, tmp_path, command) -> None:
    run, part, out = runs["product"], Part.whole(read_table(data)), tmp_path / "columns.npy"
    run.save(tmp_path / "run")
    score = ("rank", "score", tmp_path / "run", data, "--cpu", "--scale", 0.5)
    assert command(*score, "--components", out, "--beta", "3,3").code == 0
    columns = np.load(out)
    assert not np.allclose(columns, components(run, part, 0.5), atol=0.01)
    scores = run.score(part, [0.3, 0.7], 0.5, temperatures=[3, 3])
    summed = columns.astype(np.float64) @ [0.3, 0.7]
    ends = np.cumsum(part.sizes)
    for a, b in zip(ends - part.sizes, ends, strict=True):
        kept = summed[a:b] > 1e-6
        ratio = np.log(summed[a:b][kept]) - 0.5 * 3 * scores[a:b][kept]  # s_c β c is the logarithm, up to a constant
        np.testing.assert_allclose(ratio, ratio[0], atol=1e-3)
    done = command(*score, "--components", out, "--beta", "1,0.5")
    assert done.refused("components: this mixture answers at β 1, 0.5; only equal β give a weighted sum")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "npy"])
def test_the_command_writes_columns_beside_query_and_row(runs, data, tmp_path, command, suffix) -> None:
    runs["gain"].save(tmp_path / "run")
    out = tmp_path / f"columns.{suffix}"
    done = command("rank", "score", tmp_path / "run", data, "--components", out, "--scale", 2, "--cpu")
    assert done.code == 0, done.err
    table = read_table(data)
    expected = components(RankRun.load(tmp_path / "run"), Part.whole(table), 2.0)
    if suffix == "npy":
        np.testing.assert_array_equal(np.load(out), expected)
        return
    read = pyarrow.parquet.read_table(out) if suffix == "parquet" else pyarrow.csv.read_csv(out)
    assert read.column_names == ["qid", "row", "query_url_clicks", "quality", "main"]
    assert read["row"].to_pylist() == list(range(table.num_rows))
    assert [str(q) for q in read["qid"].to_pylist()] == [str(q) for q in np.repeat(table.qids, table.group_sizes)]
    for j, name in enumerate(component_names(runs["gain"])):
        np.testing.assert_allclose(read[name].to_numpy(), expected[:, j], rtol=1e-6)


def test_a_ranking_that_is_no_weighted_sum_is_refused_by_name(runs, data) -> None:
    run = runs["product"]
    objectives = (run.config.objectives[0], replace(run.config.objectives[1], beta=0.5))
    unequal = replace(run, config=replace(run.config, objectives=objectives))
    with pytest.raises(InputError, match=r"β 1, 0\.5; only equal β"):
        component_names(unequal)
    power = run.ranker.power
    run.ranker.use(power=0.5)
    try:
        with pytest.raises(InputError, match=r"power 0\.5; only power 1"):
            component_names(run)
    finally:
        run.ranker.use(power=power)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--components", "x.parquet", "--weights", "1,0"], "--weights: --components writes columns for all weights"),
        (["--components", "x.txt"], "--components: found 'x.txt'; expected a name ending in .parquet, .csv, .npy"),
        ([], "--weights: missing; expected one per objective"),
        (
            ["--weights", "1,0", "--beta", "1,1"],
            "temperatures (--beta): found (1.0, 1.0), but expected gains have none",
        ),
        (["--components", "x.csv", "--beta", "2,2"], "temperatures (--beta): found (2.0, 2.0), but expected"),
    ],
)
def test_mistakes_get_one_line(runs, data, tmp_path, command, arguments, message) -> None:
    runs["gain"].save(tmp_path / "run")
    done = command("rank", "score", tmp_path / "run", data, *arguments)
    assert done.code == 2
    assert message in done.err

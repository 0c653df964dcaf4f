"""The recipes of docs/serving.md: numpy and SQL rank by components as ``rank score`` does, at any weights and share."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.ranking.config import build_config
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import make_accelerator

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
POINTS = [([1.0, 0.0], 0.0), ([0.3, 0.7], 0.25), ([0.5, 0.5], 0.9), ([0.0, 1.0], 0.4)]


def recipe(language: str) -> str:
    """The block of the page's section on engines."""
    section = DOCS.read_text(encoding="utf-8").partition("### From components to a ranking in your engine")[2]
    found = re.search(rf"```{language}\n(.*?)```", section.partition("\n### ")[0], re.S)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of expected gains by trees, its data, and its components as a file."""
    place = tmp_path_factory.mktemp("recipes")
    generate(place / "data.txt", 20, seed=4)
    quick = {"scorer": {"kind": "gbdt"}, "base_scorer": {"width": 8}, "base_training": {"epochs": 1}}
    quick |= {"mixture": {"form": "gain"}, "gbdt": {"trees": 10, "threads": 1}}
    config = build_config(preset="mslr", objectives=["query_url_clicks", "quality"], overrides=quick)
    parts = split_table(read_table(place / "data.txt"), config)
    fit_run(config, parts, make_accelerator("no", cpu=True), out=place / "run")
    return place


@pytest.fixture
def columns(place, command) -> Path:
    out = place / "columns.parquet"
    if not out.exists():
        done = command("rank", "score", place / "run", place / "data.txt", "--components", out, "--cpu")
        assert done.code == 0, done.err
    return out


def check_ranking(place: Path, rows: list[list[int]], w: list[float], share: float) -> None:
    """Rows of each list, best first: the run's scores never rise by more than rounding."""
    part = Part.whole(read_table(place / "data.txt"))
    scores = part.table.source_order(RankRun.load(place / "run").score(part, w, main_share=share))
    assert sorted(row for one in rows for row in one) == list(range(len(scores)))
    for one in rows:
        assert np.diff(scores[one]).max(initial=-np.inf) < 1e-4 * max(1, np.ptp(scores[one]))


@pytest.mark.parametrize(("w", "share"), POINTS)
def test_numpy_ranks_as_rank_score_does(place, columns, w, share) -> None:
    table = pyarrow.parquet.read_table(columns)
    qids = np.array(table["qid"].to_pylist())
    values = np.stack([table[name].to_numpy() for name in table.column_names[2:]], 1).astype(float)
    rows = []
    for qid in dict.fromkeys(qids.tolist()):
        mine = np.flatnonzero(qids == qid)
        space = {"np": np, "w": np.array(w), "share": share, "columns": values[mine]}
        exec(recipe("python"), space)
        rows.append(mine[space["ranking"]].tolist())
    check_ranking(place, rows, w, share)


@pytest.mark.parametrize(("w", "share"), POINTS)
def test_duckdb_ranks_as_rank_score_does(place, columns, w, share) -> None:
    duckdb = pytest.importorskip("duckdb")
    query = recipe("sql").replace("'columns.parquet'", f"'{columns}'")
    v = [*((1 - share) * np.array(w)), share]
    found = duckdb.execute(query, v).fetchall()
    rows: dict[str, list[tuple[int, int]]] = {}
    for qid, row, rank in found:
        rows.setdefault(qid, []).append((rank, row))
    check_ranking(place, [[row for _, row in sorted(one)] for one in rows.values()], w, share)

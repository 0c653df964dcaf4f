"""Explanations: shares against written-out sums, swaps against a search over weights, trees against LightGBM itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from helpers import fit_generated

from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.errors import InputError
from hyperdpo.files import read_json
from hyperdpo.ranking.components import components
from hyperdpo.ranking.explain import explain, group_of
from hyperdpo.ranking.explanation import Explanation
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.run_files import TREES

TREE_SETTINGS = {"trees": 5, "threads": 1, "loss": "cross_entropy"}
KINDS = {
    "product": {"mixture": {"form": "product"}},
    "gain": {"mixture": {"form": "gain"}},
    "gbdt": {"mixture": {"form": "gain"}, "scorer": {"kind": "gbdt"}, "gbdt": TREE_SETTINGS | {"loss": "l2"}},
    "blend": {"mixture": {"form": "gain"}, "scorer": {"kind": "blend", "width": 8}, "gbdt": TREE_SETTINGS},
}
#: Three objectives for a line of weights that is not an edge.
OBJECTIVES = {"product": ("query_url_clicks", "quality", "quality2")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explained") / "data.txt"
    generate(path, 30, seed=8)
    return path


@pytest.fixture(scope="module")
def runs(data: Path) -> dict[str, RankRun]:
    found = {kind: fit_generated(data, own, *OBJECTIVES.get(kind, ())) for kind, own in KINDS.items()}
    # Every column has something of each source, whatever so few groups would choose.
    found["blend"].ranker.use(tree_weight=0.5, learned_main=0.5)
    found["gbdt"].ranker.use(learned_main=0.5)
    return found


def explained(run: RankRun, data: Path, query: str = "3", scale: float = 1.0) -> tuple[Part, Explanation]:
    m = len(run.objectives)
    weights = np.arange(1, m + 1) / sum(range(1, m + 1))
    part = group_of(read_table(data), query)
    return part, explain(run, part, weights, scale)


def along(weights: np.ndarray, j: int, own: float) -> np.ndarray:
    """w with the weight ``own`` for objective j, and the others in proportion."""
    moved = weights * (1 - own) / (1 - weights[j])
    moved[j] = own
    return moved


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_shared_out_as_the_weighted_columns_say(runs, data, kind) -> None:
    run = runs[kind]
    part, found = explained(run, data, scale=2.0)
    w = found.weights
    v = w if kind == "product" else [*((1 - run.share(None, 1)[0]) * w), run.share(None, 1)[0]]
    columns = components(run, part, 2.0).astype(np.float64)
    order = np.argsort(-(columns @ v), kind="stable")
    assert found.rows.tolist() == part.rows()[order].tolist()
    for i, one in enumerate(found.to_dict()["documents"][:-1]):
        above, below = columns[order[i]], columns[order[i + 1]]
        whole = sum(v[j] * above[j] for j in range(len(v)))
        lead = whole - sum(v[j] * below[j] for j in range(len(v)))
        np.testing.assert_allclose(list(one["parts"].values()), [v[j] * above[j] / whole for j in range(len(v))])
        parts = [v[j] * (above[j] - below[j]) / lead for j in range(len(v))]
        np.testing.assert_allclose(list(one["over_next"]["parts"].values()), parts, atol=1e-8)
        assert sum(one["over_next"]["parts"].values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["product", "gain", "blend"])
def test_a_pair_swaps_where_a_search_through_scores_finds_it(runs, data, kind) -> None:
    run = runs[kind]
    part, found = explained(run, data)
    places = found.rows - part.rows()[0]
    seen = {"swap": 0, "never": 0}
    for j in range(len(found.weights)):
        grid = np.linspace(found.weights[j], 1, 161)
        scores = np.stack([run.score(part, along(found.weights, j, own)) for own in grid])[:, places]
        lead = (scores[:, :-1] - scores[:, 1:]).astype(np.float64)
        for i in range(min(len(places) - 1, 25)):
            if abs(lead[0, i]) < 1e-4:  # level within rounding
                continue
            below = np.flatnonzero(lead[:, i] < 0)
            if np.isnan(found.swaps[i, j]):
                assert lead[:, i].min() > -1e-4
                seen["never"] += 1
            else:
                first = below[0] if len(below) else len(grid) - 1
                assert abs(found.swaps[i, j] - grid[first]) < 1.5 * (grid[1] - grid[0])
                seen["swap"] += 1
    assert min(seen.values()) > 5


@pytest.mark.parametrize("kind", ["gbdt", "blend"])
def test_contributions_sum_to_what_lightgbm_predicts(runs, data, kind, tmp_path) -> None:
    run = runs[kind]
    run.save(tmp_path / "run")
    part, found = explained(run, data)
    order = found.rows - part.rows()[0]
    raw = part.table.values[part.rows()][:, part.table.column_indices(run.transform.columns)]
    assert found.trees.features == tuple(run.transform.columns)
    for j, name in enumerate(found.names):
        booster = lightgbm.Booster(model_file=next((tmp_path / "run" / TREES).glob(f"{j}-*")))
        assert found.trees.spaces[name] == {"gbdt": "gain", "blend": "log-odds"}[kind]
        predicted = booster.predict(raw, raw_score=True)[order]
        np.testing.assert_allclose(found.trees.contributions[name].sum(1), predicted, atol=1e-9)
        gains = predicted.clip(0, 1) if kind == "gbdt" else 1 / (1 + np.exp(-predicted))
        np.testing.assert_allclose(gains, run.ranker.trees(part)[order, j], rtol=1e-5)
        for i in range(3):
            leading = found.trees.leading(name, i, len(found.trees.features))
            assert sum(leading.values()) == pytest.approx(predicted[i] - predicted[i + 1], abs=1e-9)
            sizes = [abs(value) for value in leading.values()]
            assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_trees_network_and_base_sum_to_the_columns(runs, data, scale) -> None:
    _, found = explained(runs["blend"], data, scale=scale)
    sources = found.trees.sources
    assert set(sources) == {"trees", "neural", "base"}
    np.testing.assert_allclose(sum(sources.values()), found.columns, atol=1e-6)
    assert (sources["base"][:, :-1] == 0).all(), "only the main label has a base"
    assert (sources["base"][:, -1] > 0).all()


def test_the_part_of_the_trees_is_what_the_columns_lose_without_them(runs, data) -> None:
    """Columns are (1 - τ) network + τ trees: with the network alone and half of it, they are the neural part."""
    run = runs["blend"]
    part, found = explained(run, data)
    shares, order = run.ranker.signal_shares.numpy(), found.rows - part.rows()[0]
    by_trees = 0.5 * run.ranker.trees(part)[order] / shares * [1, 1, 0.5]
    ratios = found.trees.sources["trees"] / by_trees
    np.testing.assert_allclose(ratios, ratios[0, 0], rtol=1e-4)


def test_trees_without_a_part_are_not_explained(runs, data) -> None:
    run = runs["blend"]
    run.ranker.use(tree_weight=0.5, learned_main=0.0)
    try:
        _, found = explained(run, data)
        assert set(found.trees.contributions) == set(run.objectives)
    finally:
        run.ranker.use(tree_weight=0.5, learned_main=0.5)


def test_level_documents_have_no_parts(runs, data) -> None:
    _, found = explained(runs["gain"], data)
    level = replace(found, columns=np.repeat(found.columns[:1], len(found.columns), axis=0))
    pair = level.to_dict()["documents"][0]["over_next"]
    assert set(pair["parts"].values()) == {None}
    assert set(pair["swaps"].values()) == {None}


def test_the_command_prints_the_first_documents_and_writes_all(runs, data, tmp_path, command) -> None:
    runs["blend"].save(tmp_path / "run")
    out = tmp_path / "why.json"
    arguments = ["--query", "3", "--weights", ".3,.7", "--main-share", "0.2", "--scale", "2", "--top", "2"]
    done = command("rank", "explain", tmp_path / "run", data, *arguments, "--out", out, "--cpu")
    assert done.code == 0, done.err
    written = read_json(out)
    part = group_of(read_table(data), "3")
    scores = RankRun.load(tmp_path / "run").score(part, [0.3, 0.7], 2.0, main_share=0.2)
    ranked = scores[[one["row"] - part.rows()[0] for one in written["documents"]]]
    assert np.diff(ranked).max() < 1e-4, "in the order of rank score"
    assert written["weights"] == {"query_url_clicks": 0.3, "quality": 0.7}
    assert (written["main_share"], written["scale"]) == (0.2, 2.0)
    assert done.out.count("│ lead") == 2
    assert "features (log-odds)" in done.out
    assert "network" in done.out
    first = written["documents"][0]["over_next"]
    assert [sum(column) for column in zip(*(part.values() for part in first["sources"].values()), strict=True)] == (
        pytest.approx(list(first["parts"].values()), abs=1e-4)
    )


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("gain", ["--query", "nope"], "--query nope: not among the 30 queries of"),
        ("product", ["--query", "3", "--main-share", ".2"], "main share: this run takes none"),
        ("gain", ["--query", "3", "--weights", ".3,.8"], "weights"),
    ],
)
def test_mistakes_get_one_line(runs, data, tmp_path, command, kind, arguments, message) -> None:
    runs[kind].save(tmp_path / "run")
    done = command("rank", "explain", tmp_path / "run", data, *arguments, "--cpu")
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_ranking_that_is_no_weighted_sum_is_refused_by_name(runs, data) -> None:
    run = runs["product"]
    objectives = (replace(run.config.objectives[0], beta=0.5), *run.config.objectives[1:])
    unequal = replace(run, config=replace(run.config, objectives=objectives))
    with pytest.raises(InputError, match=r"β 0\.5, 1, 1; only equal β"):
        explained(unequal, data)

"""What a ranker's page shows, against the package's other ways to the same figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import CLICKS, fit_toy, toy_table

from hyperdpo.core.point import Point
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.explorer.rank_state import KEPT_LISTS, RankExplorer, ranking, shared_range, trained_on
from hyperdpo.explorer.tables import explanation_table, list_table, metric_table
from hyperdpo.ranking.run import RankRun

POINTS = [((1.0, 0.0), 1.0, None), ((0.3, 0.7), 2.5, None), ((0.5, 0.5), 0.5, (0.7, 1.6))]


@pytest.fixture(scope="module", params=["mixture", "scratch", "temperature"])
def explorer(request) -> RankExplorer:
    run = fit_toy(parametrization=request.param)
    return RankExplorer(run, Path("toy"), run.part(toy_table())[1], "test")


def points_of(explorer: RankExplorer) -> list[Point]:
    betas = explorer.betas
    free = explorer.temperature_range is not None
    return [Point(w, c, b if b is not None and free else betas) for w, c, b in POINTS]


def test_lists_are_ranked_by_the_scores_of_the_run(explorer):
    for point in points_of(explorer):
        for group in (0, 3):
            part = Part(explorer.part.table, explorer.part.groups[[group]])
            settings = {"temperatures": None if point.temperatures == explorer.betas else point.temperatures}
            scores = explorer.run.score(part, point.weights, point.scale, **settings)
            rows, here, base = explorer.list_view(group, point, None)
            assert [row.place for row in rows] == list(range(1, len(scores) + 1))
            at = np.array([row.document for row in rows]) - 1 - part.rows()[0]
            assert sorted(at) == list(range(len(scores)))
            assert [row.score for row in rows] == pytest.approx(scores[at], abs=1e-4)
            assert (np.diff([row.score for row in rows]) <= 0).all()
            front = explorer.run.front(explorer.run.examples(part), point.weights, [point.scale], **settings)
            assert here == pytest.approx([*front.metrics[0], front.main[0]], abs=1e-5, nan_ok=True)
            plain = explorer.run.base_front(explorer.run.examples(part))
            assert base == pytest.approx([*plain.metrics[0], plain.main[0]], abs=1e-5, nan_ok=True)


def test_metrics_of_all_groups_are_those_of_the_front(explorer):
    examples = explorer.run.examples(explorer.part)
    for point in points_of(explorer):
        front = explorer.run.front(examples, point.weights, [point.scale, 4.0], temperatures=point.temperatures)
        value, curve = explorer.here(point)
        assert value == pytest.approx([*front.metrics[0], front.main[0]], abs=1e-5)
        base = explorer.run.base_front(examples)
        assert curve[-1] == pytest.approx([*base.metrics[0], base.main[0]], abs=1e-6)
        assert curve[3] == pytest.approx([*front.metrics[1], front.main[1]], abs=1e-5)


def test_a_front_goes_over_all_weights(explorer):
    front = explorer.front()
    assert len(front.points) == 21
    assert {p.scale for p in front.points} == {1.0}
    assert front.points[0].weights == (1, 0)
    assert front.values[4] == pytest.approx(explorer.at(front.points[4]))


def test_moves_are_places_since_the_pinned_point(explorer):
    first, second, *_ = points_of(explorer)
    rows, _, _ = explorer.list_view(0, second, first)
    found = explorer.list_of(0)
    before = {int(found.rows[i]) + 1: place for place, i in enumerate(ranking(found.at(first)[0]))}
    assert [row.moved for row in rows] == [before[row.document] - (row.place - 1) for row in rows]
    assert sum(row.moved for row in rows) == 0
    stayed, _, _ = explorer.list_view(0, second, second)
    assert {row.moved for row in stayed} == {0}


def test_equal_scores_keep_the_order_of_the_data():
    assert ranking(np.array([1.0, 2.0, 2.0, 0.0, 1.0])).tolist() == [1, 2, 0, 4, 3]


def test_labels_are_those_of_the_file(toy_run, toy_data):
    run = RankRun.load(toy_run)
    table = read_table(toy_data)
    explorer = RankExplorer(run, toy_run, Part.whole(table), "all")
    assert explorer.metrics == ("a", "b", "main")
    assert explorer.minimized == (False, True, False)
    assert explorer.queries()[2].startswith("query-2 · ")
    rows, _, _ = explorer.list_view(2, explorer.start(), None)
    for row in rows:
        assert row.labels == tuple(float(table.column(c)[row.document - 1]) for c in ("a", "b", "relevance"))


def test_temperatures_move_as_far_as_the_ranker_answers():
    mixture = fit_toy(parametrization="mixture")
    part = mixture.part(toy_table())[1]
    assert RankExplorer(mixture, Path("x"), part, "test").temperature_range == ((0.125, 8), (0.125, 8))
    scratch = fit_toy(parametrization="scratch")
    assert RankExplorer(scratch, Path("x"), part, "test").temperature_range is None


def test_temperatures_stay_where_a_temperature_run_was_trained():
    """The run's own β, 1 and 1, is outside of what it was trained on for b."""
    table = toy_table()
    run = fit_toy(parametrization="temperature", temperatures={"low": [0.5, 1.20049], "high": [1.99951, 3.0]})
    part = run.part(table)[1]
    trained = RankExplorer(run, Path("temperature"), part, "test")
    assert trained.temperature_range == ((0.5, 1.99), (1.21, 3.0))
    start = trained.start()
    assert start.temperatures == (1.0, 1.21)
    assert trained.at_trained_end(start) == "β of b lies at an end of what the run was trained on (1.21 to 3)"
    assert trained.at_trained_end(replace(start, temperatures=(0.5, 2.0))).startswith("β of a lies")
    assert trained.at_trained_end(replace(start, temperatures=(0.6, 2.0))) == ""
    mixture = RankExplorer(fit_toy(parametrization="mixture"), Path("mixture"), part, "test")
    assert mixture.at_trained_end(replace(start, temperatures=(8.0, 8.0))) == ""
    assert shared_range([mixture, trained]) == shared_range([trained, mixture]) == ((0.5, 1.99), (1.21, 3.0))
    scratch = RankExplorer(fit_toy(parametrization="scratch"), Path("scratch"), part, "test")
    assert shared_range([scratch, trained]) is None
    assert shared_range([trained, scratch]) == trained.temperature_range


def test_groups_that_another_run_was_trained_on_are_counted(fitted, generated):
    run = RankRun.load(fitted)
    table = read_table(generated[0])
    assert trained_on(run, run.part(table, "validation")[1]) == 0
    assert trained_on(run, Part.whole(table)) == len(run.part(table, "train")[1].groups)
    assert run.objectives == tuple(CLICKS)


def test_only_the_last_lists_are_kept():
    part = Part.whole(toy_table(KEPT_LISTS + 1))
    explorer = RankExplorer(fit_toy(parametrization="mixture"), Path("toy"), part, "all")
    first, second = explorer.list_of(0), explorer.list_of(1)
    for group in (0, *range(2, KEPT_LISTS + 1)):
        explorer.list_of(group)
    assert explorer.list_of(0) is first
    assert explorer.list_of(1) is not second


def test_tables_are_html_that_names_cannot_break(explorer):
    rows, here, base = explorer.list_view(0, explorer.start(), None)
    names = ["<b>", "a_b", "main"]
    html = list_table([replace(rows[0], moved=-3), replace(rows[1], moved=2)], names, [True, False, False], "q & a")
    assert "&lt;b&gt; ↓" in html
    assert "q &amp; a" in html
    assert 'class="down" aria-label="down 3">▼ 3' in html
    assert 'class="up" aria-label="up 2">▲ 2' in html
    assert html.count("<tr data-row") == 2
    metrics = metric_table(names, (here, base), None, "NDCG", "base")
    assert metrics.count("updating") == 3
    assert "<b>" not in metrics
    nan = np.full(3, np.nan)
    assert metric_table(names, (nan, base), (here, base), "NDCG", "base").count("–") == 3


@pytest.fixture(scope="module")
def trees() -> RankExplorer:
    pytest.importorskip("lightgbm")
    run = fit_toy(
        mixture={"form": "gain"}, scorer={"kind": "blend"}, gbdt={"trees": 5, "threads": 1, "min_items_in_leaf": 5}
    )
    run.ranker.use(tree_weight=0.5, learned_main=0.5)
    return RankExplorer(run, Path("trees"), run.part(toy_table())[1], "test")


def test_a_run_with_trees_is_explored_as_it_scores(trees):
    for point in points_of(trees):
        part = Part(trees.part.table, trees.part.groups[[1]])
        rows, here, _ = trees.list_view(1, point, None)
        scores = trees.run.score(part, point.weights, point.scale)
        assert [row.score for row in rows] == pytest.approx(np.sort(scores)[::-1], abs=1e-4)
        front = trees.run.front(trees.run.examples(part), point.weights, [point.scale])
        assert here == pytest.approx([*front.metrics[0], front.main[0]], abs=1e-5, nan_ok=True)
    assert trees.temperature_range is None
    assert trees.front().values.shape == (21, 3)


@pytest.mark.parametrize("share", [0.0, 0.37, 0.9])
def test_the_share_of_a_point_moves_lists_metrics_and_front(trees, share):
    own = trees.run.ranker.main_share
    assert trees.start().main_share == own != share
    point = replace(trees.start(), weights=(0.3, 0.7), main_share=share)
    part = Part(trees.part.table, trees.part.groups[[1]])
    rows, _, _ = trees.list_view(1, point, None)
    scores = trees.run.score(part, point.weights, main_share=share)
    assert [row.score for row in rows] == pytest.approx(np.sort(scores)[::-1], abs=1e-4)
    examples = trees.run.examples(trees.part)
    whole = trees.run.front(examples, [point.weights], [1.0], main_share=share)
    assert trees.at(point) == pytest.approx([*whole.metrics[0], whole.main[0]], abs=1e-5)
    assert trees.here(point)[0] == pytest.approx(trees.at(point))
    front = trees.front(point)
    assert {one.main_share for one in front.points} == {share}
    assert front.values[4] == pytest.approx(trees.at(replace(point, weights=front.points[4].weights)), abs=1e-6)
    assert not np.allclose(front.values, trees.front().values)


def test_an_explanation_names_neighbours_parts_and_features(trees):
    point, longest = trees.start(), int(trees.part.sizes.argmax())
    found = trees.explanation(longest, point)
    assert trees.explanation(longest, point) is found
    rows, _, _ = trees.list_view(longest, point, None)
    assert [row.document - 1 for row in rows] == found.rows.tolist()
    html = explanation_table(found, rows[1].document)
    assert f"the lead of row {rows[0].document} over it" in html
    assert f"its lead over row {rows[2].document}" in html
    for name, part in zip(("a", "b", "main"), found.parts[1], strict=True):
        assert f">{name}</th>" in html
        assert f'<td class="n">{part:.0%}</td>' in html
    assert html.count("network") == 6, "three columns, two neighbours"
    assert "features in gain" in html
    assert "the lead of row" not in explanation_table(found, rows[0].document)
    assert "its lead over" not in explanation_table(found, rows[-1].document)


def test_equal_temperatures_are_explained_as_the_scale_that_they_are():
    run = fit_toy(parametrization="mixture")
    part = run.part(toy_table())[1]
    explorer = RankExplorer(run, Path("toy"), part, "test")
    point = Point((0.3, 0.7), 1.5, (2.0, 2.0))
    rows, _, _ = explorer.list_view(0, point, None)
    found = explorer.explanation(0, point)
    assert [row.document - 1 for row in rows] == found.rows.tolist()
    assert found.scale == 3.0
    with pytest.raises(InputError, match="only equal β"):
        explorer.explanation(0, replace(point, temperatures=(1.0, 2.0)))
    scratch = RankExplorer(fit_toy(parametrization="scratch"), Path("toy"), part, "test")
    with pytest.raises(InputError, match="a ranker of parametrization scratch has none"):
        scratch.explanation(0, scratch.start())


def test_documents_of_a_sorted_file_keep_their_row(trees):
    table = toy_table()
    backwards = replace(table, order=np.arange(table.num_rows)[::-1].copy())
    explorer = RankExplorer(trees.run, Path("toy"), Part(backwards, trees.part.groups), "test")
    rows, _, _ = explorer.list_view(0, explorer.start(), None)
    inside = Part(backwards, trees.part.groups[[0]]).rows()
    assert sorted(row.document for row in rows) == sorted(table.num_rows - inside)
    assert [row.document - 1 for row in rows] == explorer.explanation(0, explorer.start()).rows.tolist()

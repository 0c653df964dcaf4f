"""LambdaMART on scalarised labels: grades that fit LightGBM's table, models that learn and can be repeated."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import is_one_line, toy_table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import CHUNK_ROWS, FeatureTransform
from hyperdpo.errors import InputError
from hyperdpo.objectives import Label
from hyperdpo.ranking.examples import Examples, Features, build_examples
from hyperdpo.ranking.gbdt import (
    LARGEST_GROUP,
    GbdtConfig,
    GbdtData,
    GbdtModel,
    choose_main_share,
    train_gbdt_base,
    train_lambdamart,
)
from hyperdpo.ranking.gbdt_labels import LabelScale, LabelScaling, grades, scalarise
from hyperdpo.ranking.metrics import NdcgSettings, ndcg

pytest.importorskip("lightgbm")

COLUMNS = tuple(f"f{i}" for i in range(6))
CLICKS, QUALITY = Label(name="a", target="l1"), Label(name="b", target="softmax")
MAIN = Label(name="relevance", target="softmax", transform="none")
CONFIG = GbdtConfig(trees=20, leaves=8, min_items_in_leaf=5, patience=5, threads=1)
TABLE = toy_table(120)
TRAIN, VALIDATION = Part(TABLE, np.arange(80)), Part(TABLE, np.arange(80, 120))
EVEN = np.array([0.5, 0.5])


def examples(part: Part, base_scores: np.ndarray | None = None, *, main: Label | None = MAIN) -> Examples:
    labels = [label.fitted(TABLE.column(label.column)) for label in (CLICKS, QUALITY)]
    features = Features(part, FeatureTransform.fit(TRAIN, COLUMNS), resident_bytes=0)
    return build_examples(part, labels, main, features=features, base_scores=base_scores)


def data(train: Examples | None = None, validation: Examples | None = None, **changed: Any) -> GbdtData:
    train = examples(TRAIN) if train is None else train
    validation = examples(VALIDATION) if validation is None else validation
    scaling = LabelScaling.fit(train, MAIN if train.main_gains is not None else None)
    return GbdtData(train, validation, **({"scaling": scaling, "columns": COLUMNS, "config": CONFIG} | changed))


@pytest.fixture(scope="module")
def shared() -> GbdtData:
    return data()


@pytest.fixture(scope="module")
def vertices(shared: GbdtData) -> list[GbdtModel]:
    """One model for each objective alone."""
    return [train_lambdamart(shared, w, 0.0, with_base=False) for w in np.eye(2)]


def ndcg_of(scores: np.ndarray, gains: np.ndarray, part: Part) -> float:
    """Mean NDCG@10 of (N,) scores for (N,) gains of a part."""
    ends = np.cumsum(part.sizes)
    mask = np.arange(part.sizes.max()) < part.sizes[:, None]
    rows = np.where(mask, (ends - part.sizes)[:, None] + np.arange(part.sizes.max()), 0)
    return float(ndcg(*(torch.from_numpy(a) for a in (scores[rows], gains[rows], mask))).nanmean())


def refusal(action: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as error:
        action()
    assert is_one_line(error.value)
    return str(error.value)


# --- labels

HUGE = 2.0**100
FLOATS = st.floats(-HUGE, HUGE, width=32)
COUNTS = st.one_of(st.just(0.0), st.floats(0, 30, width=32), st.floats(0, HUGE, width=32))


@st.composite
def labels_and_gains(draw: st.DrawFn) -> tuple[Label, np.ndarray, np.ndarray]:
    """A fitted label of any kind, and gains of training and of other rows: heavy tails, constants, negative ones."""
    target = draw(st.sampled_from(["softmax", "l1"]))
    transform = draw(st.sampled_from(["none", "log1p"] if target == "l1" else ["none", "standardize"]))
    values = COUNTS if target == "l1" else st.one_of(FLOATS, st.integers(-3, 3).map(float))
    train, other = (draw(hnp.arrays(np.float32, st.integers(1, 30), elements=values)) for _ in range(2))
    return Label(name="z", target=target, transform=transform).fitted(train), train, other


@given(labels_and_gains(), st.integers(2, 300))
def test_any_label_has_its_grade_in_the_table_and_keeps_its_order(drawn, levels):
    label, train, other = drawn
    scale = LabelScale.fit(label, train)
    for gains in (train, other):
        units = scale(gains)
        assert ((units >= 0) & (units <= 1)).all()
        found = grades(units, float(scale(train).max()), levels)
        assert found.dtype == np.int32
        assert found.min() >= 0
        assert found.max() < levels
        assert (np.diff(found[np.argsort(gains)]) >= 0).all()


@given(labels_and_gains())
def test_the_largest_training_label_gets_the_last_grade_unless_all_are_equal(drawn):
    label, train, _ = drawn
    units = LabelScale.fit(label, train)(train)
    # A label that is never positive (l1), or the same everywhere, says nothing.
    says_nothing = not (train > 0).any() if label.target == "l1" else np.ptp(label.target_inputs(train)) == 0
    assert grades(units, float(units.max()), 31).max() == (0 if says_nothing else 30)


@pytest.mark.parametrize("transform", ["none", "log1p"])
def test_one_huge_count_does_not_make_the_others_vanish(transform):
    counts = np.array([0] * 900 + [1] * 60 + [5] * 39 + [10**8], dtype=np.float32)
    scale = LabelScale.fit(Label(name="z", target="l1", transform=transform), counts)
    none, one, five, huge = scale(np.array([0, 1, 5, 1e8], dtype=np.float32))
    assert (none, huge) == (0, 1)
    assert one > 0.15
    assert five > 0.5


def test_one_huge_value_of_a_dense_label_is_clipped_at_either_end():
    values = np.append(np.linspace(0, 1, 10_001), [1e9, -1e9]).astype(np.float32)
    scale = LabelScale.fit(Label(name="z", transform="none"), values)
    units = scale(np.array([-1e9, 0, 1, 1e9], dtype=np.float32))
    np.testing.assert_allclose(units, [0, 0.25, 0.75, 1], atol=0.002)


def test_the_rare_top_of_a_graded_label_keeps_its_distance():
    values = np.array([0] * 50_000 + [1] * 30_000 + [2] * 15_000 + [3] * 5_000 + [4] * 3, dtype=np.float32)
    np.testing.assert_allclose(LabelScale.fit(MAIN, values)(np.arange(5, dtype=np.float32)), np.arange(5) / 4)


def test_a_label_that_is_hardly_ever_positive_is_still_seen():
    values = np.array([0] * 99_999 + [7], dtype=np.float32)
    for label in (MAIN, CLICKS):
        np.testing.assert_allclose(LabelScale.fit(label, values)(np.float32([0, 7])), [0, 1])


@pytest.mark.parametrize("unit", [1e-3, 1, 60_000])
def test_it_does_not_matter_what_sparse_labels_are_counted_in(unit):
    seconds = np.array([0, 0, 3, 10, 200], dtype=np.float32)
    expected = LabelScale.fit(CLICKS, seconds)(seconds)
    counted = (seconds * unit).astype(np.float32)
    np.testing.assert_allclose(LabelScale.fit(CLICKS, counted)(counted), expected, rtol=1e-5)
    median = 10
    np.testing.assert_allclose(expected[3] / expected[2], np.log1p(10 / median) / np.log1p(3 / median), rtol=1e-6)


def test_scales_know_the_training_rows_alone():
    train, validation = examples(TRAIN), examples(VALIDATION)
    changed = replace(validation, gains=validation.gains + 1000, main_gains=validation.main_gains * 100)
    first, second = data(train, validation), data(train, changed)
    assert first.scaling == second.scaling
    np.testing.assert_array_equal(first.labels(EVEN, 0.3)[0], second.labels(EVEN, 0.3)[0])
    assert len(np.unique(first.labels(EVEN, 0.0)[1])) > 3
    assert (second.labels(EVEN, 0.0)[1] == CONFIG.levels - 1).all()  # beyond what training knows: the last grade
    poor = data(train, replace(validation, gains=np.minimum(validation.gains, 3)))
    assert poor.labels(EVEN, 0.0)[1].max() < 0.7 * CONFIG.levels  # the grades' steps are training's too


def test_a_vertex_without_the_main_label_orders_like_its_objective(shared):
    gains = examples(TRAIN).gains
    for j, w in enumerate(np.eye(2)):
        found = shared.labels(w, 0.0)[0][np.argsort(gains[:, j])]
        assert (np.diff(found) >= 0).all()
        assert len(np.unique(found)) > 3


def test_a_main_share_of_1_is_the_main_label_whatever_the_weights(shared):
    relevance = examples(TRAIN).main_gains
    for w in ([1, 0], [0.2, 0.8]):
        expected = np.rint(relevance / relevance.max() * (CONFIG.levels - 1))
        np.testing.assert_array_equal(shared.labels(np.array(w), 1.0)[0], expected)


def test_the_scalarised_label_is_the_weighted_sum():
    units = np.array([[1.0, 0.5, 0.0], [0.2, 0.4, 1.0]])
    expected = [0.75 * (0.9 * 1 + 0.1 * 0.5), 0.75 * (0.9 * 0.2 + 0.1 * 0.4) + 0.25]
    np.testing.assert_allclose(scalarise(units, np.array([0.9, 0.1]), 0.25), expected)


def test_grades_are_even_steps_up_to_the_largest_training_value():
    values = np.array([0, 0.04, 0.06, 0.25, 0.5, 0.9])
    np.testing.assert_array_equal(grades(values, 0.5, 6), [0, 0, 1, 2, 5, 5])
    np.testing.assert_array_equal(grades(values, 0.0, 6), 0)


# --- models


def test_each_vertex_is_better_than_chance_at_its_objective_and_than_the_other_vertex(vertices):
    held_out = examples(VALIDATION)
    found = np.array([[ndcg_of(model.scores(held_out), g, VALIDATION) for g in held_out.gains.T] for model in vertices])
    noise = np.random.default_rng(0).normal(size=held_out.num_items).astype(np.float32)
    chance = [ndcg_of(noise, g, VALIDATION) for g in held_out.gains.T]
    assert (np.diag(found) > np.add(chance, 0.05)).all()
    assert (np.diag(found) > found[::-1].diagonal() + 0.05).all()


def test_bins_that_are_shared_give_the_model_of_bins_made_afresh(shared, vertices):
    afresh = train_lambdamart(data(), np.array([0, 1]), 0.0, with_base=False)
    assert afresh.text == vertices[1].text
    assert train_lambdamart(shared, np.array([1, 0]), 0.0, with_base=False).text == vertices[0].text


def test_lightgbm_is_given_groups_gains_and_settings(shared, vertices):
    for part, dataset in zip((TRAIN, VALIDATION), shared.rows(False), strict=True):
        np.testing.assert_array_equal(dataset.get_group(), part.sizes)
    config = GbdtConfig(trees=3, learning_rate=0.25, leaves=7, min_items_in_leaf=9, patience=2, levels=5, threads=1)
    text = train_lambdamart(data(config=config, metric=NdcgSettings(k=7), seed=4), EVEN, 0.0, with_base=False).text
    for setting in (
        "learning_rate: 0.25",
        "num_leaves: 7",
        "min_data_in_leaf: 9",
        "label_gain: 0,1,2,3,4",
        "eval_at: 7",
        "seed: 4",
        "num_threads: 1",
        "deterministic: 1",
    ):
        assert f"[{setting}]" in text


def test_the_model_does_not_depend_on_the_threads(vertices):
    two = train_lambdamart(data(config=replace(CONFIG, threads=2)), np.array([1, 0]), 0.0, with_base=False)
    assert two.text == vertices[0].text.replace("[num_threads: 1]", "[num_threads: 2]")


def test_a_model_comes_back_from_its_text(vertices):
    (model, other), items = vertices, examples(VALIDATION)
    loaded = GbdtModel.load(model.text, COLUMNS, with_base=False, threads=1)
    np.testing.assert_array_equal(loaded.scores(items), model.scores(items))
    assert not np.array_equal(loaded.scores(items), other.scores(items))
    assert (loaded.num_trees, loaded.parameters) == (model.num_trees, model.parameters)


def test_parameters_are_the_values_of_leaves_and_the_thresholds_of_splits(vertices):
    trees = vertices[0]._booster.dump_model()["tree_info"]

    def count(node: dict[str, Any]) -> int:
        return 1 + (count(node["left_child"]) + count(node["right_child"]) if "left_child" in node else 0)

    assert vertices[0].num_trees == len(trees) > 1
    assert vertices[0].parameters == sum(count(tree["tree_structure"]) for tree in trees)


def test_training_stops_when_the_validation_groups_gain_no_more(shared, vertices):
    patient = data(config=replace(CONFIG, trees=100, patience=0))
    assert train_lambdamart(patient, np.array([1, 0]), 0.0, with_base=False).num_trees == 100
    stopping = data(config=replace(CONFIG, trees=100))
    assert train_lambdamart(stopping, np.array([1, 0]), 0.0, with_base=False).num_trees < 100
    alone = GbdtData(shared.train, None, scaling=shared.scaling, columns=COLUMNS, config=CONFIG)
    assert train_lambdamart(alone, np.array([1, 0]), 0.0, with_base=False).num_trees == CONFIG.trees


def test_scores_belong_to_the_rows_of_whichever_part_is_asked_for(vertices):
    model, some = vertices[0], Part(TABLE, np.array([3, 50, 119]))
    everywhere = model.part_scores(Part.whole(TABLE))
    assert (everywhere.dtype, everywhere.shape) == (np.float32, (TABLE.num_rows,))
    np.testing.assert_array_equal(model.part_scores(some), everywhere[some.rows()])
    order = [5, 8, 7, 0, 3, 2, 1, 6, 4]
    shuffled = replace(TABLE, values=TABLE.values[:, order], columns=tuple(TABLE.columns[i] for i in order))
    np.testing.assert_array_equal(model.part_scores(Part.whole(shuffled)), everywhere)


def test_scores_of_many_rows_are_those_of_few(vertices):
    model, times = vertices[0], CHUNK_ROWS // TABLE.num_rows + 2
    offsets = np.append(0, np.cumsum(np.tile(TABLE.group_sizes, times)))
    many = replace(TABLE, values=np.tile(TABLE.values, (times, 1)), qids=np.arange(len(offsets) - 1), offsets=offsets)
    few = model.part_scores(Part.whole(TABLE))
    np.testing.assert_array_equal(model.part_scores(Part.whole(many)), np.tile(few, times))


def test_the_base_score_helps_a_model_that_may_use_it():
    """Clicks that depend on something no feature shows."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=TABLE.num_rows).astype(np.float32)
    parts = [(part, hidden[part.rows()]) for part in (TRAIN, VALIDATION)]
    train, validation = (
        replace(examples(part, h), gains=np.stack([np.maximum(np.round(3 * h), 0)] * 2, axis=1)) for part, h in parts
    )
    both = data(train, validation)
    w = np.array([1, 0])
    found = {
        with_base: ndcg_of(
            train_lambdamart(both, w, 0.0, with_base=with_base).scores(validation), validation.gains[:, 0], VALIDATION
        )
        for with_base in (False, True)
    }
    assert found[True] > 0.9 > 0.8 > found[False]
    misled = data(train, validation.with_base(-validation.base_scores))  # which then stops at once
    trees = [train_lambdamart(d, w, 0.0, with_base=True).num_trees for d in (both, misled)]
    assert trees[0] > trees[1] == 1


def test_labels_that_say_nothing_give_a_model_that_says_nothing():
    train = examples(TRAIN)
    silent = replace(train, gains=np.zeros_like(train.gains))
    scores = train_lambdamart(data(silent, silent), EVEN, 0.0, with_base=False).scores(silent)
    np.testing.assert_array_equal(scores, np.full(silent.num_items, scores[0]))


# --- the base


@pytest.mark.parametrize("gain", ["linear", "exponential"])
def test_a_base_is_better_than_chance_at_the_main_label(gain):
    base = train_gbdt_base(TRAIN, VALIDATION, MAIN, COLUMNS, config=CONFIG, metric=NdcgSettings(gain=gain))
    held_out = examples(VALIDATION)
    table = range(5) if gain == "linear" else [0, 1, 3, 7, 15]
    assert f"[label_gain: {','.join(map(str, table))}]" in base.text
    noise = np.random.default_rng(0).normal(size=held_out.num_items).astype(np.float32)
    found, chance = (ndcg_of(s, held_out.main_gains, VALIDATION) for s in (base.scores(held_out), noise))
    assert found > 0.9 > chance + 0.05


@pytest.mark.parametrize(
    "value", [lambda z: z + 0.5, lambda z: z - 2, lambda z: 20 * z], ids=["half", "negative", "large"]
)
def test_a_main_label_that_is_no_grade_is_scaled(value):
    values = TABLE.values.copy()
    values[:, 0] = value(values[:, 0])
    other = replace(TABLE, values=values)
    model = train_gbdt_base(Part(other, TRAIN.groups), None, MAIN, COLUMNS, config=replace(CONFIG, trees=3))
    assert f"[label_gain: {','.join(map(str, range(CONFIG.levels)))}]" in model.text
    assert ndcg_of(model.part_scores(VALIDATION), TABLE.column("relevance")[VALIDATION.rows()], VALIDATION) > 0.88


# --- the main label's share


def tries(mean_main: Callable[[float], float], target: float, **settings: Any) -> tuple[float, list[float]]:
    share, tried = choose_main_share(mean_main, target, **settings)
    assert [score for _, score in tried] == [mean_main(s) for s, _ in tried]
    return share, [s for s, _ in tried]


def test_no_share_is_given_to_a_main_label_that_needs_none():
    assert tries(lambda share: 0.7 + share, 0.6) == (0, [0])
    assert tries(lambda share: 0.7 + share, 0.7) == (0, [0])
    assert tries(lambda share: 0.7 + share, 0.704) == (0, [0])  # within the tolerance


@pytest.mark.parametrize("target", [0.41, 0.55, 0.63, 0.79])
def test_the_share_brings_the_main_score_to_the_target(target):
    def rising(share: float) -> float:
        return 0.4 + 0.4 * (1 - (1 - share) ** 3)

    share, tried = tries(rising, target, most=12)
    assert abs(rising(share) - target) <= 0.005
    assert len(tried) < 12  # it ends as soon as that is so


def test_the_smallest_share_that_reaches_the_target_is_taken():
    def steps(share: float) -> float:
        return 0.3 if share < 0.3 else 0.9

    share, tried = tries(steps, 0.6)
    assert share == 0.3125
    assert tried == [0, 0.5, 0.25, 0.375, 0.3125, 0.28125]


def test_six_tries_are_enough_for_a_score_that_rises_fast_at_first():
    """As measured on generated data, where halving alone ended 0.02 above the target."""
    shares, scores = [0, 0.125, 0.15625, 0.1875, 0.25, 0.5, 1], [0.488, 0.724, 0.749, 0.779, 0.818, 0.882, 0.9]
    share, tried = tries(lambda share: float(np.interp(share, shares, scores)), 0.757)
    assert 0.15625 < share < 0.1875
    assert len(tried) == 5


def test_a_score_that_rises_late_is_found_too():
    share, tried = tries(lambda share: share**60, 0.02, most=12, tolerance=0.002)
    assert abs(share**60 - 0.02) <= 0.002
    assert len(tried) < 12


def test_where_nothing_reaches_the_target_the_nearest_share_is_taken():
    share, tried = tries(lambda share: 0.5 - (share - 0.7) ** 2, 0.9)
    assert share == 0.75
    assert max(tried) < 1
    assert len(tried) == 6


# --- errors


@pytest.mark.parametrize(
    "setting",
    [
        {"trees": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"leaves": 1},
        {"min_items_in_leaf": 0},
        {"patience": -1},
        {"levels": 1},
        {"threads": -1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(setting):
    assert next(iter(setting)) in refusal(lambda: GbdtConfig(**setting))


def test_weights_and_shares_out_of_range_are_refused(shared):
    assert "weights" in refusal(lambda: shared.labels(np.array([0.5, 0.6]), 0.0))
    assert "weights" in refusal(lambda: shared.labels(np.array([[0.5, 0.5]]), 0.0))
    assert "main_share is 1.5" in refusal(lambda: shared.labels(EVEN, 1.5))
    assert "main_share is nan" in refusal(lambda: shared.labels(EVEN, float("nan")))
    assert "most is 0" in refusal(lambda: choose_main_share(lambda share: share, 0.5, most=0))


def test_a_share_needs_a_main_label(shared):
    unknown = examples(TRAIN, main=None)
    without = data(unknown, unknown)
    assert without.labels(EVEN, 0.0)[0].max() == CONFIG.levels - 1
    assert "main_share is 0.1" in refusal(lambda: without.labels(EVEN, 0.1))
    assert "relevance" in refusal(lambda: LabelScaling.fit(unknown, MAIN))
    assert "relevance" in refusal(lambda: shared.scaling.units(unknown))


def test_a_model_that_uses_base_scores_asks_for_them(shared):
    model = train_lambdamart(shared, EVEN, 0.0, with_base=True)
    assert "base scores" in refusal(lambda: model.part_scores(VALIDATION))
    assert "base scores" in refusal(lambda: model.part_scores(VALIDATION, np.zeros(3)))


def test_a_text_that_is_no_model_or_another_one_is_refused(vertices):
    text = vertices[0].text
    for broken in ("", "tree\nnonsense", text[: len(text) // 2], text.replace("num_class", "class")):
        assert "model" in refusal(lambda broken=broken: GbdtModel.load(broken, COLUMNS, with_base=False))
    assert "6 features" in refusal(lambda: GbdtModel.load(text, COLUMNS, with_base=True))


def test_lists_longer_than_lightgbm_takes_are_refused():
    size = LARGEST_GROUP + 1
    values = np.zeros((size, len(TABLE.columns)), dtype=np.float32)
    values[0] = 1
    table = GroupedTable(values, TABLE.columns, np.array([1]), np.array([0, size]), source="long.txt")
    assert "long.txt" in refusal(lambda: train_gbdt_base(Part.whole(table), None, MAIN, COLUMNS, config=CONFIG))


def test_the_extra_is_named_where_lightgbm_is_missing(shared, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    found = refusal(lambda: train_lambdamart(data(), EVEN, 0.0, with_base=False))
    assert "pip install 'hyperdpo[gbdt]'" in found

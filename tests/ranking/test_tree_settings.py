"""Settings that go to LightGBM as they are: categories, monotone features, missing values and row weights."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import pytest
from helpers import cpu, toy_config, toy_table

from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_values
from hyperdpo.errors import InputError
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.estimator import HyperRanker
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.gains import gain_examples
from hyperdpo.ranking.run import RankRun

GBDT = {"trees": 8, "leaves": 5, "min_items_in_leaf": 5, "threads": 1}


def config_of(gbdt: dict[str, object], kind: str = "gbdt", **settings: object) -> RankConfig:
    return toy_config(mixture={"form": "gain"}, scorer={"kind": kind}, gbdt=GBDT | gbdt, **settings)


def shop_table() -> GroupedTable:
    """Toy data whose label ``a`` depends on the parity of a code ``shop``; some f1 are missing."""
    table, rng = toy_table(60), np.random.default_rng(2)
    shop = rng.integers(0, 20, table.num_rows)
    values = np.column_stack([table.values, shop]).astype(np.float32)
    values[:, 7] += 3 * (shop % 2)
    values[rng.random(len(values)) < 0.3, 2] = np.nan
    return replace(table, values=values, columns=(*table.columns, "shop"), fingerprint="shops")


def fitted(config: RankConfig, said: list[str] | None = None) -> RankRun:
    table = shop_table()
    return fit_run(config, split_table(table, config), cpu(), say=None if said is None else said.append)


def test_categories_missing_values_and_weights_reach_lightgbm_as_they_are() -> None:
    table = shop_table()
    weights = np.repeat(1.0 + np.arange(table.num_groups) % 3, table.group_sizes)
    table = replace(
        table, values=np.column_stack([table.values, weights]).astype(np.float32), columns=(*table.columns, "w")
    )
    config = config_of({"categorical": ["shop"], "monotone": {"f0": 1}, "patience": 0}, weight="w")
    parts = split_table(table, config)
    run = fit_run(config, parts, cpu())
    names = run.transform.columns
    assert names == (*(f"f{i}" for i in range(6)), "shop")
    targets = gain_examples(run.examples(parts["train"]), run.config.main, run.config.metric).targets[:, 0]
    raw = column_values(parts["train"], names)
    assert np.isnan(raw[:, 1]).any()
    settings = dict(objective="l2", num_leaves=5, learning_rate=0.1, min_data_in_leaf=5, verbosity=-1)
    settings |= dict(seed=0, deterministic=True, force_col_wise=True, num_threads=1)
    settings |= dict(monotone_constraints=[1, 0, 0, 0, 0, 0, 0])
    rows = weights[parts["train"].rows()]
    data = lightgbm.Dataset(raw, targets.copy(), weight=rows, categorical_feature=[6], params=settings)
    model = lightgbm.train(settings, data, 8)
    whole = Part.whole(table)
    assert run.ranker.trees is not None
    expected = model.predict(column_values(whole, names)).clip(0, 1)
    np.testing.assert_allclose(run.ranker.trees(whole)[:, 0], expected, rtol=1e-5)


def test_predictions_are_monotone_where_they_are_asked_to_be() -> None:
    def steps(gbdt: dict[str, object]) -> np.ndarray:
        """Differences of predictions for the label ``b``, which falls with f0, where f0 rises and the rest stays."""
        run, table = fitted(config_of(gbdt)), shop_table()
        values = np.repeat(table.values[:20], 30, axis=0)
        values[:, table.columns.index("f0")] = np.tile(np.linspace(-2, 2, 30), 20)
        moved = replace(table, values=values, qids=np.arange(20), offsets=np.arange(21) * 30)
        assert run.ranker.trees is not None
        return np.diff(run.ranker.trees(Part.whole(moved))[:, 1].reshape(20, -1), axis=1)

    assert steps({}).min() < 0
    assert steps({"monotone": {"f0": 1}}).min() >= 0
    falling = steps({"monotone": {"f0": -1}})
    assert falling.max() <= 0
    assert falling.min() < 0


def test_categories_are_nothing_to_a_network_and_are_named() -> None:
    said: list[str] = []
    run = fitted(config_of({"categorical": ["shop"]}, kind="blend"), said)
    assert "categories, for trees only (scorer.kind gbdt or blend): shop" in said
    table = shop_table()
    other = table.values.copy()
    other[:, -1] = 19 - other[:, -1]
    changed = replace(table, values=other, fingerprint="other shops")
    scores = {}
    for weight in (0.0, 1.0):
        run.ranker.use(tree_weight=weight, learned_main=1.0)
        scores[weight] = [run.score(Part.whole(one), [0.5, 0.5], main_share=0.2) for one in (table, changed)]
    np.testing.assert_array_equal(*scores[0.0])
    assert not np.allclose(*scores[1.0])


@pytest.mark.parametrize(
    ("gbdt", "message"),
    [
        ({"categorical": ["shp"]}, "gbdt.categorical: 'shp' is no feature; did you mean shop"),
        ({"monotone": {"a": 1}}, "gbdt.monotone: 'a' is no feature"),
        ({"categorical": ["f0"]}, r"column 'f0' holds .*; expected whole numbers of at least 0"),
    ],
)
def test_names_that_are_no_features_and_codes_that_are_none_are_refused(gbdt, message) -> None:
    with pytest.raises(InputError, match=message):
        fitted(config_of(gbdt))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="'shop' is in categorical and in monotone"):
        config_of({"categorical": ["shop"], "monotone": {"shop": 1}})
    with pytest.raises(InputError, match=r"gbdt\.monotone is 2; expected a mapping of names to 1 or -1"):
        config_of({"monotone": {"f0": 2}})


def test_trees_can_minimise_squares_and_their_predictions_stay_gains() -> None:
    run = fitted(config_of({"loss": "l2"}))
    assert run.ranker.trees is not None
    assert "\nobjective=regression" in run.ranker.trees.texts[0]
    found = run.ranker.trees(Part.whole(shop_table()))
    assert ((found >= 0) & (found <= 1)).all()


def test_python_takes_them_too() -> None:
    table = shop_table()
    names = [f"f{i}" for i in range(6)] + ["shop"]
    x = {name: table.column(name) for name in names}
    qid = np.repeat(table.qids, table.group_sizes)
    ranker = HyperRanker(
        mixture={"form": "gain"},
        scorer={"kind": "gbdt"},
        gbdt=GBDT | {"categorical": ["shop"]},
        base_training={"epochs": 1},
    )
    ranker.fit(x, table.column("relevance"), qid=qid, labels={"a": table.column("a"), "b": table.column("b")})
    assert ranker.run_.ranker.trees is not None
    assert "num_cat=1" in ranker.run_.ranker.trees.texts[0]
    assert np.isfinite(ranker.predict(x, qid=qid, main_share=0.3)).all()

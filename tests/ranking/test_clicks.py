"""Click data: inverse propensities, the bias of positions, and weights of groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import TINY_OPTIONS, cpu, toy_config
from sklearn.linear_model import PoissonRegressor

from hyperdpo.choosing.rankers import rank_sample
from hyperdpo.cli import main
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import Clicks, generate
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.errors import InputError
from hyperdpo.files import read_json
from hyperdpo.objectives import Label
from hyperdpo.ranking.clicks import fit_position_power, group_weights, read_labels, with_position_power
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.estimator import HyperRanker
from hyperdpo.ranking.evaluation import evaluate_front
from hyperdpo.ranking.examples import Examples, Features, build_examples
from hyperdpo.ranking.features import choose_features
from hyperdpo.ranking.fitting import conditioned_training, fit_run, prepare, split_table
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.gains import gain_examples, signal_shares
from hyperdpo.ranking.labels import fit_labels, label_in
from hyperdpo.ranking.metrics import NdcgSettings


def table_of(sizes: list[int], **columns: object) -> GroupedTable:
    values = [np.broadcast_to(np.asarray(column, np.float32), sum(sizes)) for column in columns.values()]
    offsets = np.append(0, np.cumsum(sizes))
    return GroupedTable(np.column_stack(values), tuple(columns), np.arange(len(sizes)), offsets, fingerprint="clicks")


def examples_of(table: GroupedTable, *labels: Label, weight: str | None = None) -> Examples:
    part = Part.whole(table)
    features = Features(part, FeatureTransform.fit(part, ("f",)), 1e9)
    return build_examples(
        part, [one.fitted(table.column(one.column)) for one in labels], None, features=features, weight=weight
    )


PROPENSITY = Label(name="z", propensity="p")


# --- corrected labels


def test_a_click_is_divided_by_its_propensity_but_counts_at_most_ten_times() -> None:
    table = table_of([4, 2], z=[1, 2, 1, 0, 0, 0], p=[1, 0.5, 0.02, 0, 0.3, 1], f=np.arange(6))
    corrected, counts = read_labels(Part.whole(table), [PROPENSITY, Label(name="z")])
    np.testing.assert_allclose(corrected[:, 0], [1, 4, 10, 0, 0, 0])
    np.testing.assert_array_equal(corrected[:, 1], table.column("z"), "only the label that asks for it")
    np.testing.assert_allclose(counts, [[15 / 4, 1], [1, 1]])


def test_a_click_counts_its_position_to_the_power_of_eta() -> None:
    table = table_of([4], z=[1, 1, 3, 1], k=[1, 4, 9, 400])
    corrected, _ = read_labels(Part.whole(table), [Label(name="z", position="k", position_power=0.5)])
    np.testing.assert_allclose(corrected[:, 0], [1, 2, 9, 10])


def test_what_is_not_judged_stays_so_and_needs_no_propensity() -> None:
    table = table_of([3], z=[-1, 1, 0], p=[np.nan, 0.5, 0.5])
    label = replace(PROPENSITY, unjudged=-1)
    np.testing.assert_allclose(read_labels(Part.whole(table), [label])[0][:, 0], [-1, 2, 0])


@pytest.mark.parametrize(
    ("settings", "column", "message"),
    [
        ({"propensity": "p"}, {"p": [0.5, 1.5]}, "row 1: column 'p' is 1.5; expected a propensity from 0 to 1"),
        ({"propensity": "p"}, {"p": [0.5, np.nan]}, "column 'p' is nan"),
        ({"position": "p", "position_power": 1}, {"p": [0, 1]}, "row 0: column 'p' is 0; expected a position from 1"),
        ({"propensity": "q"}, {"p": [1, 1]}, "no column 'q'"),
    ],
)
def test_wrong_propensities_and_positions_are_refused(settings, column, message) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(Part.whole(table_of([2], z=[1, 0], **column)), [Label(name="z", **settings)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "softmax"}, "target is softmax; a label with propensity needs l1"),
        ({"transform": "log1p"}, "transform is log1p"),
        ({"direction": "minimize"}, "direction is minimize"),
        ({"position": "k"}, "both set"),
        ({"position_power": 1.0}, "position_power is set beside propensity"),
    ],
)
def test_settings_that_would_bias_a_correction_are_refused(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        Label(name="z", propensity="p", **settings)
    with pytest.raises(InputError, match="needs position: COLUMN"):
        Label(name="z", position_power=1.0)


def test_exponential_gain_is_refused() -> None:
    config = toy_config(objectives=[{"name": "z", "propensity": "p"}], main=None, metric={"gain": "exponential"})
    part = Part.whole(table_of([2], z=[1, 0], p=[1, 1], f=[1, 2]))
    with pytest.raises(InputError, match=r"need metric\.gain linear"):
        fit_labels(config, {"train": part}, main_is_trained=False)


# --- the bias of positions


def test_eta_is_that_of_a_poisson_regression_with_an_effect_for_each_document() -> None:
    rng = np.random.default_rng(0)
    documents, positions = np.repeat(np.arange(30), 4), rng.integers(1, 20, 120)
    clicks = rng.poisson(3 * rng.gamma(2, size=30)[documents] * positions**-0.8)
    clicked = np.isin(documents, documents[clicks > 0])
    dummies = (documents[:, None] == np.arange(30)).astype(float)
    model = PoissonRegressor(alpha=0, fit_intercept=False, max_iter=10_000, tol=1e-9)
    model.fit(np.column_stack([np.log(positions), dummies])[clicked], clicks[clicked])
    order = rng.permutation(120)
    assert fit_position_power(clicks[order], positions[order], documents[order]) == pytest.approx(
        -model.coef_[0], abs=2e-3
    )


def test_eta_is_found_though_better_documents_stand_higher() -> None:
    rng = np.random.default_rng(1)
    relevance = rng.random((400, 10)) ** 2
    order = np.argsort(-(relevance[None] + 0.2 * rng.normal(size=(8, 400, 10))), -1)  # 8 sessions of each list
    positions = np.argsort(order, -1) + 1
    clicks = rng.random(positions.shape) < relevance * positions**-1.2
    documents = np.broadcast_to(np.arange(4000).reshape(400, 10), positions.shape)
    assert fit_position_power(clicks.ravel() * 1.0, positions.ravel(), documents.ravel()) == pytest.approx(
        1.2, abs=0.06
    )


def test_rows_with_the_same_features_are_one_document_and_without_any_eta_must_be_given() -> None:
    table = table_of([2, 2], z=[8, 1, 2, 4], k=[1, 2, 4, 1], f=[5, 6, 5, 6])
    found = with_position_power(Label(name="z", position="k"), Part.whole(table), ("f",))
    # document 5 has 8 clicks at position 1 and 2 at 4, document 6 has 4 at 1 and 1 at 2: 10 / (1 + 4^η) + 5 / (1 + 2^η)
    # clicks are expected where 2 log 4 + log 2 = 5 log 2 is seen.
    power = found.position_power
    assert 2 * 10 / (1 + 4**power) + 5 / (1 + 2**power) == pytest.approx(5, abs=1e-3)
    with pytest.raises(InputError, match=r"no clicked document .* set position_power"):
        with_position_power(
            Label(name="z", position="k"), Part.whole(table_of([2], z=[1, 0], k=[1, 2], f=[5, 6])), ("f",)
        )


# --- gains and metrics


def test_with_one_click_in_a_list_the_expected_corrected_gain_is_the_relevance() -> None:
    relevance, propensity = np.array([0.2, 0.3, 0.4]), np.array([1.0, 0.5, 0.125])
    chance = np.append(relevance * propensity, 1 - relevance @ propensity)  # of a click on each item, of none
    clicks = np.vstack([np.eye(3), np.zeros(3)])
    table = table_of([3] * 4, z=clicks.ravel(), p=np.tile(propensity, 4), w=np.repeat(chance, 3), f=np.arange(12))
    examples = examples_of(table, PROPENSITY, weight="w")
    found = gain_examples(examples, None, NdcgSettings())
    expected = np.average(found.targets.reshape(4, 3), axis=0, weights=found.group_weights)
    np.testing.assert_allclose(10 * expected, relevance, rtol=1e-6)
    # The metric counts a list 1 / propensity times: so often do clicks count there on average.
    share = signal_shares(found, examples.click_counts)
    np.testing.assert_allclose(10 * share, (chance[:3] / propensity).sum(), rtol=1e-6)
    naive = gain_examples(examples_of(table, Label(name="z", target="l1"), weight="w"), None, NdcgSettings())
    assert naive.targets.reshape(4, 3)[2].tolist() == [0, 0, 1]


def test_means_of_metrics_and_losses_are_weighted_with_groups_and_corrections() -> None:
    table = table_of(
        [2, 2, 2], z=[1, 0, 0, 1, 0, 0], p=[1, 1, 1, 0.25, 1, 1], w=[2, 2, 1, 1, 5, 5], f=[1, 0, 1, 0, 1, 0]
    )
    examples = examples_of(table, PROPENSITY, weight="w")
    scores = {0: [1.0, 0.0], 1: [1.0, 0.0], 2: [1.0, 0.0]}
    front = evaluate_front(
        lambda groups, batch: torch.tensor([[scores[g] for g in groups.groups]]),
        examples,
        np.ones((1, 1)),
        [1.0],
        [1.0],
        NdcgSettings(),
    )
    low = 1 / np.log2(
        3
    )  # the clicked item stands second in the second group, which counts 1 x 4 times, the first 2 x 1
    assert front.metrics[0, 0] == pytest.approx((2 * 1 + 4 * low) / 6)
    assert front.mrr[0, 0] == pytest.approx((2 * 1 + 4 * 0.5) / 6)
    loss = np.log1p(np.exp(-1)), np.log1p(np.exp(1))
    assert front.cross_entropy[0, 0] == pytest.approx((2 * loss[0] + 4 * loss[1]) / 6)
    assert front.groups_counted.tolist() == [2]
    batch = examples.batch(examples.batches()[0])
    assert batch.weights is not None
    found = dict(zip(examples.batches()[0].groups.tolist(), batch.weights[:, 0].tolist(), strict=True))
    assert (found[0], found[1]) == pytest.approx((2 / 3, 4 / 3)), "1 on average over the groups with signal"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2, 1], "row 1: column 'w' is 2; expected the same weight on all rows of a group"),
        ([1, 1, -1], "row 2: column 'w' is -1; expected a group weight of at least 0"),
        ([1, 1, np.nan], "column 'w' is nan"),
        ([0, 0, 0], "column 'w' is 0 in all 2 groups"),
    ],
)
def test_wrong_group_weights_are_refused(weights, message) -> None:
    with pytest.raises(InputError, match=message):
        group_weights(Part.whole(table_of([2, 1], w=weights)), "w")


# --- runs


def click_config(**overrides: object) -> RankConfig:
    settings = {
        "objectives": [{"name": "z", "position": "k"}, {"name": "y", "target": "l1"}],
        "main": {"name": "relevance", "target": "softmax"},
        "weight": "w",
        "mixture": {"form": "gain"},
    }
    return toy_config(**{**settings, **overrides})


def click_table(groups: int = 30) -> GroupedTable:
    rng = np.random.default_rng(3)
    lists = rng.normal(size=(groups // 2, 5, 2))
    features = np.repeat(lists, 2, axis=0).reshape(-1, 2)  # every list is shown twice
    positions = np.argsort(rng.random((groups, 5)), -1) + 1
    clicks = rng.random((groups, 5)) < 0.4 / positions
    labels = np.round(np.exp(features))
    return table_of(
        [5] * groups,
        relevance=labels[:, 0],
        f=features[:, 0],
        e=features[:, 1],
        z=clicks.ravel(),
        y=labels[:, 1],
        k=positions.ravel(),
        w=np.repeat(np.arange(groups) % 3, 5),
    )


def test_a_run_fits_eta_leaves_click_columns_out_of_the_features_and_says_so() -> None:
    table, said = click_table(), []
    config = click_config()
    run = fit_run(config, split_table(table, config), cpu(), say=said.append)
    assert run.transform.columns == ("f", "e")
    assert "no features: z (label of z); y (label of y); relevance (main label); w (group weight)" in " ".join(said)
    assert "k (position of z)" in " ".join(said)
    power = run.config.objectives[0].position_power
    assert power is not None
    assert f"times the position (column k) to the power of {power:.3g}" in " ".join(said)
    examples = run.examples(Part.whole(table))
    assert examples.label_weights is not None
    assert examples.label_weights.shape == (30, 3)


def test_choosing_counts_groups_as_a_front_does() -> None:
    table, config = click_table(), click_config()
    run = fit_run(config, split_table(table, config), cpu())
    examples = run.examples(Part.whole(table))
    front = run.front(examples, [[0.3, 0.7]], main_share=0.2)
    sample = rank_sample(run, examples)
    found = sample.measure(np.array([[0.3, 0.7, 1.0, 1.0, 1.0, 0.2]])).sum(-1) / sample.counts.sum(-1)
    assert front.main is not None
    np.testing.assert_allclose(found[0], [*front.metrics[0], front.main[0]], rtol=1e-5)


def test_lists_without_a_click_teach_the_total_and_losses_are_balanced() -> None:
    table, config = click_table(), click_config(weight=None, excluded_columns=["w"])
    prepared = prepare(config, split_table(table, config), cpu())
    job = conditioned_training(prepared, prepared.config)
    totals = job.train.targets.reshape(len(job.train.sizes), 5, 3).sum(1)
    assert (totals[:, 0] == 0).any()
    assert job.train.signal.all()
    counted = prepared.examples["train"].click_counts
    assert counted is not None
    share = np.stack([(totals[:, 0] > 0) * counted[:, 0] / 10, totals[:, 1] > 0, totals[:, 2] > 0], 1).mean(0)
    np.testing.assert_allclose(job.sampler(1, 0, 4).weights, 1 / share / (1 / share).sum(), rtol=1e-5)
    assert isinstance(job.ranker, GainRanker)
    np.testing.assert_allclose(job.ranker.signal_shares, share, rtol=1e-5)


def test_a_front_says_which_labels_are_corrected(tmp_path, capsys) -> None:
    data, run, out = tmp_path / "data.txt", tmp_path / "run", tmp_path / "front.json"
    generate(data, 12, clicks=Clicks())
    names = ["--preset", "mslr_clicks", "--objectives", "query_url_clicks,quality"]
    assert main(["rank", "fit", str(data), *names, "--cpu", "--out", str(run), *TINY_OPTIONS]) == 0
    assert "138 (propensity of query_url_clicks)" in " ".join(capsys.readouterr().out.split())
    assert main(["rank", "front", str(run), str(data), "--cpu", "--points", "2", "--out", str(out)]) == 0
    line = "divided by its propensity (column 138), at least 0.1"
    assert read_json(out)["data"]["corrected"] == {"query_url_clicks": line}
    assert f"query_url_clicks: measured on clicks, {line}" in " ".join(capsys.readouterr().out.split())


def test_data_without_the_columns_are_measured_as_they_are_with_a_note() -> None:
    table = table_of([2], z=[1, 0])
    with pytest.warns(UserWarning, match="no column 'p', so z is measured as it is"):
        assert label_in(table, PROPENSITY).propensity is None


def test_columns_of_objectives_that_are_left_out_stay_out_of_the_features() -> None:
    config = click_config(weight=None).selecting(["y"])
    choice = choose_features(click_table(), config)
    assert choice.columns == ("f", "e", "w")
    assert choice.left_out["k"] == "in excluded_columns"


def test_click_columns_are_no_features_where_base_scores_replace_the_main_label() -> None:
    choice = choose_features(click_table(), click_config(main=None), "relevance")
    assert choice.columns == ("f", "e")
    assert choice.left_out["k"] == "position of z"
    assert choice.left_out["w"] == "group weight"


def test_python_takes_propensities_and_weights_among_the_labels() -> None:
    table = click_table()
    qid = np.repeat(table.qids, 5)
    labels = {name: table.column(name) for name in ("z", "y", "k", "w")}
    settings = {name: {"epochs": 1} for name in ("training", "base_training")}
    ranker = HyperRanker(
        [{"name": "z", "position": "k", "position_power": 1}, "y"], mixture={"form": "gain"}, weight="w", **settings
    )
    x = np.column_stack([table.column("f"), table.column("e")])
    ranker.fit(x, table.column("relevance"), qid=qid, labels=labels)
    assert ranker.objectives_ == ("z", "y")
    assert ranker.run_.config.weight == "w"
    assert np.isfinite(ranker.predict(x, qid=qid)).all()
    del labels["k"]
    with pytest.raises(InputError, match="labels: no column 'k'"):
        ranker.fit(x, table.column("relevance"), qid=qid, labels=labels)

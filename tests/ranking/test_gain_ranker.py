"""Mixtures of expected gains: what is fitted from data, and that their order is that of the weighted sum."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.errors import InputError
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import RankConfig, build_config
from hyperdpo.ranking.estimator import HyperRanker
from hyperdpo.ranking.examples import Items
from hyperdpo.ranking.fitting import conditioned_settings, fit_run, split_table
from hyperdpo.ranking.gains import fit_base_slope, fit_size_totals, gain_examples, group_totals
from hyperdpo.ranking.metrics import relative_gains
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import make_accelerator

QUICK = {"training": {"epochs": 1}, "base_training": {"epochs": 1}, "device": "cpu"}
SMALL = {
    "scorer": {"width": 8},
    "base_scorer": {"width": 8},
    "training": {"epochs": 4},
    "base_training": {"epochs": 2},
    "mixture": {"form": "gain"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gains") / "data.txt"
    generate(path, 30, seed=3)
    return path


def config(**overrides: object) -> RankConfig:
    names = ["query_url_clicks", "quality"]
    return build_config(preset="mslr", objectives=names, overrides={**SMALL, **overrides})


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RankRun:
    settings = config()
    parts = split_table(read_table(data), settings)
    out = tmp_path_factory.mktemp("run")
    fit_run(settings, parts, make_accelerator("no", cpu=True), out=out)
    return RankRun.load(out)


def test_targets_are_relative_gains_of_each_list(run: RankRun, data: Path) -> None:
    part = Part.whole(read_table(data))
    examples = run.examples(part)
    found = gain_examples(examples, run.config.main, run.config.metric)
    assert [label.name for label in found.labels] == ["query_url_clicks", "quality", "relevance"]
    start = 0
    for group, size in enumerate(part.sizes):
        rows = slice(start, start + size)
        labels = torch.tensor(examples.measured_gains[rows].T)[:, None]
        expected = relative_gains(labels, torch.ones(1, size, dtype=torch.bool), run.config.metric)[:, 0]
        np.testing.assert_allclose(found.targets[rows].T, expected, rtol=1e-6)
        assert found.signal[group].tolist() == (expected.sum(-1) > 0).tolist()
        start += size


def test_the_order_at_any_weights_and_share_is_that_of_the_weighted_sum_of_the_columns(
    run: RankRun, data: Path
) -> None:
    part = Part.whole(read_table(data))
    examples = run.examples(part)
    rng = np.random.default_rng(0)
    batches = examples.batches()
    for _ in range(5):
        w, share = rng.dirichlet([1, 1]), float(rng.uniform(0, 0.9))
        scores = run.score(part, w, main_share=share)
        v = np.append((1 - share) * w, share)
        for group_batch in batches:
            with torch.inference_mode():
                columns = run.ranker.columns(Items.batch(examples, group_batch)).numpy()
            rows, mask = examples.index(group_batch)
            summed = np.einsum("m,gmn->gn", v, columns)
            for g in range(len(rows)):
                real = mask[g]
                assert (np.argsort(summed[g, real]) == np.argsort(scores[rows[g, real]])).mean() > 0.95
                np.testing.assert_allclose(
                    scores[rows[g, real]], np.log(summed[g, real]) / float(run.ranker.base_slope), rtol=1e-4, atol=1e-4
                )


def test_a_large_scale_moves_to_the_order_of_the_base(run: RankRun, data: Path) -> None:
    part = Part.whole(read_table(data))
    base = run.base_scores(part.table)[part.rows()]
    near = run.score(part, [0.5, 0.5], scale=1e6)
    np.testing.assert_allclose(near, base, atol=1e-3)


def test_a_share_of_each_group_is_that_of_scoring_the_group_alone(run: RankRun, data: Path) -> None:
    table = read_table(data)
    part = Part(table, np.arange(3))
    together = run.score(part, [0.5, 0.5], main_share=[0.1, 0.5, 0.8])
    alone = [run.score(Part(table, np.array([g])), [0.5, 0.5], main_share=s) for g, s in enumerate((0.1, 0.5, 0.8))]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-5)


def test_more_share_means_more_of_the_main_label(run: RankRun, data: Path) -> None:
    examples = run.examples(Part.whole(read_table(data)))
    means = [run.front(examples, np.eye(2), main_share=share).main.mean() for share in (0.0, 0.3, 0.9)]
    assert means[0] < means[1] < means[2]
    front = run.front(examples, np.eye(2), main_share=0.3).to_dict()
    assert [point["main_share"] for point in front["points"]] == [0.3, 0.3]


def test_the_share_and_the_part_of_the_base_are_chosen_on_validation_groups(run: RankRun) -> None:
    assert run.ranker.chosen == run.metrics["history"]["ranker"]["chosen"]
    assert run.ranker.chosen["main_share"] in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
    assert run.ranker.chosen["learned_main"] in (0.0, 0.5, 1.0)


def test_a_given_share_is_kept(data: Path) -> None:
    settings = config(mixture={"form": "gain", "main_share": 0.6, "learned_main": 1.0})
    run = fit_run(settings, split_table(read_table(data), settings), make_accelerator("no", cpu=True))
    assert run.ranker.chosen == {"main_share": 0.6, "learned_main": 1.0}


def test_without_a_main_label_the_last_column_is_the_base(data: Path) -> None:
    settings = config(main=None, excluded_columns=["relevance"])
    table = read_table(data)
    base = np.random.default_rng(0).normal(size=table.num_rows).astype(np.float32)
    parts = split_table(table, settings)
    said: list[str] = []
    run = fit_run(
        settings,
        parts,
        make_accelerator("no", cpu=True),
        base_source=BaseSource("given"),
        given_base={name: base for name in parts},
        say=said.append,
    )
    assert sum(line.startswith("main: there is no main label, so the main column is softmax") for line in said) == 1
    part = Part(table, np.array([0]))
    scores = run.score(part, [0.5, 0.5], main_share=1 - 1e-7, base_scores=base)
    assert (np.argsort(scores) == np.argsort(base[part.rows()])).all()


def test_a_share_is_refused_where_it_has_no_effect_and_beta_where_there_is_none(run: RankRun, data: Path) -> None:
    part = Part.whole(read_table(data))
    with pytest.raises(InputError, match=r"temperatures \(--beta\): found \[1, 1\], but expected gains have none"):
        run.score(part, [0.5, 0.5], temperatures=[1, 1])
    for bad in (-0.1, 1.0, np.nan):
        with pytest.raises(InputError, match="expected numbers from 0 to below 1"):
            run.score(part, [0.5, 0.5], main_share=bad)
    settings = config(mixture={"form": "product"})
    product = fit_run(settings, split_table(read_table(data), settings), make_accelerator("no", cpu=True))
    with pytest.raises(InputError, match="main share: this run takes none"):
        product.score(part, [0.5, 0.5], main_share=0.2)


def test_negative_labels_are_refused(run: RankRun, data: Path) -> None:
    examples = run.examples(Part.whole(read_table(data)))
    with pytest.raises(
        InputError, match=r"label 'query_url_clicks': mixture\.form gain needs labels of at least 0; found -1"
    ):
        gain_examples(replace(examples, gains=np.where(examples.gains > 0, -1, 0)), run.config.main, run.config.metric)


def test_the_settings_of_one_form_do_not_change_trainings_of_the_other() -> None:
    product, gain = config(mixture={"form": "product"}), config()
    assert conditioned_settings(product) == conditioned_settings(config(mixture={"form": "product", "main_share": 0.2}))
    assert conditioned_settings(gain) == conditioned_settings(config(mixture={"form": "gain", "power": 0.5}))
    assert conditioned_settings(gain) != conditioned_settings(product)
    assert "form" not in conditioned_settings(product)["mixture"], "trainings of before have the same fingerprint"


def test_totals_by_size_are_the_mean_totals_of_lists_of_that_size(run: RankRun, data: Path) -> None:
    examples = gain_examples(run.examples(Part.whole(read_table(data))), run.config.main, run.config.metric)
    log_size = np.log(examples.sizes)
    totals = group_totals(examples)
    predicted = np.exp(np.stack([np.ones_like(log_size), log_size, log_size**2], 1) @ fit_size_totals(examples).T)
    np.testing.assert_allclose(predicted.mean(0), totals.mean(0), rtol=0.02)


def test_the_slope_of_the_base_is_where_its_loss_is_least(run: RankRun, data: Path) -> None:
    examples = gain_examples(run.examples(Part.whole(read_table(data))), run.config.main, run.config.metric)
    relative = examples.targets[:, -1]
    slope = fit_base_slope(examples, relative)
    ends = np.cumsum(examples.sizes)

    def loss(a: float) -> float:
        found = 0.0
        for start, end in zip(ends - examples.sizes, ends, strict=True):
            s = a * examples.base_scores[start:end].astype(float)
            found -= relative[start:end] @ (s - np.log(np.exp(s - s.max()).sum()) - s.max())
        return found

    assert loss(slope) <= min(loss(0.9 * slope), loss(1.1 * slope))


def test_score_takes_a_share_on_the_command_line(run, data, tmp_path, command) -> None:
    path = tmp_path / "run"
    run.save(path)
    scores = [tmp_path / f"{share}.npy" for share in (0.1, 0.7)]
    for share, out in zip((0.1, 0.7), scores, strict=True):
        done = command("rank", "score", path, data, "--weights", ".3,.7", "--main-share", share, "--out", out, "--cpu")
        assert done.code == 0, done.err
    expected = RankRun.load(path).score(Part.whole(read_table(data)), [0.3, 0.7], main_share=0.7)
    np.testing.assert_allclose(np.load(scores[1]), expected, rtol=1e-6)
    assert not np.array_equal(np.load(scores[0]), expected)


def test_the_estimator_takes_a_share(run, data) -> None:
    table = read_table(data)
    X, qid = table.take(np.arange(table.num_rows), np.arange(20)), np.repeat(table.qids, table.group_sizes)
    clicks = np.random.default_rng(0).poisson(0.3, (len(X), 2)).astype(float)
    ranker = HyperRanker(mixture={"form": "gain"}, scorer={"width": 8}, base_scorer={"width": 8}, **QUICK)
    ranker.fit(X, clicks.sum(1), qid=qid, labels={"a": clicks[:, 0], "b": clicks[:, 1]})
    low, high = (ranker.predict(X, qid=qid, weights=[0.5, 0.5], main_share=share) for share in (0.1, 0.8))
    assert not np.array_equal(low, high)
    np.testing.assert_array_equal(
        ranker.predict(X, qid=qid, weights=[0.5, 0.5]),
        ranker.predict(X, qid=qid, weights=[0.5, 0.5], main_share=ranker.run_.ranker.chosen["main_share"]),
    )


def test_choose_searches_at_a_share_and_says_how_to_use_it(run, data, tmp_path, command) -> None:
    run.save(tmp_path / "run")
    found = {}
    for share in (0.05, 0.7):
        out = tmp_path / f"{share}.json"
        done = command(
            *(
                "choose",
                tmp_path / "run",
                data,
                "--maximize",
                "main",
                "--split",
                "test",
                "--scales",
                "1",
                "--points",
                3,
            ),
            *("--main-share", share, "--out", out, "--cpu"),
        )
        assert done.code == 0, done.err
        found[share] = json.loads(out.read_text())
        assert found[share]["main_share"] == share
        assert f"--main-share {share}" in found[share]["command"]
        assert f"main_share={share}" in found[share]["python"]
    assert found[0.7]["metrics"]["main"]["value"] > found[0.05]["metrics"]["main"]["value"]


def test_settings_without_effect_on_the_form_are_refused(data, tmp_path, command) -> None:
    config = tmp_path / "labels.yaml"
    config.write_text("objectives: [{name: clicks, column: 134, target: l1, beta: 2}]\n")
    fit = ("rank", "fit", data, "--config", config, "--out", tmp_path / "fit", "--set")
    done = command(*fit, "mixture.main_share=0.2")
    assert done.code == 2
    assert "beta is 2, but expected gains" in done.err
    done = command(*fit, "mixture.main_share=0.2", "--set", "mixture.form=product")
    assert done.code == 2
    assert "mixture.main_share applies only to mixture.form gain" in done.err
    done = command(*fit, "mixture.form=gain")
    assert done.code == 2
    assert "objective 'clicks': beta is 2, but expected gains (mixture.form gain) have none" in done.err

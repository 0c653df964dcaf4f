"""Calibration: predicted gains beside the gains that labels turned out to have, by tenths of the prediction."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import CLICKS, TINY_OPTIONS

from hyperdpo.cli import main
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.files import read_json
from hyperdpo.ranking.calibration import calibration, deciles
from hyperdpo.ranking.run import RankRun


@pytest.fixture(scope="module")
def gain_run(generated: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("calibrated") / "run"
    arguments = ["rank", "fit", str(generated[0]), "--out", str(run), "--preset", "mslr", "--cpu"]
    arguments += ["--objectives", ",".join(CLICKS), "--set", "mixture.form=gain", *TINY_OPTIONS]
    assert main(arguments) == 0
    return run


def test_tenths_have_the_means_of_their_items() -> None:
    rng = np.random.default_rng(0)
    predicted, observed = rng.permutation(200) / 200, rng.random(200)
    found = deciles(predicted, observed)
    order = np.argsort(predicted)
    assert [one["count"] for one in found] == [20] * 10
    for number, one in enumerate(found):
        rows = order[20 * number : 20 * (number + 1)]
        assert one["predicted"] == pytest.approx(predicted[rows].mean())
        assert one["observed"] == pytest.approx(observed[rows].mean())


def test_equal_predictions_stay_together() -> None:
    found = deciles(np.array([0.0] * 90 + [1.0] * 10), np.arange(100.0))
    assert found == [
        {"predicted": 0.0, "observed": 44.5, "count": 90},
        {"predicted": 1.0, "observed": 94.5, "count": 10},
    ]


def test_an_item_of_weight_two_counts_as_two_and_one_of_weight_zero_not_at_all() -> None:
    rng = np.random.default_rng(1)
    predicted, observed, weights = rng.random(60), rng.random(60), rng.integers(0, 4, 60)
    found = deciles(predicted, observed, weights)
    repeated = deciles(np.repeat(predicted, weights), np.repeat(observed, weights))
    assert sum(one["count"] for one in found) == (weights > 0).sum()
    for one, other in zip(found, repeated, strict=True):
        assert one["predicted"] == pytest.approx(other["predicted"])
        assert one["observed"] == pytest.approx(other["observed"])


def test_calibration_counts_groups_by_their_weights(gain_run, generated) -> None:
    """Groups of weight 0 might as well be missing."""
    run, table = RankRun.load(gain_run), read_table(generated[0])
    times = np.arange(len(table.qids)) % 2
    weighted = replace(run.examples(Part.whole(table)), group_weights=times.astype(np.float32))
    found = calibration(run, weighted)
    expected = calibration(run, run.examples(Part(table, np.flatnonzero(times))))
    for name in expected:
        for one, other in zip(found[name], expected[name], strict=True):
            assert one["predicted"] == pytest.approx(other["predicted"], rel=1e-4)
            assert one["observed"] == pytest.approx(other["observed"], rel=1e-4)


def test_observed_gains_are_labels_over_the_ideal_dcg_in_every_group(gain_run, generated) -> None:
    """Groups without a click count as gains of 0, and the predictions are those of all groups, too."""
    run, table = RankRun.load(gain_run), read_table(generated[0])
    found = calibration(run, run.examples(Part.whole(table)))
    assert list(found) == [*CLICKS, "main"]
    k = run.config.metric.k or table.num_rows
    labels = [table.column(one.column) for one in run.config.objectives] + [table.column(run.config.main.column)]
    for name, label in zip(found, labels, strict=True):
        gains = []
        for a, b in pairwise(table.offsets):
            best = np.sort(label[a:b])[::-1][:k]
            ideal = (best / np.log2(np.arange(2, len(best) + 2))).sum()
            gains.extend(label[a:b] / ideal if ideal > 0 else 0 * label[a:b])
        total = sum(one["observed"] * one["count"] for one in found[name])
        assert sum(one["count"] for one in found[name]) == table.num_rows
        assert total == pytest.approx(np.sum(gains), rel=1e-4)
        # Log κ_j is fitted on most of these groups: the sums agree, which a column per group with signal would not.
        assert sum(one["predicted"] * one["count"] for one in found[name]) == pytest.approx(total, rel=0.1)


def test_predictions_per_group_with_signal_are_turned_back(gain_run, generated) -> None:
    run = RankRun.load(gain_run)
    examples = run.examples(Part.whole(read_table(generated[0])))
    before = calibration(run, examples)
    run.ranker.signal_shares.mul_(0.5)
    after = calibration(run, examples)
    for name in before:
        for old, new in zip(before[name], after[name], strict=True):
            assert new["predicted"] == pytest.approx(old["predicted"], rel=1e-5)


def test_the_front_of_expected_gains_has_it(gain_run, product_run, generated, tmp_path, command) -> None:
    out = tmp_path / "front.json"
    done = command("rank", "front", gain_run, generated[0], "--points", "3", "--out", out, "--cpu")
    assert done.code == 0, done.err
    written = read_json(out)
    run = RankRun.load(gain_run)
    _, part = run.part(read_table(generated[0]))
    assert written["calibration"] == calibration(run, run.examples(part))
    assert "predicted and observed" in done.out
    assert command("rank", "front", product_run, generated[0], "--points", "3", "--out", out, "--cpu").code == 0
    assert "calibration" not in read_json(out)

"""Real files, from a data file to a front, on a small budget: MSLR-WEB10K features and LETOR 4.0's MQ2008.

The files are not part of the project. They are looked for under the environment variable HYPERDPO_DATA, else under
``../shared/data`` beside the repository.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import Outcome, read

from hyperdpo.data.cache import read_table
from hyperdpo.ranking.run import RankRun

ROOT = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[2] / "shared" / "data") / "ranking"

MQ2008 = """
objectives:
  - {name: pagerank, column: 41, transform: standardize, target: softmax, target_temperature: 0.5, beta: 1.0}
  - {name: url_length, column: 45, direction: minimize, transform: standardize, target: softmax, beta: 1.0}
excluded_columns: ["42", "43", "44", "46"]
"""


def real(name: str) -> Path:
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; HYPERDPO_DATA names another place")
    return path


def fit_and_measure(command: Callable[..., Outcome], data: Path, out: Path, *options: object) -> list[dict]:
    """Fits on a small budget for three splits of the groups, and their fronts at the two vertices and between.

    The held-out part of one split has 10 or 31 groups: too few for the sign of one difference to mean much.
    """
    budget = {"training.epochs": 30, "base_training.epochs": 8, "scorer.width": 32, "base_scorer.width": 32}
    settings = [f"--set={key}={value}" for key, value in budget.items()]
    fronts = []
    for seed in range(3):
        run = out / f"run{seed}"
        seeds = ["--seed", seed, "--set", f"split.seed={seed}"]
        found = command("rank", "fit", data, "--out", run, "--cpu", *options, *settings, *seeds)
        assert found.code == 0, found.err
        found = command("rank", "front", run, data, "--points", 3, "--out", out / "front.json", "--cpu")
        assert found.code == 0, found.err
        fronts.append(read(out / "front.json"))
    return fronts


def assert_weights_steer(fronts: list[dict]) -> None:
    """Each objective is better where all weight lies on it than where all lies on the other: the mean over splits."""
    for position, name in enumerate(fronts[0]["objectives"]):
        spans = []
        for front in fronts:
            ends = (front["points"][0], front["points"][-1])
            assert [point["weights"] for point in ends] == [[1, 0], [0, 1]]
            spans.append(ends[position]["metrics"][name] - ends[1 - position]["metrics"][name])
        assert np.mean(spans) > 0.005, f"{name}: {spans}"


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["query_url_clicks,quality", "url_dwell_time,quality2", "url_clicks,quality"])
def test_mslr_from_file_to_scores(command, tmp_path, pair):
    data = real("mslr_web10k_49q.txt")
    fronts = fit_and_measure(command, data, tmp_path, "--preset", "mslr", "--objectives", pair)
    assert (fronts[0]["data"]["split"], fronts[0]["data"]["groups"]) == ("test", 10)
    assert_weights_steer(fronts)
    scores = command("rank", "score", tmp_path / "run0", data, "--weights", ".3,.7", "--scale", 2, "--cpu")
    assert scores.code == 0
    assert len(scores.out.splitlines()) == read_table(data).num_rows == 4966


@pytest.mark.slow
def test_mslr_with_all_five_objectives(command, tmp_path):
    data = real("mslr_web10k_49q.txt")
    budget = ["--set=training.epochs=2", "--set=base_training.epochs=2", "--set=base_scorer.width=16"]
    found = command("rank", "fit", data, "--preset", "mslr", "--out", tmp_path / "run", "--cpu", "--paper", *budget)
    assert found.code == 0, found.err
    assert "50,432" in found.out
    assert len(RankRun.load(tmp_path / "run").transform.columns) == 131
    scores = command("rank", "score", tmp_path / "run", data, "--weights", ".3,.7", "--scale", 2, "--cpu")
    found = np.array([float(line) for line in scores.out.split()])
    assert len(found) == read_table(data).num_rows
    assert np.isfinite(found).all()
    assert len(np.unique(found)) > 0.9 * len(found)


@pytest.mark.slow
def test_mq2008_with_objectives_from_a_file(command, tmp_path):
    data = real("mq2008_156q.txt")
    (tmp_path / "mq2008.yaml").write_text(MQ2008)
    fronts = fit_and_measure(command, data, tmp_path, "--config", tmp_path / "mq2008.yaml")
    assert (fronts[0]["data"]["split"], fronts[0]["data"]["groups"]) == ("test", 31)
    assert_weights_steer(fronts)
    run = RankRun.load(tmp_path / "run0")
    assert not {"41", "42", "43", "44", "45", "46"} & set(run.transform.columns)
    assert run.config.objectives[1].flip_at == read_table(data).column("45").max()
    scores = command("rank", "score", tmp_path / "run0", data, "--weights", "url_length=1", "--cpu")
    assert len(scores.out.splitlines()) == read_table(data).num_rows == 2874

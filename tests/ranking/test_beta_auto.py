"""``beta: auto``: β_j over the base's spread within training groups, the same for every method."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperdpo.comparison.entries import RANK_VARIANTS, Entry, parse_entry
from hyperdpo.comparison.rank import RankTrainings
from hyperdpo.comparison.repeats import RankRepeat
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import RankConfig, build_config, parse_config
from hyperdpo.ranking.estimator import HyperRanker
from hyperdpo.ranking.fitting import conditioned_training, fit_run, prepare, split_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import make_accelerator

QUICK: dict[str, Any] = {
    "scorer": {"width": 8},
    "base_scorer": {"width": 8},
    "training": {"epochs": 2},
    "base_training": {"epochs": 1},
    "mixture": {"smoothing": 0.0},
}
OBJECTIVES = [
    {"name": "clicks", "column": "134", "target": "l1"},
    {"name": "quality", "column": "133", "target": "softmax"},
]


def config(**settings: Any) -> RankConfig:
    return parse_config({"objectives": OBJECTIVES, **QUICK, **settings}, "test")


@pytest.fixture(scope="module")
def parts(generated: tuple[Path, Path]) -> dict[str, Part]:
    return split_table(read_table(generated[0]), config())


@pytest.fixture(scope="module")
def base(parts: dict[str, Part]) -> np.ndarray:
    """(N,) base scores, 3.4 times as wide as usual, with groups at different heights."""
    table = parts["train"].table
    rng = np.random.default_rng(0)
    heights = np.repeat(rng.normal(0, 50, table.num_groups), table.group_sizes)
    return np.asarray(heights + rng.normal(0, 3.4, table.num_rows), dtype=np.float32)


def spread(part: Part, scores: np.ndarray) -> float:
    """Square root of the mean squared distance from the group's mean, over the part's rows."""
    total, rows = 0.0, 0
    for group in part.groups:
        own = [float(s) for s in scores[part.table.offsets[group] : part.table.offsets[group + 1]]]
        mean = math.fsum(own) / len(own)
        total, rows = total + math.fsum((s - mean) ** 2 for s in own), rows + len(own)
    return math.sqrt(total / rows)


def fitted(settings: RankConfig, parts: dict[str, Part], base: np.ndarray, out: Path | None = None, **more: Any) -> Any:
    given = dict.fromkeys(parts, base)
    accelerator = make_accelerator("no", cpu=True)
    return fit_run(settings, parts, accelerator, out=out, base_source=BaseSource("given"), given_base=given, **more)


def test_the_numbers_are_beta_over_the_spread_in_training_groups_and_are_recorded(parts, base, tmp_path) -> None:
    own = [{**OBJECTIVES[0], "beta": 2}, OBJECTIVES[1]]
    lines: list[str] = []
    fitted(config(objectives=own, beta="auto"), parts, base, tmp_path, say=lines.append)
    expected = spread(parts["train"], base)
    assert 3 < expected < 4
    run = RankRun.load(tmp_path)
    np.testing.assert_allclose(run.betas, [2 / expected, 1 / expected], rtol=1e-9)
    assert json.loads((tmp_path / "run.json").read_text())["temperatures"] == dict(
        zip(run.objectives, run.betas, strict=True)
    )
    assert run.config.beta is None  # config.json has the numbers, and repeats the run
    assert next(line for line in lines if line.startswith("beta")) == (
        f"beta: clicks {2 / expected:.4g}, quality {1 / expected:.4g}; divided by {expected:.4g}, the spread of the "
        "base scores within training groups"
    )


def test_a_base_three_times_as_wide_gives_the_same_ranking(parts, base) -> None:
    test, w = parts["test"], [0.4, 0.6]
    once = fitted(config(beta="auto"), parts, base).score(test, w, base_scores=base)
    wide = fitted(config(beta="auto"), parts, 3 * base).score(test, w, base_scores=3 * base)
    np.testing.assert_allclose(wide, 3 * once, rtol=1e-4, atol=1e-2)
    fixed = fitted(config(), parts, 3 * base).score(test, w, base_scores=3 * base)
    assert np.abs(fixed - wide).max() > 0.5  # at β = 1 it would not


def test_auto_on_every_objective_means_all_and_on_some_is_refused() -> None:
    both = [{**one, "beta": "auto"} for one in OBJECTIVES]
    assert config(objectives=both) == config(beta="auto")
    with pytest.raises(InputError, match=r"objectives\.1\.beta is auto, but not the others'; set beta: auto for all"):
        config(objectives=[OBJECTIVES[0], both[1]])
    with pytest.raises(InputError, match="beta is 3; expected auto, or null"):
        config(beta=3)
    overrides = {**QUICK, "beta": "auto"}
    assert build_config(preset="mslr", objectives=["quality"], overrides=overrides).beta == "auto"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture": {"form": "gain"}}, "beta is auto, but expected gains .* have none; remove it"),
        ({"parametrization": "temperature"}, "beta is auto, but a temperature ranker draws β .* set those"),
    ],
)
def test_rankers_without_a_beta_of_their_own_refuse_it(parts, base, settings, message) -> None:
    with pytest.raises(InputError, match=message):
        fitted(config(beta="auto", **settings), parts, base)


def test_a_base_that_tells_nothing_apart_has_no_spread_to_divide_by(parts, base) -> None:
    with pytest.raises(InputError, match="the base scores do not differ within any training group; set a number"):
        fitted(config(beta="auto"), parts, np.zeros_like(base))


def test_a_checkpoint_of_other_temperatures_is_not_resumed(parts, base) -> None:
    prints = set()
    for settings in (config(), config(beta="auto")):
        given = {"base_source": BaseSource("given"), "given_base": dict.fromkeys(parts, base)}
        prepared = prepare(settings, parts, make_accelerator("no", cpu=True), **given)
        prints.add(conditioned_training(prepared, prepared.config).fingerprint)
    assert len(prints) == 2


def test_every_method_of_a_comparison_gets_the_same_numbers(parts, base, tmp_path) -> None:
    repeat = RankRepeat("repeat", 0, parts, BaseSource("given"), dict.fromkeys(parts, base))
    trainings = RankTrainings(repeat, config(beta="auto"), tmp_path, make_accelerator("no", cpu=True))
    expected = [1 / spread(parts["train"], base)] * 2
    np.testing.assert_allclose(trainings.prepared.betas, expected, rtol=1e-9)
    for method in ("hyperdpo", "hyperdpo:scratch", "dpo-ls", "mo-dpo"):
        found = trainings.config(parse_entry(method, RANK_VARIANTS))
        np.testing.assert_allclose([o.beta for o in found.objectives], expected, rtol=1e-9)
    with pytest.raises(InputError, match="entries of a comparison share objectives, β and main label"):
        trainings.config(Entry("hyperdpo", "hyperdpo:own", {"beta": "auto"}))


def test_hyperranker_takes_it() -> None:
    rng = np.random.default_rng(1)
    x, qid = rng.normal(size=(120, 3)), np.repeat(np.arange(12), 10)
    labels = {"a": rng.integers(0, 2, 120), "b": rng.integers(0, 2, 120)}
    base = 5 * x[:, 0]
    ranker = HyperRanker(["a", "b"], beta="auto", scorer={"width": 8}, training={"epochs": 1}, device="cpu")
    assert ranker.get_params()["beta"] == "auto"
    ranker.fit(x, qid=qid, labels=labels, base_scores=base)
    one, two = ranker.run_.betas
    assert one == two
    assert 0.1 < one < 0.4

"""``hyperdpo:...:uncorrected``: a method on clicks as they were logged, measured beside the corrected one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CLICKS, TINY_OPTIONS, cpu

from hyperdpo.comparison.entries import ALIGN_VARIANTS, RANK_VARIANTS, parse_entry
from hyperdpo.comparison.methods import Conditioned
from hyperdpo.comparison.rank import RankTrainings
from hyperdpo.comparison.repeats import RankRepeat
from hyperdpo.data.cache import read_table
from hyperdpo.data.synthetic import Clicks, generate
from hyperdpo.errors import InputError
from hyperdpo.files import read_json
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import RankConfig, build_config
from hyperdpo.ranking.fitting import split_table

FAST: dict[str, Any] = {"gbdt": {"trees": 5, "threads": 1}, "base_scorer": {"width": 8}, "base_training": {"epochs": 1}}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Biased clicks of 40 queries, and their oracle."""
    directory = tmp_path_factory.mktemp("logged")
    data, oracle = directory / "data.txt", directory / "oracle.csv"
    generate(data, 40, 3, oracle, clicks=Clicks())
    return data, oracle


def config() -> RankConfig:
    return build_config(preset="mslr_clicks", objectives=CLICKS, overrides=FAST)


def trainings(config: RankConfig, data: Path, directory: Path) -> RankTrainings:
    parts = split_table(read_table(data), config)
    given = {name: np.zeros(part.table.num_rows, np.float32) for name, part in parts.items()}
    return RankTrainings(RankRepeat("seed-0", 0, parts, BaseSource("given"), given), config, directory, cpu())


def predictions(of: RankTrainings, method: str) -> np.ndarray:
    ranker: Any = of.trained(Conditioned(), parse_entry(method, RANK_VARIANTS)).model
    return np.asarray(ranker.trees(of.repeat.parts["test"]))


def test_it_is_trained_as_labels_without_a_correction_are(logged, tmp_path) -> None:
    both = config()
    assert all(label.click_column for label in both.objectives)
    columns = [str(label.click_column) for label in both.objectives]
    plain = replace(
        both,
        objectives=tuple(replace(one, propensity=None, position=None) for one in both.objectives),
        excluded_columns=(*both.excluded_columns, *dict.fromkeys(columns)),
    )
    found = trainings(both, logged[0], tmp_path / "both")
    expected = predictions(trainings(plain, logged[0], tmp_path / "plain"), "hyperdpo:gbdt")
    np.testing.assert_allclose(predictions(found, "hyperdpo:gbdt:uncorrected"), expected, rtol=1e-6)
    assert not np.allclose(predictions(found, "hyperdpo:gbdt"), expected)


def test_the_command_shows_both_against_the_oracle(logged, tmp_path, command) -> None:
    methods = ["hyperdpo:gbdt", "hyperdpo:gbdt:uncorrected"]
    done = command(
        "rank", "compare", logged[0], "--preset", "mslr_clicks", "--objectives", ",".join(CLICKS), "--methods",
        ",".join(methods), "--oracle", logged[1], "--seeds", 1, "--points", 3, "--out", tmp_path, "--cpu",
        "--set", "gbdt.trees=5", "--set", "gbdt.threads=1", "--main-levels", 0, *TINY_OPTIONS,
    )  # fmt: skip
    assert done.code == 0, done.err
    written = read_json(tmp_path / "compare.json")["methods"]
    assert list(written) == methods
    assert [one["attainable_by"] for one in written.values()] == ["order by expected gains, at the own share"] * 2
    fractions = [one["oracle"]["fraction"] for one in written.values()]
    assert fractions[0] != fractions[1]
    for fraction in fractions:
        assert f"│ {fraction:.1%}, " in done.out
    assert len(list((tmp_path / "seed-0" / "models").glob("*.safetensors"))) == 2


def test_names_of_methods_without_corrections() -> None:
    entry = parse_entry("hyperdpo:gain:uncorrected", RANK_VARIANTS)
    assert entry.uncorrected
    assert entry.label == "hyperdpo:gain:uncorrected"
    assert entry.overrides == RANK_VARIANTS["hyperdpo"]["gain"]
    assert parse_entry("hyperdpo:uncorrected", RANK_VARIANTS).overrides == {}
    assert not parse_entry("hyperdpo:gain", RANK_VARIANTS).uncorrected
    for name, variants in (
        ("dpo-ls:uncorrected", RANK_VARIANTS),
        ("hyperdpo:uncorrected", ALIGN_VARIANTS),
        ("hyperdpo:nothing:uncorrected", RANK_VARIANTS),
    ):
        with pytest.raises(InputError, match="no variant"):
            parse_entry(name, variants)


def test_labels_without_a_correction_are_refused(generated, tmp_path, command) -> None:
    arguments = ["--preset", "mslr", "--objectives", ",".join(CLICKS), "--methods", "hyperdpo,hyperdpo:uncorrected"]
    done = command("rank", "compare", generated[0], *arguments, "--out", tmp_path, "--cpu")
    assert done.refused("hyperdpo:uncorrected: no label has a propensity or a position")

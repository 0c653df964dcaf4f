"""Configurations: presets, files, overrides, and the choice of objectives."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import is_one_line, toy_table

from hyperdpo.errors import InputError
from hyperdpo.files import read_yaml
from hyperdpo.ranking.config import PRESETS, RankConfig, build_config, parse_config
from hyperdpo.ranking.features import choose_features


def refusal(action) -> str:
    with pytest.raises(InputError) as error:
        action()
    assert is_one_line(error.value)
    return str(error.value)


def file_of(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(textwrap.dedent(text))
    return path


# --- presets


def test_the_preset_has_the_papers_objectives_in_the_papers_order():
    config = build_config(preset="mslr")
    assert [(o.name, o.column) for o in config.objectives] == [
        ("query_url_clicks", "134"),
        ("url_clicks", "135"),
        ("url_dwell_time", "136"),
        ("quality", "132"),
        ("quality2", "133"),
    ]
    assert [o.target for o in config.objectives] == ["l1"] * 3 + ["softmax"] * 2
    assert {o.direction for o in config.objectives} == {"maximize"}
    assert (config.main.name, config.main.column) == ("relevance", "relevance")


def test_the_inverted_preset_is_255_minus_the_quality():
    config = build_config(preset="mslr_inverted_quality")
    for o in config.objectives[3:]:
        assert (o.direction, o.flip_at) == ("minimize", 255)
    assert config.objectives[:3] == build_config(preset="mslr").objectives[:3]


def test_the_defaults_are_the_papers_network_and_metric():
    config = build_config(preset="mslr")
    assert (config.scorer.kind, config.scorer.width, config.scorer.layers) == ("transformer", 64, 2)
    assert (config.base_scorer.width, config.base_scorer.layers) == (128, 2)
    assert (config.metric.k, config.metric.gain, config.metric.empty) == (10, "linear", "skip")
    assert (config.split.train, config.split.validation, config.split.test) == (0.6, 0.2, 0.2)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    message = refusal(lambda: build_config(preset="istella"))
    assert all(name in message for name in ("istella", *PRESETS))


# --- files


YAML = """
    main: {name: relevance, transform: none}
    objectives:
      - {name: pagerank, column: 41, target: softmax, target_temperature: 0.5, beta: 2}
      - {name: url_length, column: 45, direction: minimize, transform: log1p, target: l1}
    training: {epochs: 7, learning_rate: 1e-3, alpha: [0.3, 0.7]}
    """


def test_a_file_says_everything_about_an_objective(tmp_path):
    config = build_config(config_file=file_of(tmp_path, YAML.replace("1e-3", "0.001")))
    first, second = config.objectives
    assert (first.column, first.target_temperature, first.beta) == ("41", 0.5, 2)
    assert (second.direction, second.transform, second.target) == ("minimize", "log1p", "l1")
    assert (config.training.epochs, config.training.alpha) == (7, (0.3, 0.7))


def test_a_number_in_scientific_notation_is_a_number(tmp_path):
    """YAML 1.1 reads 1e-3, without a point, as text."""
    assert build_config(config_file=file_of(tmp_path, YAML)).training.learning_rate == 0.001


def test_a_file_is_laid_over_a_preset_and_overrides_over_both(tmp_path):
    path = file_of(tmp_path, "training: {epochs: 7, clip: 2.0}\nseed: 3\n")
    config = build_config(preset="mslr", config_file=path, overrides={"training": {"epochs": 9}})
    assert (config.training.epochs, config.training.clip, config.seed) == (9, 2.0, 3)
    assert len(config.objectives) == 5


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: [1, 2\nc: 3\n", 3), ("training:\n\tepochs: 3\n", 2), ("a: b: c\n", 1), ("x: 'open\n", 2)],
    ids=["open bracket", "tab", "two colons", "open quote"],
)
def test_bad_yaml_is_refused_with_its_line(tmp_path, text, line):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert f"config.yaml:{line}: not valid YAML" in refusal(lambda: read_yaml(path))


@pytest.mark.parametrize("text", ["- a\n- b\n", "7\n", "", "word\n"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path, text):
    assert "expected settings" in refusal(lambda: read_yaml(file_of(tmp_path, text)))


def test_a_file_that_is_missing_or_not_text_is_refused(tmp_path):
    assert "nothing.yaml" in refusal(lambda: read_yaml(tmp_path / "nothing.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "binary.yaml" in refusal(lambda: read_yaml(tmp_path / "binary.yaml"))


# --- what is refused


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"epochs": 3}, ["epochs", "not a setting"]),
        ({"training": {"epoch": 3}}, ["training.epoch", "not a setting; did you mean training.epochs?"]),
        ({"scorer": {"kind": "cnn"}}, ["scorer.kind", "'cnn'"]),
        ({"training": {"epochs": "many"}}, ["training.epochs", "'many'"]),
        ({"training": {"epochs": 2.5}}, ["training.epochs", "2.5"]),
        ({"training": {"epochs": 0}}, ["epochs is 0"]),
        ({"training": {"epochs": None}}, ["training.epochs"]),
        ({"training": {"learning_rate": 0}}, ["learning_rate"]),
        ({"training": {"learning_rate": float("nan")}}, ["learning_rate"]),
        ({"training": {"warmup": 1}}, ["warmup"]),
        ({"training": {"clip": -1}}, ["clip"]),
        ({"training": {"alpha": [1, 1]}}, ["alpha", "5 numbers"]),
        ({"training": {"alpha": 0}}, ["alpha"]),
        ({"training": {"precision": "fp8"}}, ["precision", "'fp8'"]),
        ({"training": 5}, ["training"]),
        ({"scorer": {"width": 10, "heads": 4}}, ["width 10", "heads 4"]),
        ({"scorer": {"layers": 0}}, ["layers"]),
        ({"split": {"train": 0.9}}, ["split", "sum to 1"]),
        ({"split": {"train": 1.2, "test": -0.4}}, ["split"]),
        ({"metric": {"gain": "cubic"}}, ["gain", "'cubic'"]),
        ({"metric": {"k": 0}}, ["k"]),
        ({"objectives": []}, ["objectives"]),
        ({"objectives": "clicks"}, ["objectives"]),
        ({"objectives": [{"column": "3"}]}, ["objectives.0", "name"]),
        ({"objectives": [{"name": "a", "weight": 3}]}, ["weight", "not a setting"]),
        ({"objectives": [{"name": "a", "colum": 3}]}, ["objectives.0.colum", "did you mean objectives.0.column?"]),
        ({"objectives": [{"name": "a"}, {"name": "a"}]}, ["'a'", "more than once"]),
        ({"objectives": [{"name": "relevance"}]}, ["'relevance'", "more than once"]),
        ({"objectives": [{"name": "a", "target": "l2"}]}, ["target", "'l2'"]),
        ({"parametrization": "mixture of things"}, ["parametrization"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"split": {"seed": -1}}, ["seed", "-1"]),
        ({"scorer": {"feedforward": 0}}, ["feedforward"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_setting_that_cannot_be_is_refused_by_name(overrides, words):
    message = refusal(lambda: build_config(preset="mslr", overrides=overrides))
    assert all(word in message for word in words), message


def test_no_objectives_at_all_are_refused():
    assert "--objectives" in refusal(lambda: build_config())


# --- which objectives


def test_objectives_alone_are_columns_with_the_defaults():
    config = build_config(objectives=["clicks", "quality"])
    assert [(o.name, o.column, o.target) for o in config.objectives] == [
        ("clicks", "clicks", None),
        ("quality", "quality", None),
    ]


def test_chosen_objectives_come_in_the_order_given():
    assert build_config(preset="mslr", objectives=["quality", "url_clicks"]).names == ("quality", "url_clicks")


def test_labels_that_are_left_out_do_not_become_features():
    config = build_config(preset="mslr", objectives=["quality", "url_clicks"])
    assert set(config.excluded_columns) == {"134", "136", "133"}


def test_a_label_that_is_left_out_is_no_feature_of_the_fit():
    settings = {"objectives": [{"name": "a", "target": "l1"}, {"name": "b"}]}
    config = build_config(overrides=settings, objectives=["b"])
    assert choose_features(toy_table(3), config).columns == tuple(f"f{i}" for i in range(6))


def test_an_unknown_objective_is_refused_with_the_known_ones():
    message = refusal(lambda: build_config(preset="mslr", objectives=["clicks"]))
    assert "'clicks'" in message
    assert "url_dwell_time" in message


def test_a_vector_alpha_has_one_number_per_chosen_objective():
    chosen, overrides = ["quality", "url_clicks"], {"training": {"alpha": [1, 2], "epochs": 3}}
    config = build_config(preset="mslr", objectives=chosen, overrides=overrides)
    assert (config.training.alpha, config.training.epochs) == ((1, 2), 3)
    assert set(config.excluded_columns) == {"134", "136", "133"}
    message = refusal(lambda: build_config(preset="mslr", objectives=["quality"], overrides=overrides))
    assert "alpha" in message
    assert "1 number" in message


# --- there and back


def through_json(config: RankConfig) -> RankConfig:
    return parse_config(json.loads(json.dumps(config.to_dict(), allow_nan=False)), "config.json")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_survives_json(preset):
    config = build_config(
        preset=preset, objectives=["quality", "url_clicks"], overrides={"training": {"alpha": [1, 2]}}
    )
    assert through_json(config) == config


def test_a_configuration_without_main_label_survives_json():
    config = build_config(preset="mslr", overrides={"main": None})
    assert config.main is None
    assert through_json(config) == config


def test_a_fitted_configuration_survives_json():
    config = build_config(preset="mslr_inverted_quality")
    values = np.array([0.1, 7.7, 254.0], dtype=np.float32)
    config = replace(config, objectives=tuple(o.fitted(values) for o in config.objectives))
    assert through_json(config) == config

"""Settings of the align commands: files and overrides, defaults, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import is_one_line

from hyperdpo.alignment.settings import BETA, SEED, AlignSettings, settings_of
from hyperdpo.alignment.training_config import HyperDPOConfig
from hyperdpo.errors import InputError


def test_sections_of_a_file_and_overrides_are_merged_at_every_depth(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "training: {learning_rate: 1e-3, lr_scheduler_kwargs: {num_cycles: 2, power: 3}}\n"
        "conditioning: {lora_rank: 2, prompt_tokens: 3}\nsplit: {seed: 4}\nignore_columns: a,b\n"
    )
    over = {"training": {"lr_scheduler_kwargs": {"power": 1}}, "conditioning": {"lora_rank": 5}, "texts": {"tokens": 9}}
    found = settings_of(path, over)
    assert found.training == {"learning_rate": "1e-3", "lr_scheduler_kwargs": {"num_cycles": 2, "power": 1}}
    conditioning = found.conditioned(["a", "b"])
    assert (conditioning.lora_rank, conditioning.prompt_tokens, conditioning.gate_hidden) == (5, 3, 0)
    assert (found.split.seed, found.split.parts, found.texts.tokens) == (4, (0.8, 0.0, 0.2), 9)
    assert found.ignore_columns == ("a", "b")


def test_objectives_have_the_trainings_beta_unless_they_bring_their_own() -> None:
    over: dict[str, Any] = {"objectives": [{"name": "a"}, {"name": "b", "beta": 2}]}
    assert [one.beta for one in settings_of(None, over).objectives or ()] == [BETA, 2]
    over["training"] = {"beta": 0.5}
    assert [one.beta for one in settings_of(None, over).objectives or ()] == [0.5, 2]


def test_the_trainer_and_the_commands_have_the_same_defaults(tmp_path: Path) -> None:
    args = HyperDPOConfig(str(tmp_path), report_to=[])
    assert (args.beta, args.seed) == (BETA, SEED) == (AlignSettings().beta, 42)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"colour": 1}, "--set: colour is not a setting; see docs/settings.md for the settings"),
        ({"trainin": {}}, "--set: trainin is not a setting; did you mean training?"),
        ({"training": 3}, "--set: training is 3; expected a mapping of names to settings such as {name: value}"),
        ({"training": {"beta": True}}, "training.beta is True; expected a number above 0"),
        (
            {"conditioning": {"lora_rnk": 1}},
            "conditioning.lora_rnk is not a setting; did you mean conditioning.lora_rank?",
        ),
        ({"conditioning": {"mask_start": "two"}}, "conditioning.mask_start is 'two'; expected one or random"),
        ({"objectives": {"name": "a"}}, "--set: objectives is {'name': 'a'}; expected a list of settings"),
        (
            {"objectives": [{"name": "a", "bta": 1}]},
            "objectives.0.bta is not a setting; did you mean objectives.0.beta?",
        ),
        ({"split": {"train": 0.9}}, "--set: split: the parts are (0.9, 0.0, 0.2); expected numbers"),
        ({"split": {"seed": -1}}, "--set: split.seed is -1; expected an integer of at least 0, or null"),
        ({"format": "csv"}, "--set: format is 'csv'; expected auto, groups,"),
        ({"skip_invalid": 3}, "--set: skip_invalid is 3; expected true or false"),
        ({"prompt_column": "a", "ignore_columns": ["a"]}, "column 'a' is both the prompt and ignored"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_path(over: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        settings_of(None, over).beta  # noqa: B018
    assert is_one_line(error.value, message)

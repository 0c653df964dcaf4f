"""What a training of a language model says where there is no terminal."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_base
from toy_preferences import rows, words_tokenizer

from hyperdpo import progress
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.reporting import announce, report_steps
from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.alignment.training_config import HyperDPOConfig


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 6 seconds whenever somebody looks at it; no terminal."""
    now = iter(range(0, 10**9, 6))
    monkeypatch.setattr(progress, "clock", lambda: float(next(now)))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)


class SlowBase(HyperDPOTrainer):
    """Scoring the base took 100 seconds."""

    def score_base(self) -> None:
        super().score_base()
        self.base_seconds = 100.0


def trainer(out: Path, kind: type[HyperDPOTrainer] = HyperDPOTrainer, **settings: Any) -> HyperDPOTrainer:
    args = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "num_train_epochs": 2}
    args |= {"per_device_train_batch_size": 4, "logging_steps": 5}
    sizes: dict[str, Any] = {"prompt_tokens": 2, "prompt_hidden": 4, "gate_hidden": 4}
    conditioning = ConditioningConfig(("low", "high"), **sizes)
    config = HyperDPOConfig(str(out), **{**args, **settings})
    return kind(tiny_base(), config, rows(42), rows(5), words_tokenizer(), conditioning=conditioning)


@pytest.mark.parametrize(
    ("settings", "steps", "groups"),
    [
        ({}, 22, 4),
        ({"gradient_accumulation_steps": 3}, 8, 12),
        ({"max_steps": 7}, 7, 4),
        ({"dataloader_drop_last": True}, 20, 4),
        ({"per_device_train_batch_size": 100, "num_train_epochs": 0.5}, 1, 42),
    ],
)
def test_before_it_starts_it_says_what_it_will_do(tmp_path, capsys, settings, steps, groups):
    job = trainer(tmp_path, **settings)
    announce(job)
    said = capsys.readouterr().err
    written = "1 step" if steps == 1 else f"{steps} steps"
    assert said == (f"hyperdpo: base scores of 141 responses in 47 groups, then {written} of {groups} groups\n")
    job.train()
    assert job.state.global_step == steps


def test_steps_and_base_scores_are_told_line_by_line_with_the_time_left(tmp_path, capsys, ticking):
    job = trainer(tmp_path)
    report_steps(job, "train")
    job.train()
    found = capsys.readouterr()
    lines = [line for line in found.err.splitlines() if line.startswith("hyperdpo: train: ")]
    assert re.fullmatch(r"hyperdpo: train: \d+ of 22 steps \(\d+%\), 0.167 steps/s, about .* left", lines[0])
    assert any(re.search(r"loss \d", line) for line in lines)
    assert re.match("hyperdpo: train: done in", lines[-1])
    assert 4 <= len(lines) <= 8
    assert "'loss'" not in found.out, "the trainer's own prints are left out"


def test_the_time_of_the_base_scores_is_an_estimate_of_the_steps(tmp_path, capsys):
    job = trainer(tmp_path, SlowBase)
    report_steps(job, "train")
    job.train()
    assert "hyperdpo: train: 22 steps, about 10 min 00 s" in capsys.readouterr().err


def test_a_training_that_is_not_to_report_says_nothing(tmp_path, capsys, ticking):
    job = trainer(tmp_path)
    for group in range(len(job.train_groups)):
        assert job.train_groups[group].reference_logps is None
    report_steps(job, "train", show=False)
    job.train()
    assert "hyperdpo: train" not in capsys.readouterr().err

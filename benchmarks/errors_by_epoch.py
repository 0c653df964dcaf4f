"""Held-out cross-entropy errors after each epoch of one training: for the choice of learning rate and epochs.

    hyperdpo experiment real --model DIR --out OUT      # stop it once OUT/data/answers-*/train.jsonl is there
    python benchmarks/errors_by_epoch.py OUT/data/answers-*/train.jsonl --model DIR --weights 1,0 \\
        --set training.learning_rate=1e-3 --set training.num_train_epochs=3

A part of the prompts (--held-out, by a split of seed 0) is measured and not trained on. With --weights it trains plain
LoRA for one w, without, an adapter for all w, which is measured at both ends and in the middle.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from transformers import TrainerCallback

from hyperdpo.alignment.bases import attending_by, load_base, tokenizer_of
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import fit_objectives
from hyperdpo.alignment.model import ConditionedLM, ConditioningConfig
from hyperdpo.alignment.settings import TRAINING, settings_of
from hyperdpo.alignment.sources import objectives_of
from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.alignment.training_config import training_arguments
from hyperdpo.comparison.entries import PLAIN
from hyperdpo.experiments.real import SETTINGS
from hyperdpo.options import overrides_of
from hyperdpo.validation import merged


@click.command(help=__doc__)
@click.argument("data", type=Path)
@click.option("--model", required=True)
@click.option("--objectives", default="sentiment,plain_words", show_default=True)
@click.option("--weights", help="One w, such as 1,0; without it, an adapter for all w.")
@click.option("--held-out", default=0.2, show_default=True, help="Share of the prompts.")
@click.option("--set", "asked", multiple=True, callback=overrides_of, help="Beside the settings of `experiment real`.")
def main(
    data: Path, model: str, objectives: str, weights: str | None, held_out: float, asked: Mapping[str, Any]
) -> None:
    chosen = {name: SETTINGS[name] for name in ("objectives", "training")}
    eager = {"model_settings": {"training_attention": "eager"}}
    settings, names = settings_of(None, merged(merged(chosen, eager), asked)), objectives.split(",")
    parts = read_preferences(data).split((1 - held_out, 0.0, held_out), 0)
    fitted = fit_objectives(parts["train"], objectives_of(settings, names, parts["train"]))
    fixed = [float(part) for part in weights.split(",")] if weights else None
    config = ConditioningConfig(tuple(names), **{**settings.conditioning, **(PLAIN["conditioning"] if fixed else {})})
    base = load_base(model, **settings.model_settings.arguments())
    with tempfile.TemporaryDirectory() as scratch:
        quiet = {
            "report_to": [],
            "save_strategy": "no",
            "logging_strategy": "no",
            "use_cpu": True,
            "weights": fixed,
            "disable_tqdm": True,
        }
        trainer = HyperDPOTrainer(
            ConditionedLM.create(base, config),
            training_arguments(Path(scratch), {**TRAINING, **settings.training, **quiet}),
            parts["train"],
            parts["test"],
            processing_class=tokenizer_of(model),
            objectives=fitted,
        )
        trainer.add_callback(Errors(trainer, fixed))
        with attending_by(settings.model_settings.training_attention, base):
            trainer.score_base()
            trainer.train()


class Errors(TrainerCallback):
    """Prints the held-out errors at the start and after each epoch."""

    def __init__(self, trainer: HyperDPOTrainer, fixed: list[float] | None):
        m = len(trainer.objectives)
        # A model for one w says the same at all of them.
        self.grid = np.array([fixed]) if fixed else np.vstack([np.eye(m), np.full((1, m), 1 / m)])
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **more: Any) -> None:
        self.show(0)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.show(state.epoch)

    def show(self, epoch: float) -> None:
        front = self.trainer.front(weights=self.grid)
        for w, losses, spread in zip(self.grid, front.losses, front.deviations, strict=True):
            errors = ", ".join(f"{o.name} {loss:.4f}" for o, loss in zip(self.trainer.objectives, losses, strict=True))
            print(
                f"epoch {epoch:.0f}, w {np.round(w, 3).tolist()}: {errors}; s - s_base from {spread[0]:.2f} to "
                f"{spread[2]:.2f} (quartiles); {time.process_time():.0f} s of processor time",
                flush=True,
            )


if __name__ == "__main__":
    main()

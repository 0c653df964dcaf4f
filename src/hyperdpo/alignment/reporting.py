"""How a training of a language model tells how far it is: a bar on a terminal, lines where there is none."""

from __future__ import annotations

import math
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from hyperdpo.alignment.trainer import HyperDPOTrainer
from hyperdpo.errors import counted
from hyperdpo.progress import EVERY, ProgressLines, duration, on_terminal, tell

#: A step computes gradients, too: so many times the work of scoring its groups with the base.
STEP_COST = 3.0


def report_steps(trainer: HyperDPOTrainer, name: str, *, show: bool = True) -> None:
    """Leave the trainer's own prints out: a table says it at the end, and the history is kept.

    Args:
        name: of the training, for the lines.
        show: False: nothing at all.
    """
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_Bar())
    if show and not on_terminal():
        trainer.add_callback(StepLines(name, trainer))


def announce(trainer: HyperDPOTrainer) -> None:
    """Say on standard error what a training is about to do: base scores of so many responses, so many steps."""
    args, groups = trainer.args, trainer.train_groups
    sets = [groups, *trainer.eval_sets.values()]
    responses = sum(len(group.completion_ids) for one in sets for group in one)
    batch = trainer.args.train_batch_size * args.world_size
    batches = len(groups) // batch if args.dataloader_drop_last else math.ceil(len(groups) / batch)
    updates = max(math.ceil(batches / args.gradient_accumulation_steps), 1)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * updates)
    size = min(batch * args.gradient_accumulation_steps, len(groups))
    tell(
        f"base scores of {counted(responses, 'response')} in {counted(sum(map(len, sets)), 'group')}, then "
        f"{counted(steps, 'step')} of {counted(size, 'group')}"
    )


class _Bar(ProgressCallback):
    """The trainer's bar with the loss beside it, instead of a dictionary on standard output for each log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):#.4g}")


class StepLines(TrainerCallback):
    """Lines with steps done, rate and time left, see :class:`~hyperdpo.progress.ProgressLines`.

    Before the first step the time is estimated from that of the base scores, if they were computed just now.
    """

    def __init__(self, name: str, trainer: HyperDPOTrainer):
        self.name, self.trainer = name, trainer
        self._lines: ProgressLines | None = None
        self._loss = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        left = state.max_steps - state.global_step
        epochs = state.num_train_epochs * left / max(state.max_steps, 1)
        guess = STEP_COST * self.trainer.base_seconds * epochs
        if guess > EVERY:
            tell(f"{self.name}: {counted(left, 'step')}, about {duration(guess)}")
        self._lines = ProgressLines(self.name, state.max_steps, "steps")
        self._lines(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):
            self._loss = f"loss {float(logs['loss']):#.4g}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._lines is not None:
            self._lines(state.global_step, self._loss)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._lines is not None:
            self._lines.end()

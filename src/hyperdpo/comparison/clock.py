"""How long a training takes, interruptions left out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from hyperdpo.files import read_json, write_json
from hyperdpo.validation import NonNegativeFloat, checked


class Clock(TrainerCallback):
    """Seconds of a training, those before an interruption included: they are kept beside each checkpoint.

    Seconds of the processor, of all threads of this process, do not depend on what else runs on the machine.

    Args:
        checkpoint: from which the training goes on.
    """

    NAME = "seconds.json"

    def __init__(self, checkpoint: str | None) -> None:
        kept = None if checkpoint is None else Path(checkpoint) / self.NAME
        self._before = {} if kept is None or not kept.exists() else _seconds(kept)
        self._started = self._now()
        self._ended: dict[str, float] | None = None

    @staticmethod
    def _now() -> dict[str, float]:
        return {"seconds": time.monotonic(), "processor_seconds": time.process_time()}

    @property
    def told(self) -> dict[str, float]:
        """``seconds`` and ``processor_seconds``, so far or in all."""
        now = self._now() if self._ended is None else self._ended
        return {name: self._before.get(name, 0.0) + now[name] - self._started[name] for name in now}

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._started = self._now()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if directory.is_dir():
            write_json(directory / self.NAME, self.told, sealed=True)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._ended = self._now()


def _seconds(path: Path) -> dict[str, float]:
    """What was kept before an interruption; older versions wrote the number alone."""
    found = read_json(path, remedy="delete it: the seconds before the interruption are then not counted")
    values = found if isinstance(found, dict) else {"seconds": found}
    names = ("seconds", *(name for name in ("processor_seconds",) if name in values))
    return {name: float(checked(NonNegativeFloat, values.get(name), f"{path}: {name}")) for name in names}

"""What the page of a language model shows, without the page: answers while they are written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.sampling import new_texts
from hyperdpo.choosing.language import align_effort, align_sample
from hyperdpo.core.point import Point
from hyperdpo.errors import InputError
from hyperdpo.explorer.state import Explorer

#: The most prompts of the data that are offered as examples.
MOST_PROMPTS = 200
#: One model works at a time: a batch fills the machine, and sampling has one random state.
_WORKING = threading.Lock()

#: Called with the texts so far, one for each answer, from the thread that generates.
Tell = Callable[[list[str]], None]


class AlignExplorer(Explorer):
    """A language model. Its metrics are each objective's cross-entropy error, and the accuracy of pairs.

    Args:
        path: the run, as the user named it.
        preferences: the groups of one split; None: no metrics.
        split: what the groups are called.
    """

    def __init__(
        self, run: AlignRun, path: Path, preferences: Preferences | None, split: str = "", *, device: str = "cpu"
    ):
        run.model.to(device)
        sample = None if preferences is None else align_sample(run, preferences, device=device, show=True)
        weightings = align_effort(run, None).points or 1
        super().__init__(path, run.names, [o.beta for o in run.objectives], sample, split, weightings, _WORKING)
        self.run = run
        self.base_note = run.base_note
        self.prompts = [] if preferences is None else example_prompts(preferences)
        self.groups = 0 if preferences is None else len(preferences)

    def starts(self, columns: int) -> list[Point]:
        """Ends of the front, then the middle: points that answer differently."""
        m = len(self.objectives)
        weights = [*np.eye(m).tolist(), [1 / m] * m]
        scales = [1.0] * len(weights) if m > 1 else [1.0, 5.0]
        chosen = zip(weights * columns, scales * columns, strict=False)
        return [Point(tuple(w), c, self.betas) for w, c in list(chosen)[:columns]]

    def answers(
        self, prompt: str, points: Sequence[Point], tell: Tell, stop: threading.Event, **settings: Any
    ) -> list[str]:
        """Continue a prompt at several points, in one batch.

        Args:
            tell: called after every token, and at the end with what is returned.
            stop: set to end early.
            settings: settings of :meth:`AlignRun.generate`.

        Returns:
            The texts, as :meth:`AlignRun.generate` returns them.

        Raises:
            InputError: an empty prompt, or one that is too long for the model.
        """
        if not prompt.strip():
            raise InputError("prompt: found an empty one; expected a text")
        with _WORKING:
            texts = self.run.generate(
                [prompt] * len(points),
                np.array([p.weights for p in points]),
                [p.scale for p in points],
                streamer=_Rows(self.run.tokenizer, len(points), tell),
                stopping_criteria=StoppingCriteriaList([_Stopped(stop)]),
                **settings,
            )
        tell(texts)
        return texts


class _Rows(BaseStreamer):
    """Gets a token of each row at every step; transformers' own streamers take one row only."""

    def __init__(self, tokenizer: Any, rows: int, tell: Tell):
        self._tokenizer, self._tell = tokenizer, tell
        self._prompts: list[list[int]] = []
        self._ids: list[list[int]] = [[] for _ in range(rows)]

    def put(self, value: Tensor) -> None:
        """The prompts (B, T) first, then tokens (B,)."""
        if not self._prompts:
            self._prompts = value.tolist()
            return
        for ids, token in zip(self._ids, value.reshape(-1).tolist(), strict=True):
            ids.append(int(token))
        rows = [prompt + ids for prompt, ids in zip(self._prompts, self._ids, strict=True)]
        texts = new_texts(self._tokenizer, self._prompts, rows)
        self._tell([text.rstrip("\ufffd") for text in texts])  # the first bytes of a letter

    def end(self) -> None:
        """Nothing is held back."""


class _Stopped(StoppingCriteria):
    def __init__(self, stop: threading.Event):
        self._stop = stop

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((len(input_ids),), self._stop.is_set(), dtype=torch.bool, device=input_ids.device)


def example_prompts(preferences: Preferences) -> list[str]:
    """The first prompts of the data, each once; conversations of several messages are left out."""
    found: dict[str, None] = {}
    for group in preferences.groups:
        prompt = group.prompt
        if not isinstance(prompt, str):
            if len(prompt) != 1:
                continue
            prompt = str(prompt[0].get("content", ""))
        if prompt.strip():
            found.setdefault(prompt)
        if len(found) == MOST_PROMPTS:
            break
    return list(found)

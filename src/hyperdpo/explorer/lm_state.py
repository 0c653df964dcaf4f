"""What the page of a language model shows, without the page: answers as they are written, metrics, the front."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.sampling import new_texts
from hyperdpo.choosing.choice import Sample
from hyperdpo.choosing.language import align_effort, align_sample
from hyperdpo.core.point import Point
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.explorer.front import Front
from hyperdpo.explorer.point import curve

#: Prompts of the data that are offered as examples.
MOST_PROMPTS = 200
#: One model works at a time: a batch fills the machine, and sampling has one random state.
_WORKING = threading.Lock()

#: Called with the texts so far, one for each answer, from the thread that generates.
Tell = Callable[[list[str]], None]


class AlignExplorer:
    """A language model, and the groups that its front is measured on, if any; safe to use from several threads.

    Args:
        path: of the run, as the user named it.
        preferences: of one split; None: no metrics.
        split: what the groups are called.
    """

    def __init__(
        self, run: AlignRun, path: Path, preferences: Preferences | None, split: str = "", *, device: str = "cpu"
    ):
        self.run, self.path, self.split = run, path, split
        run.model.to(device)
        self.objectives = run.names
        self.betas = tuple(o.beta for o in run.objectives)
        self._sample: Sample | None = None
        self.prompts: list[str] = []
        self.groups = 0
        if preferences is not None:
            self._sample = align_sample(run, preferences, device=device, show=True)
            self.prompts = example_prompts(preferences)
            self.groups = len(preferences)

    @property
    def measured(self) -> bool:
        """Whether there are data to measure on."""
        return self._sample is not None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The K names: each objective's cross-entropy error, and the accuracy of pairs."""
        return self.sample.names

    @property
    def sample(self) -> Sample:
        """What is measured on.

        Raises:
            InputError: there are no data.
        """
        if self._sample is None:
            raise InputError("no data; expected DATA, to measure on")
        return self._sample

    def starts(self, columns: int) -> list[Point]:
        """Ends of the front, then the middle: points that answer differently."""
        m = len(self.objectives)
        weights = [*np.eye(m).tolist(), [1 / m] * m]
        scales = [1.0] * len(weights) if m > 1 else [1.0, 5.0]
        chosen = zip(weights * columns, scales * columns, strict=False)
        return [Point(tuple(w), c, self.betas) for w, c in list(chosen)[:columns]]

    def front(self) -> Front:
        """At scale 1, over a grid of weights: one pass over the texts for each."""
        points = align_effort(self.run, None).points or 1
        grid = weight_grid(len(self.objectives), max(points, len(self.objectives)))
        chosen = [Point(tuple(w), 1.0, self.betas) for w in grid.tolist()]
        return Front(str(self.path), tuple(chosen), self._mean(np.array([p.row() for p in chosen])), self.base())

    def base(self) -> np.ndarray:
        """(K,) of the base."""
        return np.asarray(self.sample.base.sum(-1) / np.maximum(self.sample.counts.sum(-1), 1))

    def here(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """(K,) metrics at a point on all groups; (C + 1, K) on the way from there to the base, at growing scales."""
        found = self._mean(curve(point))
        return found[0], np.concatenate([found[1:], self.base()[None]])

    def _mean(self, rows: np.ndarray) -> np.ndarray:
        with _WORKING:
            sums = self.sample.measure(rows)
        return np.asarray(sums.sum(-1) / np.maximum(self.sample.counts.sum(-1), 1))

    def answers(
        self, prompt: str, points: Sequence[Point], tell: Tell, stop: threading.Event, **settings: Any
    ) -> list[str]:
        """Continue a prompt at several points, in one batch.

        Args:
            tell: called after every token, and at the end with what is returned.
            stop: set to end early.
            settings: of :meth:`AlignRun.generate`.

        Returns:
            The texts, as :meth:`AlignRun.generate` gives them.

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
    """Sees a token of each row at every step; transformers' own streamers take one row only."""

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
        import torch

        return torch.full((len(input_ids),), self._stop.is_set(), dtype=torch.bool, device=input_ids.device)


def example_prompts(preferences: Preferences) -> list[str]:
    """The first prompts of the data, each once; of conversations, those of a single message."""
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

"""Scores of texts, by objective: from text measures, from a classifier or reward model, or from your own function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from hyperdpo.errors import InputError
from hyperdpo.stories.text_measures import MEASURES, measure_texts

#: N prompts and N continuations -> (N, m) scores, one column per objective. More is better, except for objectives that
#: are minimised.
Scorer = Callable[[Sequence[str], Sequence[str]], np.ndarray]


def text_measures(columns: Sequence[str]) -> Scorer:
    """The scorer whose columns are text measures of these names.

    Raises:
        InputError: a name that no measure has.
    """
    names = tuple(columns)
    measure_texts([], names)

    def score(_: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        found = measure_texts(texts, names)
        return np.stack([np.asarray(found[name], dtype=np.float64) for name in names], 1)

    return score


def classifiers(paths: Sequence[str], label: int = -1, *, batch_size: int = 32, device: str = "cpu") -> Scorer:
    """The scorer whose columns are sequence classifiers or reward models, one per objective.

    Args:
        paths: transformers checkpoints with a sequence classification head; the text is the prompt with its
            continuation.
        label: which logit counts, where a model has several; the last by default.

    Raises:
        InputError: a model that cannot be loaded.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    models = []
    for path in paths:
        try:
            model = AutoModelForSequenceClassification.from_pretrained(path).eval().to(device)
            models.append((model, AutoTokenizer.from_pretrained(path)))
        except (OSError, ValueError) as error:
            raise InputError(f"classifier {path}: cannot be loaded ({str(error).splitlines()[0]})") from None

    @torch.inference_mode()
    def score(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        both = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
        columns = []
        for model, tokenizer in models:
            parts = []
            for first in range(0, len(both), batch_size):
                some = both[first : first + batch_size]
                inputs = tokenizer(some, return_tensors="pt", padding=True, truncation=True).to(device)
                parts.append(model(**inputs).logits[:, label].float().cpu().numpy())
            columns.append(np.concatenate(parts))
        return np.stack(columns, 1).astype(np.float64)

    return score


def scorer_of(name: str | None, columns: Sequence[str]) -> tuple[str, Scorer] | None:
    """The scorer of ``--scorer``.

    Args:
        name: ``package.module:function`` or ``classifiers:PATH,PATH``; None: text measures, if every objective is one.
        columns: the columns of the objectives.

    Returns:
        Its name and the scorer; None if there is none.

    Raises:
        InputError: nothing of that name.
    """
    if name is None:
        known = all(column in MEASURES for column in columns)
        return ("text measures", text_measures(columns)) if known else None
    module, colon, function = name.partition(":")
    if not colon or not function:
        raise InputError(f"--scorer: found {name!r}; expected package.module:function, or classifiers:PATH,PATH")
    if module == "classifiers":
        paths = function.split(",")
        if len(paths) != len(columns):
            raise InputError(f"--scorer: found {len(paths)} classifiers; expected {len(columns)}, one per objective")
        return name, classifiers(paths)
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"--scorer {name}: {error}; expected a function that can be imported") from None
    return name, found

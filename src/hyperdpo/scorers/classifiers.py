"""Scores by sequence classifiers and reward models of transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyperdpo.errors import InputError
from hyperdpo.scorers.scorer import Scorer


def classifiers(paths: Sequence[str], label: int = -1, *, batch_size: int = 32, device: str = "cpu") -> Scorer:
    """The scorer whose columns are sequence classifiers or reward models, one per objective.

    Args:
        paths: transformers checkpoints with a sequence classification head; the text is the prompt with its
            continuation.
        label: which logit counts, where a model has several; the last by default.

    Raises:
        InputError: a model that cannot be loaded.
    """
    import torch
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

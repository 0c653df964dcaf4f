"""Toy preferences between texts of a few words, and a tokenizer for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import transformers
from tiny_models import VOCABULARY, randomise, tiny_base

from hyperdpo.alignment.data.preferences import read_preferences, write_preferences
from hyperdpo.alignment.run import AlignRun
from hyperdpo.cli import main


def words_tokenizer() -> Any:
    """One token for each of the words w3, w4, ...; ``<s>`` is not put before a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, VOCABULARY))]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=60
    )


def text(rng: np.random.Generator, low: int, high: int) -> str:
    return " ".join(f"w{i}" for i in rng.integers(3, VOCABULARY, rng.integers(low, high)))


def rows(groups: int = 12, responses: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """Responses scored for two objectives that pull apart: many words with a low number, or few."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(groups):
        completions = [" " + text(rng, 3, 8) for _ in range(responses)]
        low = [float(np.mean([int(w[1:]) < 26 for w in c.split()])) for c in completions]
        found.append(
            {
                "prompt": text(rng, 2, 5),
                "completions": completions,
                "labels": {"low": low, "high": [1 - x for x in low]},
            }
        )
    return found


def portable_place(out: Path) -> Path:
    """:func:`toy_place`, with a run of ``align fit --portable`` in ``run``, whose adapter has large values."""
    place = toy_place(out)
    fit = ["align", "fit", place / "data.jsonl", "--model", place / "model", "--out", place / "run", "--portable"]
    options = ["--cpu", "--epochs", "1", "--set", "training.per_device_train_batch_size=16"]
    assert main([str(one) for one in (*fit, *options)]) == 0
    run = AlignRun.load(place / "run")
    randomise(run.model)
    run.save(place / "run")
    return place


def toy_place(out: Path) -> Path:
    """A directory with a model, its tokenizer, and preferences in ``data.jsonl``."""
    tiny_base().save_pretrained(out / "model")
    words_tokenizer().save_pretrained(out / "model")
    write_preferences(read_preferences(rows(20)), out / "data.jsonl")
    return out

"""A model with its tokenizer, and preferences, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import tiny_base
from toy_preferences import rows, words_tokenizer

from hyperdpo.alignment.data.preferences import read_preferences, write_preferences


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its tokenizer, and preferences."""
    out = tmp_path_factory.mktemp("align")
    tiny_base().save_pretrained(out / "model")
    words_tokenizer().save_pretrained(out / "model")
    write_preferences(read_preferences(rows(20)), out / "data.jsonl")
    return out

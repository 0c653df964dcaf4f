"""A model with its tokenizer, and preferences, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_preferences import toy_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its tokenizer, and preferences."""
    return toy_place(tmp_path_factory.mktemp("align"))

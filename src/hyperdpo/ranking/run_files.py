"""The files of a run directory: their names, and what they hold."""

from __future__ import annotations

from pathlib import Path

from hyperdpo.files import named_inside

CONFIG, MODEL, BASE_SCORES, TREES = "config.json", "model.safetensors", "base_scores", "trees"


def scores_file(run: Path, fingerprint: str, source: str) -> Path:
    """Where a run keeps its base scores of a table.

    Args:
        fingerprint: of the table, which is the file's name.
        source: where the table came from, for the message.

    Raises:
        InputError: a fingerprint that is no file name, and so none that this package made.
    """
    return named_inside(run / BASE_SCORES, f"{fingerprint}.safetensors", f"{source}: its fingerprint")

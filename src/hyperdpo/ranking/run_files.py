"""The files of a run directory: their names, what they hold, and the base scores that are kept there."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from hyperdpo._version import __version__
from hyperdpo.checksums import named_inside
from hyperdpo.errors import InputError
from hyperdpo.files import read_tensors, write_tensors

if TYPE_CHECKING:
    import numpy as np

#: Raised whenever runs hold something that an older version would not understand.
FORMAT_VERSION = 4
#: Versions that are read: 2 knows neither missing values nor origins of features, 2 and 3 have no checksums.
READABLE_VERSIONS = (2, 3, FORMAT_VERSION)
#: The first version that always has checksums.
CHECKED_FROM = 4

CONFIG, MODEL, BASE_SCORES, TREES = "config.json", "model.safetensors", "base_scores", "trees"


def keep_scores(run: Path, fingerprint: str, scores: np.ndarray) -> None:
    """Keep (N,) base scores of a table.

    Args:
        fingerprint: of the table, which is the file's name.

    Raises:
        InputError: the file cannot be written.
    """
    import torch

    write_tensors(_scores_file(run, fingerprint), {"scores": torch.from_numpy(scores)})


def kept_scores(run: Path, fingerprint: str) -> np.ndarray | None:
    """The (N,) base scores of a table that are kept; None where there are none.

    Args:
        fingerprint: of the table.

    Raises:
        InputError: the file is damaged.
    """
    path = _scores_file(run, fingerprint)
    if not path.is_file():
        return None
    tensors, _ = read_tensors(path, remedy="delete it: the scores are then computed again")
    if "scores" not in tensors:
        raise InputError(f"{path}: no scores in it; delete it: the scores are then computed again")
    scores: np.ndarray = tensors["scores"].numpy()
    return scores


def _scores_file(run: Path, fingerprint: str) -> Path:
    return named_inside(run / BASE_SCORES, f"{fingerprint}.safetensors", "fingerprint of a table")


def versions() -> dict[str, str]:
    """The versions that a figure depends on."""
    import torch

    packages = {name: version(name) for name in ("numpy", "accelerate", "moocore")}
    own = {"hyperdpo": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    return own | packages

"""Base scores: from a base that was trained with the run, from a column, from a file, or from the caller."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.places import row_place
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.errors import InputError, one_line
from hyperdpo.ranking.evaluation import ReduceArray, score_items
from hyperdpo.ranking.examples import Features, Items
from hyperdpo.ranking.parametrizations import Ranker


@dataclass(frozen=True)
class BaseSource:
    """Where base scores come from: a base that was trained with the run, a column of the data, or the caller.

    ``lightgbm`` stands in comparisons alone: each repeat trains a LightGBM model on the main label.
    """

    kind: Literal["trained", "column", "given", "lightgbm"]
    column: str | None = None


def score_all_rows(
    base: Ranker,
    table: GroupedTable,
    transform: FeatureTransform,
    device: torch.device | str = "cpu",
    *,
    share: tuple[int, int] = (0, 1),
    reduce: ReduceArray | None = None,
) -> np.ndarray:
    """(N,) scores of a base on all rows of a table, streamed.

    Args:
        share, reduce: this process's place and number of processes, and the sum over them.
    """
    part = Part.whole(table)
    items = Items(part=part, features=Features(part, transform, 0), base_scores=np.zeros(table.num_rows, np.float32))
    rank, world = share
    return score_items(base, items, None, (), device, batches=items.batches()[rank::world], reduce=reduce)


def base_column(table: GroupedTable, name: str, qid_column: str = "qid") -> np.ndarray:
    """(N,) float32 base scores from a column.

    Args:
        qid_column: as the file was read with, for messages.

    Raises:
        InputError: there is no such column of numbers, or a score is missing.
    """
    scores = table.column(name)
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        place = row_place(table, int(missing[0]), qid_column)
        raise InputError(f"{place}: the base score (column {name!r}) is missing; expected a number on every row")
    return scores


def checked_scores(given: ArrayLike, table: GroupedTable, trained_on: np.ndarray | None = None) -> np.ndarray:
    """(N,) float32 base scores from the caller.

    Args:
        trained_on: (N,) base scores of this table that the run was trained on.

    Raises:
        InputError: not one finite number per row of the table, or others than those of the training.
    """
    scores = np.asarray(given, dtype=np.float32)
    if scores.shape != (table.num_rows,) or not np.isfinite(scores).all():
        raise InputError(
            f"base scores: found shape {scores.shape}, {int((~np.isfinite(scores)).sum())} of them not finite; "
            f"expected ({table.num_rows},) finite numbers, one per row of {table.source}"
        )
    if trained_on is not None and not np.array_equal(scores, trained_on):
        row = int(np.flatnonzero(scores != trained_on)[0])
        raise InputError(
            f"base scores: {scores[row]:g} for row {row + 1} of {table.source}, on which this run was trained with "
            f"{trained_on[row]:g}; expected the scores of the same base, or a run that is fitted on these"
        )
    return scores


def read_scores(path: str | Path) -> np.ndarray:
    """Scores from a file: one number per line, or ``.npy``.

    Returns:
        (N,) float32.

    Raises:
        InputError: the file cannot be read, or a line is not a finite number.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            scores = _array(path)
            if scores.ndim != 1:
                raise InputError(f"{path}: found shape {scores.shape}; expected one score per row")
        else:
            lines = path.read_text(encoding="utf-8").split("\n")
            if lines and not lines[-1].strip():
                lines.pop()
            scores = np.empty(len(lines), dtype=np.float32)
            for number, line in enumerate(lines, 1):
                try:
                    scores[number - 1] = float(line)
                except ValueError:
                    raise InputError(f"{path}:{number}: found {line[:40]!r}; expected one score per line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(f"{path}:{row + 1}: found {scores[row]}; expected a finite score")
    return scores


def _array(path: Path) -> np.ndarray:
    """The numbers of a ``.npy`` file."""
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
    except OSError as error:
        if error.errno is not None:
            raise
        why = one_line(error)
    except Exception as error:  # numpy raises what Python's tokenizer and parser do, and those of archives
        why = one_line(error)
    raise InputError(f"{path}: not an array of numbers ({why}); expected one number per row")

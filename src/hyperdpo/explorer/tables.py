"""The tables of the page as HTML: a ranked list, and metrics of a list and of all groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyperdpo.explorer.rank_state import Row
from hyperdpo.printing import page_of


def list_table(rows: Sequence[Row], names: Sequence[str], minimized: Sequence[bool], caption: str) -> str:
    """A ranked list.

    Args:
        names: the K labels.
        minimized: (K,): less is better.
    """
    return page_of("ranked_list.html", rows=rows, labels=list(zip(names, minimized, strict=True)), caption=caption)


def metric_table(
    names: Sequence[str],
    here: tuple[np.ndarray, np.ndarray],
    whole: tuple[np.ndarray, np.ndarray] | None,
    caption: str,
    pinned: str,
) -> str:
    """Metrics of one list and of all groups, beside those of the pinned point.

    Args:
        names: the K metrics.
        here, whole: (K,) at the point and at the pinned one; ``whole`` is None while it is being measured.
        pinned: what the pinned point is called.
    """
    rows = [(name, _cells(here, k), None if whole is None else _cells(whole, k)) for k, name in enumerate(names)]
    return page_of("metrics.html", rows=rows, caption=caption, pinned=pinned)


def _cells(values: tuple[np.ndarray, np.ndarray], k: int) -> tuple[str, str, str]:
    """Which way metric k went since the pinned point, and its two values."""
    now, pinned = (float(one[k]) for one in values)
    way = "" if np.isnan(now - pinned) or abs(now - pinned) < 5e-5 else "up" if now > pinned else "down"
    return way, number(now), number(pinned)


def number(value: float) -> str:
    """A metric with four decimals; a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:.4f}"

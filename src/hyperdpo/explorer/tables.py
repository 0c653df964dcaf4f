"""The tables of the page as HTML: a ranked list, and metrics of a list and of all groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyperdpo.explorer.rank_state import Row
from hyperdpo.printing import page_of
from hyperdpo.ranking.explanation import Explanation
from hyperdpo.ranking.tables import feature_lines, whole_percent, written_swaps


def list_table(rows: Sequence[Row], names: Sequence[str], minimized: Sequence[bool], caption: str) -> str:
    """A ranked list.

    Args:
        names: the K labels.
        minimized: (K,): less is better.
    """
    return page_of("ranked_list.html", rows=rows, labels=list(zip(names, minimized, strict=True)), caption=caption)


def explanation_table(found: Explanation, document: int) -> str:
    """Why a document is where it is: its score, and its neighbours above and below.

    Args:
        document: its row in DATA, from 1.
    """
    documents = found.to_dict()["documents"]
    here = found.rows.tolist().index(document - 1)
    own = documents[here]
    rows = [{"kind": "sum", "text": "its score", "parts": [whole_percent(p) for p in own["parts"].values()]}]
    for kind, above, text in (
        ("above", here - 1, "the lead of row {} over it"),
        ("below", here, "its lead over row {}"),
    ):
        if not 0 <= above < len(documents) - 1:
            continue
        pair = documents[above]["over_next"]
        other = documents[above]["row"] if kind == "above" else pair["row"]
        parts = [whole_percent(p) for p in pair["parts"].values()]
        told = {"parts": parts, "swaps": written_swaps(pair), "features": feature_lines(pair)}
        rows.append({"kind": kind, "text": text.format(other + 1), **told})
    caption = f"row {document} at place {here + 1}: parts of the sum, and at which weights it swaps with its neighbours"
    if found.trees is not None:
        caption += f"; features in {', '.join(sorted(set(found.trees.spaces.values())))}"
    return page_of("explanation.html", rows=rows, names=found.names, features=found.trees is not None, caption=caption)


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

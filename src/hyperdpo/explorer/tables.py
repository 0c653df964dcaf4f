"""The tables of the page as HTML: a ranked list, and metrics of a list and of all groups."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from hyperdpo.explorer.rank_state import Row


def list_table(rows: Sequence[Row], names: Sequence[str], minimized: Sequence[bool], caption: str) -> str:
    """A ranked list.

    Args:
        names: of the K labels.
        minimized: (K,): less is better.
    """
    labels = "".join(
        f'<th scope="col" class="n">{_breakable(name)}{" ↓" if less else ""}</th>'
        for name, less in zip(names, minimized, strict=True)
    )
    head = f'<th scope="col" class="n">#</th><th scope="col">moved</th><th scope="col" class="n">row</th>{labels}'
    body = "".join(
        f'<tr data-row="{row.document}"><td class="n">{row.place}</td>{_moved(row.moved)}'
        f'<td class="n">{row.document}</td>'
        + "".join(f'<td class="n{"" if value else " zero"}">{value:g}</td>' for value in row.labels)
        + f'<td class="n">{row.score:.4f}</td></tr>'
        for row in rows
    )
    return (
        f'<table class="list"><caption>{escape(caption)}</caption>'
        f'<thead><tr>{head}<th scope="col" class="n">score</th></tr></thead><tbody>{body}</tbody></table>'
    )


def _breakable(name: str) -> str:
    """A name that may go on in the next line after an underscore."""
    return escape(name).replace("_", "_<wbr>")


def _moved(places: int) -> str:
    if not places:
        return "<td></td>"
    way, sign = ("up", "▲") if places > 0 else ("down", "▼")
    return f'<td class="{way}" aria-label="{way} {abs(places)}">{sign} {abs(places)}</td>'


def metric_table(
    names: Sequence[str],
    here: tuple[np.ndarray, np.ndarray],
    whole: tuple[np.ndarray, np.ndarray] | None,
    caption: str,
    pinned: str,
) -> str:
    """Metrics of one list and of all groups, beside those of the pinned point.

    Args:
        names: of the K metrics.
        here, whole: (K,) at the point and at the pinned one; ``whole`` is None while it is being measured.
        pinned: what the pinned point is called.
    """
    rows = "".join(
        f'<tr data-metric="{escape(name, quote=True)}"><th scope="row">{escape(name)}</th>'
        + _cells(here[0][k], here[1][k])
        + ('<td class="n" colspan="2">updating</td>' if whole is None else _cells(whole[0][k], whole[1][k]))
        + "</tr>"
        for k, name in enumerate(names)
    )
    head = f'<th class="n" scope="col">now</th><th class="n" scope="col">{escape(pinned)}</th>'
    return (
        f'<table class="metrics"><caption>{escape(caption)}</caption><thead>'
        '<tr><td></td><th colspan="2" scope="colgroup">this list</th>'
        '<th colspan="2" scope="colgroup">all groups</th></tr>'
        f"<tr><td></td>{head}{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _cells(value: float, pinned: float) -> str:
    difference = value - pinned
    way = "" if np.isnan(difference) or abs(difference) < 5e-5 else " up" if difference > 0 else " down"
    return f'<td class="n{way}">{_number(value)}</td><td class="n">{_number(pinned)}</td>'


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4f}"

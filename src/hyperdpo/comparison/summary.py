"""Every entry measured on every repeat, and the means and standard deviations over the repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from hyperdpo.comparison.entries import Entry
from hyperdpo.comparison.repeats import AlignRepeat, RankRepeat
from hyperdpo.printing import four_digits

#: What is averaged over repeats; each gets a neighbour ``_sd``.
AVERAGED = ("hypervolume", "hypervolume_with_main", "main_mean", "main_sd", "train_seconds", "models", "parameters")

R = TypeVar("R", RankRepeat, AlignRepeat)


class Measurements(Protocol):
    """What one repeat says about the base and about each entry."""

    @property
    def base(self) -> Mapping[str, Any]:
        """The base's metrics."""
        ...

    def measured(self, entry: Entry) -> dict[str, Any]:
        """Front, cost and views of an entry; its trainings are run where they are missing."""
        ...


def measure_all(
    repeats: Sequence[R],
    entries: Sequence[Entry],
    measurements: Callable[[R], Measurements],
    summary: Callable[[Entry, Sequence[Mapping[str, Any]]], dict[str, Any]],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train and measure every entry on every repeat.

    Args:
        measurements: what measures a repeat.
        summary: an entry over all repeats, from what each repeat measured.
        say: called with each line of progress.

    Returns:
        ``methods``, ``base`` and ``repeats`` of ``compare.json``.
    """
    results: dict[str, list[dict[str, Any]]] = {entry.label: [] for entry in entries}
    bases = []
    for number, repeat in enumerate(repeats, 1):
        here = measurements(repeat)
        bases.append(here.base)
        for entry in entries:
            if entry.repeats is not None and number > entry.repeats:
                continue
            result = {"repeat": repeat.name, "seed": repeat.seed} | here.measured(entry)
            results[entry.label].append(result)
            say(f"{repeat.name} ({number} of {len(repeats)}) {entry.label}: {_in_words(result)}")
    return {
        "methods": {entry.label: summary(entry, results[entry.label]) for entry in entries},
        "base": means(bases, *bases[0]),
        "repeats": [{"name": repeat.name, "seed": repeat.seed} | repeat.sizes for repeat in repeats],
    }


def _in_words(result: Mapping[str, Any]) -> str:
    words = [f"hypervolume {four_digits(result['hypervolume'])}"]
    if result["hypervolume_with_main"] is not None:
        words.append(f"with main {four_digits(result['hypervolume_with_main'])}")
    if "generated" in result:
        words.append(f"of texts {four_digits(result['generated']['hypervolume'])}")
    return ", ".join([*words, f"{result['train_seconds']:.1f} s"])


def summary_of(
    entry: Entry,
    seeds: Sequence[Mapping[str, Any]],
    mean_points: Callable[[Sequence[Any]], list[dict[str, Any]]],
    volumes: Sequence[str] = ("hypervolume",),
) -> dict[str, Any]:
    """What the summary of an entry holds for rankers and language models alike.

    Args:
        seeds: what each repeat measured.
        mean_points: averages the points of several fronts.
        volumes: the keys of a view that are averaged, besides its points.
    """
    first = seeds[0]
    result = {name: first[name] for name in ("objectives", "directions", "metric", "reference_point")}
    result |= {"method": entry.method, "settings": dict(entry.overrides), "one_shot": entry.one_shot}
    result |= averages(seeds, *AVERAGED)
    result["points"] = mean_points([seed["points"] for seed in seeds])
    result["views"] = {}
    for name in first["views"]:
        views = [seed["views"][name] for seed in seeds]
        result["views"][name] = {"points": mean_points([view["points"] for view in views])} | averages(views, *volumes)
    result["seeds"] = [dict(seed) for seed in seeds]
    return result


def averages(ones: Sequence[Mapping[str, Any]], *keys: str) -> dict[str, Any]:
    """The mean under each key, and the standard deviation under the key with ``_sd`` at its end.

    A value is a number, None, or a mapping of names to these.
    """
    found: dict[str, Any] = {}
    for key in keys:
        values = [one[key] for one in ones]
        if isinstance(values[0], Mapping):
            both = {name: mean_and_sd([value[name] for value in values]) for name in values[0]}
            found[key], found[f"{key}_sd"] = ({name: pair[k] for name, pair in both.items()} for k in (0, 1))
        else:
            found[key], found[f"{key}_sd"] = mean_and_sd(values)
    return found


def means(ones: Sequence[Mapping[str, Any]], *keys: str) -> dict[str, Any]:
    """The mean under each key: of numbers, of lists one by one, or of mappings name by name."""
    return {key: _mean([one[key] for one in ones]) for key in keys}


def _mean(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return means(values, *first)
    return [_mean(ones) for ones in zip(*values, strict=True)] if isinstance(first, list) else mean_and_sd(values)[0]


def mean_and_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (of n - 1; None for one repeat); None where a repeat has no value."""
    if any(value is None for value in values):
        return None, None
    array = np.array(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None

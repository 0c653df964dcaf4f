"""Preference data: layouts of files, groups, targets, and their report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperdpo._lazy import lazy_names

if TYPE_CHECKING:
    from hyperdpo.alignment.data.groups import PreferenceGroup, Preferences
    from hyperdpo.alignment.data.preferences import merge_pairs, read_preferences, read_splits, write_preferences
    from hyperdpo.alignment.data.reading import ReadOptions
    from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, label_counts, to_targets

__all__ = [
    "PreferenceGroup",
    "Preferences",
    "ReadOptions",
    "default_objectives",
    "fit_objectives",
    "label_counts",
    "merge_pairs",
    "read_preferences",
    "read_splits",
    "to_targets",
    "write_preferences",
]

__getattr__ = lazy_names(
    __name__,
    {
        "PreferenceGroup": "hyperdpo.alignment.data.groups",
        "Preferences": "hyperdpo.alignment.data.groups",
        "ReadOptions": "hyperdpo.alignment.data.reading",
        "default_objectives": "hyperdpo.alignment.data.targets",
        "fit_objectives": "hyperdpo.alignment.data.targets",
        "label_counts": "hyperdpo.alignment.data.targets",
        "merge_pairs": "hyperdpo.alignment.data.preferences",
        "read_preferences": "hyperdpo.alignment.data.preferences",
        "read_splits": "hyperdpo.alignment.data.preferences",
        "to_targets": "hyperdpo.alignment.data.targets",
        "write_preferences": "hyperdpo.alignment.data.preferences",
    },
)


def __dir__() -> list[str]:
    return __all__

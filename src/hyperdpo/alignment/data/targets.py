"""From the labels of preferences to the targets of training; objectives are fitted to the training groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.core.targets import l1_targets, softmax_targets
from hyperdpo.errors import InputError
from hyperdpo.objectives import Label, Objective


class Targets(NamedTuple):
    """Targets t(z) of one group."""

    targets: np.ndarray
    """(m, n) float32: they sum to 1 over the labelled responses where there is a signal, and are 0 elsewhere."""
    signal: np.ndarray
    """(m,) bool, False where the group has no effect on an objective."""
    labelled: np.ndarray | None = None
    """(m, n) bool, the responses that have a label; None where no response lacks one."""


class LabelCounts(NamedTuple):
    """How many groups and responses have a label."""

    labelled: int
    """Groups with at least two labelled responses."""
    varying: int
    """Groups with labels that differ within the group."""
    missing: int
    """Responses without a label."""


def label_counts(preferences: Preferences, label: str | Label) -> LabelCounts:
    """How many groups have a label, in how many it varies, and how many responses lack it.

    Args:
        label: its column, or a label, whose value for "not judged" does not count.
    """
    label = Label(name=label) if isinstance(label, str) else label
    labelled = varying = missing = 0
    for group in preferences.groups:
        values = np.array(group.labels.get(label.column, ()), dtype=np.float32)
        known = values[label.judged(values)].tolist()
        missing += len(group.completions) - len(known)
        labelled += len(known) > 1
        varying += len(set(known)) > 1
    return LabelCounts(labelled, varying, missing)


def default_objectives(preferences: Preferences) -> tuple[Objective, ...]:
    """An objective per name: labels of 0 and 1 give l1 targets, others softmax targets of standardised values."""
    chosen = []
    for name in preferences.objectives:
        values = _values(preferences, name)[0]
        binary = bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all())
        chosen.append(Objective(name=name, target="l1" if binary else "softmax"))
    return tuple(chosen)


def fit_objectives(preferences: Preferences, objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """The objectives with their transforms fitted; ``preferences`` is the training part.

    Raises:
        InputError: an objective has settings of click data, its column is not among the labels, no group has a label
            of it, or it is the same for all responses of every group.
    """
    fitted = []
    for objective in objectives:
        if objective.click_column is not None:
            raise InputError(f"objective {objective.name!r}: propensity and position are for rankers; remove them")
        values, _, sizes = _values(preferences, objective.column)
        known = objective.judged(values)
        if not known.any():
            raise InputError(
                f"{preferences.source}: no training group has a label for objective {objective.name!r}; "
                "expected at least one"
            )
        one = objective.fitted(values[known])
        gains = one.gains(values)
        bounds = np.cumsum(sizes)[:-1]
        if not any(len(np.unique(group[~np.isnan(group)])) > 1 for group in np.split(gains, bounds)):
            raise InputError(
                f"{preferences.source}: objective {objective.name!r} cannot teach anything: its label is the same for "
                f"all responses of each of the {len(sizes):,} training groups that have one; expected labels that "
                "differ within a group, or a list of objectives without it"
            )
        fitted.append(one)
    return tuple(fitted)  # type: ignore[arg-type]


def to_targets(preferences: Preferences, objectives: Sequence[Objective]) -> list[Targets]:
    """Targets t(z) of every group, as for ranking (:mod:`hyperdpo.core.targets`).

    Args:
        objectives: m fitted ones (:func:`fit_objectives`); ``column`` names the labels.

    Raises:
        InputError: an unknown column, an objective that is not fitted, or (with its place) a negative label for l1 or
            log1p.
    """
    m = len(objectives)
    shapes = [(m, len(group.completions)) for group in preferences.groups]
    found = [Targets(np.zeros(s, np.float32), np.zeros(m, bool), np.ones(s, bool)) for s in shapes]
    for j, objective in enumerate(objectives):
        values, positions, sizes = _values(preferences, objective.column)
        gains = objective.gains(values)
        if objective.target == "l1" or objective.transform == "log1p":
            _reject_negative(preferences, objective, gains, np.repeat(positions, sizes))
        known = objective.judged(values)
        inputs = np.zeros_like(gains)
        inputs[known] = objective.target_inputs(gains[known])
        starts = np.cumsum(sizes) - sizes
        for n in np.unique(sizes):  # groups of one size are a block without padding
            which = np.flatnonzero(sizes == n)
            places = starts[which][:, None] + np.arange(n)
            block, labelled = torch.from_numpy(inputs[places]), torch.from_numpy(known[places])
            if objective.target == "l1":
                targets, signal = l1_targets(block, labelled)
            else:
                targets, signal = softmax_targets(block, labelled, objective.target_temperature)
            for position, t, s, k in zip(positions[which], targets.numpy(), signal.numpy(), known[places], strict=True):
                one = found[position]
                assert one.labelled is not None
                one.targets[j], one.signal[j], one.labelled[j] = t, s, k
    return [one if one.labelled is None or not one.labelled.all() else one._replace(labelled=None) for one in found]


def _values(preferences: Preferences, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (N,) float32 of the groups that have them, NaN where one is missing, the positions (g,) of those groups,
    and their sizes (g,)."""
    if column not in preferences.objectives:
        raise InputError(
            f"{preferences.source}: no objective {column!r}; the objectives are {', '.join(preferences.objectives)}"
        )
    labelled = [(i, group.labels[column]) for i, group in enumerate(preferences.groups) if column in group.labels]
    values = np.array([value for _, labels in labelled for value in labels], dtype=np.float32)
    positions = np.array([i for i, _ in labelled], dtype=np.int64)
    return values, positions, np.array([len(labels) for _, labels in labelled], dtype=np.int64)


def _reject_negative(preferences: Preferences, objective: Objective, gains: np.ndarray, groups: np.ndarray) -> None:
    """Refuse the first negative gain; ``groups`` (N,) are the positions of the groups."""
    bad = np.flatnonzero(gains < 0)
    if len(bad):
        what = "target l1" if objective.target == "l1" else "transform log1p"
        raise InputError(
            f"{preferences.place(int(groups[bad[0]]))}: label {gains[bad[0]]:g} of objective {objective.name!r}; "
            f"expected at least 0 for {what}"
        )

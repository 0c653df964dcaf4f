"""Trainings on clicks as they were logged, beside those on corrected clicks: what a correction is worth.

Both are measured alike, by the corrected labels of the comparison.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from hyperdpo.errors import InputError
from hyperdpo.hashing import fingerprint
from hyperdpo.objectives import Label
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.examples import build_examples
from hyperdpo.ranking.fitting import Prepared

AnyLabel = TypeVar("AnyLabel", bound=Label)


def as_logged(label: AnyLabel) -> AnyLabel:
    """A label without its correction."""
    return replace(label, propensity=None, position=None, position_power=None)


def check_corrected(config: RankConfig) -> None:
    """Raise unless a label is corrected.

    Raises:
        InputError: none is.
    """
    if all(label is None or label.click_column is None for label in (*config.objectives, config.main)):
        raise InputError("no label has a propensity or a position, so there is no correction to leave out")


def uncorrected(prepared: Prepared) -> Prepared:
    """The same split, features and base, with clicks as they were logged."""
    config = prepared.config
    objectives = tuple(map(as_logged, config.objectives))
    main = None if config.main is None else as_logged(config.main)
    examples = {
        name: build_examples(
            known.part,
            objectives,
            main,
            features=known.features,
            base_scores=known.base_scores,
            qid_column=config.qid_column,
            weight=config.weight,
        )
        for name, known in prepared.examples.items()
    }
    return replace(
        prepared,
        config=replace(config, objectives=objectives, main=main),
        examples=examples,
        fingerprint=fingerprint([prepared.fingerprint, "clicks as they were logged"]),
    )

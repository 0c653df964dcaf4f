"""Expected gains by trees: one LightGBM model per label, which predicts the relative gain of an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError, one_line
from hyperdpo.files import write_atomically
from hyperdpo.ranking.config import GbdtConfig
from hyperdpo.ranking.examples import Examples
from hyperdpo.ranking.gbdt import binned, boost, constraints
from hyperdpo.ranking.gbdt_model import GbdtModel

#: Relative gains lie between these; squared errors predict below and above.
GAIN_RANGE = (0.0, 1.0)


@dataclass(frozen=True)
class TreeColumns:
    """M models: the columns of a :class:`~hyperdpo.ranking.gain_ranker.GainRanker` as trees predict them."""

    models: tuple[GbdtModel, ...]

    def __call__(self, part: Part) -> np.ndarray:
        """(N, M) float32 expected gains of a part's rows, from 0 to 1."""
        return np.stack([model.part_scores(part) for model in self.models], axis=1).clip(*GAIN_RANGE)

    @property
    def parameters(self) -> int:
        """Values of leaves and thresholds of splits."""
        return sum(model.parameters for model in self.models)

    @property
    def texts(self) -> list[str]:
        """LightGBM's text of each model."""
        return [model.text for model in self.models]

    @staticmethod
    def of(texts: Sequence[str], columns: Sequence[str], origins: Sequence[float], threads: int = 0) -> TreeColumns:
        """Models from their texts.

        Args:
            columns, origins: the features, as the run knows them.

        Raises:
            InputError: a text is not a LightGBM model of these features.
        """
        load = partial(GbdtModel.load, columns=columns, with_base=False, threads=threads, origins=origins)
        return TreeColumns(tuple(load(text) for text in texts))

    def save(self, directory: Path, names: Sequence[str]) -> None:
        """Write each label's model as LightGBM's text, ``directory/NAME.txt`` by position and name."""
        for number, (model, name) in enumerate(zip(self.models, names, strict=True)):
            write_atomically(directory / _file(number, name), model.text.encode())

    @staticmethod
    def load(
        directory: Path, names: Sequence[str], columns: Sequence[str], origins: Sequence[float], threads: int = 0
    ) -> TreeColumns:
        """What :meth:`save` wrote.

        Args:
            names: of the M labels.
            columns, origins: the features, as the run knows them.

        Raises:
            InputError: a file is missing or not a LightGBM model of these features.
        """
        models: list[GbdtModel] = []
        for number, name in enumerate(names):
            path = directory / _file(number, name)
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{path}: cannot be read ({one_line(error)}); this run needs it") from None
            try:
                models += TreeColumns.of([text], columns, origins, threads).models
            except InputError as error:
                raise InputError(f"{path}: {error}; restore it from a copy, or fit again") from None
        return TreeColumns(tuple(models))


def _file(number: int, name: str) -> str:
    """A name that is safe on every file system, whatever the label is called."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)
    return f"{number}-{plain[:60]}.txt"


def train_tree_columns(
    train: Examples,
    validation: Examples | None,
    columns: Sequence[str],
    *,
    origins: Sequence[float] = (),
    config: GbdtConfig,
    seed: int = 0,
) -> TreeColumns:
    """One LightGBM model per label, of relative gains from 0 to 1; bins are made once for all.

    Items that a label does not judge have no weight in its model.

    Args:
        train, validation: from :func:`~hyperdpo.ranking.gains.gain_examples`. The validation groups decide when to
            stop; None: every tree is kept.
        columns: feature columns, read raw.
        origins: see :class:`~hyperdpo.ranking.gbdt_model.GbdtModel`.

    Raises:
        InputError: a feature column is missing, or LightGBM refuses the settings.
    """
    parts = [train, *(() if validation is None else (validation,))]
    rows = binned([one.part for one in parts], tuple(columns), tuple(origins), None, config, seed)
    own = {"objective": config.loss, "metric": config.loss} | constraints(config, columns)
    models = []
    for j in range(train.targets.shape[1]):
        labels = [np.ascontiguousarray(one.targets[:, j]) for one in parts]
        weights = [one.row_weights * ~np.isnan(one.gains[:, j]) for one in parts]
        used = slice(len(parts) if weights[-1].any() else 1)  # LightGBM cannot stop on rows without any weight
        text = boost(rows[used], labels[used], own, config, seed, weights[used])
        models.append(GbdtModel(text, tuple(columns), False, config.threads, tuple(origins)))
    return TreeColumns(tuple(models))

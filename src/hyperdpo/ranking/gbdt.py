"""LambdaMART on scalarised labels, one model per weighting: what a ranking team has without a conditioned ranker.

Every label becomes a number in [0, 1] (:class:`LabelScaling`), the weights and the main label's share make one number
of them, and this is cut into LightGBM's grades. The gain of a grade is linear, as in the project's NDCG, so that the
table of gains is valid for any label. The rows are put into bins once and shared by all weightings
(:class:`GbdtData`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_values
from hyperdpo.errors import InputError
from hyperdpo.objectives import Label
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.clicks import group_weights, read_labels
from hyperdpo.ranking.config import GbdtConfig
from hyperdpo.ranking.examples import Examples
from hyperdpo.ranking.gbdt_labels import LabelScale, LabelScaling, grades, scalarise
from hyperdpo.ranking.gbdt_model import GbdtModel, lightgbm_module
from hyperdpo.ranking.metrics import PAPER_NDCG, NdcgSettings

#: LightGBM refuses longer lists.
LARGEST_GROUP = 10_000
#: LightGBM's own table of gains 2^z - 1 ends at this grade.
LARGEST_GRADE = 30
#: The part of the features that a tree of an averaged model sees, and how many models are averaged at most.
MEMBER_FEATURES, MEMBERS = 0.8, 100


class GbdtData:
    """One repeat's rows in LightGBM's bins, with and without the base score as a feature.

    The bins do not depend on the labels, so they are made at the first training that needs them and serve all
    weightings. A training sets the labels of the shared rows: one at a time.

    Args:
        train: whose rows are trained on.
        validation: whose rows decide when to stop; None: every tree is kept.
        scaling: fitted on ``train``.
        columns: feature columns, read raw from the parts' tables.
        origins: see :class:`GbdtModel`.
        metric: its k is the validation NDCG's.
        seed: of LightGBM.

    Raises:
        InputError: a group is longer than LightGBM takes.
    """

    def __init__(
        self,
        train: Examples,
        validation: Examples | None,
        *,
        scaling: LabelScaling,
        columns: Sequence[str],
        origins: Sequence[float] = (),
        config: GbdtConfig | None = None,
        metric: NdcgSettings = PAPER_NDCG,
        seed: int = 0,
    ):
        self.train, self.validation = train, validation
        self.scaling, self.columns, self.origins = scaling, tuple(columns), tuple(origins)
        self.config = config or GbdtConfig()
        self.metric, self.seed = metric, seed
        self._splits = [train] if validation is None else [train, validation]
        self._units = [scaling.units(examples) for examples in self._splits]
        self._rows: dict[bool, list[Any]] = {}
        for examples in self._splits:
            _check_sizes(examples.part)

    def rows(self, with_base: bool) -> list[Any]:
        """The binned rows of training and, where there are any, of validation; made at the first call."""
        if with_base not in self._rows:
            parts = [examples.part for examples in self._splits]
            base = [examples.base_scores for examples in self._splits] if with_base else None
            weights = [examples.row_weights for examples in self._splits]
            self._rows[with_base] = binned(parts, self.columns, self.origins, base, self.config, self.seed, weights)
        return self._rows[with_base]

    def labels(self, weights: np.ndarray, main_share: float) -> list[np.ndarray]:
        """Grades of the training rows and, where there are any, of the validation rows: (N,) int32 each."""
        if main_share > 0 and self.scaling.main is None:
            raise InputError(f"main_share is {main_share}; expected 0 where there is no main label")
        values = [scalarise(units, weights, main_share) for units in self._units]
        return [grades(v, float(values[0].max()), self.config.levels) for v in values]


def train_lambdamart(
    data: GbdtData, weights: np.ndarray, main_share: float, *, with_base: bool, member: int | None = None
) -> GbdtModel:
    """LambdaMART for one weighting.

    Args:
        weights: (m,) w.
        main_share: λ, the main label's part of the scalarised label.
        with_base: the base score is one more feature.
        member: its number among models that are averaged: each tree sees :data:`MEMBER_FEATURES` of the features, drawn
            with a seed of the member's own. None: every tree sees all.

    Raises:
        InputError: weights or share that are out of range, a feature column that is missing.
    """
    labels = data.labels(weights, main_share)
    own = _lambdarank(np.arange(data.config.levels), data.metric)
    own |= constraints(data.config, data.columns, with_base=with_base)
    if member is not None:
        own |= {"feature_fraction": MEMBER_FEATURES, "feature_fraction_seed": MEMBERS * data.seed + member}
    text = boost(data.rows(with_base), labels, own, data.config, data.seed)
    return GbdtModel(text, data.columns, with_base, data.config.threads, data.origins)


def train_gbdt_base(
    train: Part,
    validation: Part | None,
    main: Label,
    columns: Sequence[str],
    *,
    origins: Sequence[float] = (),
    config: GbdtConfig | None = None,
    metric: NdcgSettings = PAPER_NDCG,
    seed: int = 0,
    weight: str | None = None,
) -> GbdtModel:
    """LambdaMART on the main label alone, to be the base: ``model.part_scores(Part.whole(table))``.

    Grades (whole numbers from 0 to 30) are taken as they are, with the metric's gain; other labels are scaled and
    cut like scalarised ones, with linear gain.

    Args:
        main: fitted.
        metric: its gain and k are LightGBM's.
        weight: the column with the groups' weights.
    """
    config = config or GbdtConfig()
    parts = [train] if validation is None else [train, validation]
    read = [read_labels(part, (main,)) for part in parts]
    gains = [np.nan_to_num(main.gains(values[:, 0]), nan=0.0) for values, _ in read]
    if all(_are_grades(g) for g in gains):
        labels = [g.astype(np.int32) for g in gains]
        table = np.arange(max(int(g.max()) for g in labels) + 1)
        table = table if metric.gain == "linear" else 2**table - 1
    else:
        scale = LabelScale.fit(main, gains[0])
        labels = [grades(scale(g), 1.0, config.levels) for g in gains]
        table = np.arange(config.levels)
    weights: list[np.ndarray] = []
    for part, (_, counts) in zip(parts, read, strict=True):
        _check_sizes(part)
        own_weights = group_weights(part, weight)
        times = (1.0 if own_weights is None else own_weights) * (1.0 if counts is None else counts[:, 0])
        weights.append(np.repeat(np.broadcast_to(times, part.sizes.shape), part.sizes))
    rows = binned(parts, tuple(columns), tuple(origins), None, config, seed, weights)
    own = _lambdarank(table, metric) | constraints(config, columns)
    text = boost(rows, labels, own, config, seed)
    return GbdtModel(text, tuple(columns), False, config.threads, tuple(origins))


def choose_main_share(
    mean_main: Callable[[float], float], target: float, *, tolerance: float = 0.005, most: int = 6
) -> tuple[float, list[tuple[float, float]]]:
    """The smallest share λ in [0, 1) of the main label whose mean main score reaches the target, as far as was tried.

    A score reaches the target from ``tolerance`` below it, and the search ends at one that is at most that far above.
    Both sides of a comparison then have the same main score. It halves the interval down to 1/8, then interpolates:
    halving alone was 0.02 beyond the target after six tries on generated data.

    Args:
        mean_main: the mean main score of a few weightings at a share, on the validation split.
        target: what the other side reaches there, at the same weightings.
        most: calls of ``mean_main``.

    Returns:
        The share, 0 if that is enough; where none that was tried reaches the target, the one that comes nearest.
        And every (share, score) tried, in order.
    """
    if most < 1:
        raise InputError(f"most is {most}; expected at least 1")
    tried: list[tuple[float, float]] = []
    low, high = (0.0, 0.0), (1.0, np.inf)  # (share, score); λ = 1 is never tried: no weighting differs from another
    share = 0.0
    while len(tried) < most:
        score = float(mean_main(share))
        tried.append((share, score))
        reached = score >= target - tolerance
        if reached and (share == 0 or score <= target + tolerance):
            break
        low, high = (low, (share, score)) if reached else ((share, score), high)
        part = 0.5
        if high[0] - low[0] < 0.25 and np.isfinite(high[1]):
            part = float(np.clip((target - low[1]) / (high[1] - low[1]), 0.1, 0.9))
        share = low[0] + part * (high[0] - low[0])
    enough = [share for share, score in tried if score >= target - tolerance]
    return (min(enough) if enough else max(tried, key=lambda pair: pair[1])[0]), tried


# --- LightGBM


def binned(
    parts: Sequence[Part],
    columns: tuple[str, ...],
    origins: tuple[float, ...],
    base_scores: Sequence[np.ndarray] | None,
    config: GbdtConfig,
    seed: int,
    weights: Sequence[np.ndarray | float] | None = None,
) -> list[Any]:
    """LightGBM's data sets, in the bins of the first part.

    Args:
        weights: (N,) row weights of each part, or one number for all rows.

    Raises:
        InputError: a feature column is missing, or one of categories holds other numbers than whole ones from 0 on.
    """
    config.check_features(columns, parts[0].table.source)
    categorical = [columns.index(name) for name in config.categorical]
    lightgbm = lightgbm_module()
    datasets: list[Any] = []
    for i, part in enumerate(parts):
        values = column_values(part, columns, np.array(origins) if origins else None)
        for j in categorical:
            _check_codes(part, columns[j], values[:, j])
        if base_scores is not None:
            values = np.column_stack([values, np.asarray(base_scores[i], dtype=np.float32)])
        weight = 1.0 if weights is None else weights[i]
        dataset = lightgbm.Dataset(
            values,
            label=np.zeros(len(values), dtype=np.float32),
            group=part.sizes,
            weight=None if np.ndim(weight) == 0 else weight,
            categorical_feature=categorical,
            reference=datasets[0] if i else None,
            params=_settings(config, seed),
        )
        datasets.append(dataset.construct())  # which lets go of the values
    return datasets


def constraints(config: GbdtConfig, columns: Sequence[str], *, with_base: bool = False) -> dict[str, Any]:
    """LightGBM's settings of features in which the trees are monotone.

    Args:
        with_base: the base score is one more feature.
    """
    if not config.monotone:
        return {}
    return {"monotone_constraints": [config.monotone.get(name, 0) for name in columns] + [0] * with_base}


def _check_codes(part: Part, name: str, values: np.ndarray) -> None:
    """Refuse (N,) codes of categories that LightGBM would cut off or take for missing."""
    bad = (values < 0) | (values != np.round(values))
    bad &= ~np.isnan(values)
    if bad.any():
        raise InputError(
            f"{part.table.source}: gbdt.categorical: column {name!r} holds {values[bad][0]:g}; expected whole numbers "
            "of at least 0, one for each category"
        )


def _lambdarank(gains: np.ndarray, metric: NdcgSettings) -> dict[str, Any]:
    """LightGBM's settings of LambdaMART.

    Args:
        gains: (levels,) the gain of each grade.
    """
    table, places = [int(gain) for gain in gains], [metric.k or LARGEST_GROUP]
    return {"objective": "lambdarank", "label_gain": table, "metric": "ndcg", "eval_at": places}


def boost(
    datasets: list[Any],
    labels: Sequence[np.ndarray],
    own: Mapping[str, Any],
    config: GbdtConfig,
    seed: int,
    weights: Sequence[np.ndarray] | None = None,
) -> str:
    """A model's text.

    Args:
        datasets: from :func:`binned`.
        labels: (N,) of each data set's rows.
        own: LightGBM's settings of the objective and its metric.
        weights: (N,) of each data set's rows, which it keeps; None: those it has.
    """
    lightgbm = lightgbm_module()
    for dataset, label in zip(datasets, labels, strict=True):
        dataset.set_label(label)
    for dataset, weight in zip(datasets, weights or (), strict=weights is not None):
        # set_weight would leave the weights of the last training where all of these are 1.
        dataset.set_field("weight", None if (weight == 1).all() else weight.astype(np.float32))
    settings = _settings(config, seed) | {"learning_rate": config.learning_rate, "num_leaves": config.leaves, **own}
    stops_early = len(datasets) > 1 and config.patience > 0
    stops = [lightgbm.early_stopping(config.patience, verbose=False)] if stops_early else []
    try:
        with progress_bar("train LightGBM", config.trees, "trees") as update:
            booster = lightgbm.train(
                settings,
                datasets[0],
                config.trees,
                valid_sets=datasets[1:] if stops_early else None,
                callbacks=[lambda told: update(told.iteration + 1), *stops],
            )
    except lightgbm.basic.LightGBMError as error:
        raise InputError(f"gbdt: LightGBM refuses ({str(error).splitlines()[0]}); expected other settings") from None
    return booster.model_to_string()  # up to the best number of trees


def _settings(config: GbdtConfig, seed: int) -> dict[str, Any]:
    """What bins and trees have in common."""
    return {
        "min_data_in_leaf": config.min_items_in_leaf,
        "num_threads": config.threads,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbosity": -1,
    }


def _are_grades(gains: np.ndarray) -> bool:
    return bool(((gains >= 0) & (gains <= LARGEST_GRADE) & (gains == np.round(gains))).all())


def _check_sizes(part: Part) -> None:
    largest = int(part.sizes.max(initial=0))
    if largest > LARGEST_GROUP:
        raise InputError(
            f"{part.table.source}: a group has {largest:,} items; LightGBM takes at most {LARGEST_GROUP:,}"
        )

"""The scikit-learn face of a ranking run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from hyperdpo.core.point import named_weights
from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.frames import Columns, check_rows, group_rows, to_columns, to_table, to_vector
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted
from hyperdpo.objectives import OLD_ARRAY_PREFIX, Objective
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import RankConfig, SplitConfig, parse_config
from hyperdpo.ranking.evaluation import Front
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.presets import MAIN_LABEL
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import make_accelerator

if TYPE_CHECKING:
    from hyperdpo.choosing.choice import Choice

#: Settings of :class:`RankConfig` that are settings of a :class:`HyperRanker` too, as mappings.
SECTIONS = ("mixture", "temperatures", "scorer", "training", "base_scorer", "base_training", "gbdt", "metric")


class HyperRanker(BaseEstimator):
    """One ranker for every weighting of several labels.

    >>> ranker = HyperRanker(objectives=["clicks", {"name": "quality", "target": "softmax"}])
    >>> ranker.fit(X, relevance, qid=qid, labels={"clicks": clicks, "quality": quality})
    >>> ranker.predict(X, qid=qid, weights=[0.3, 0.7], scale=2.0)

    Args:
        objectives: m of a name, a mapping of settings, or an :class:`~hyperdpo.objectives.Objective`. Where one has no
            target, :meth:`fit` chooses it by the values: l1 where most are 0 and none is negative, else softmax. None:
            one for each label given to :meth:`fit`.
        beta: ``auto`` divides every objective's β by the base's spread within groups.
        parametrization: ``mixture``, ``scratch``, ``augmentation`` or ``temperature``; see :class:`RankConfig`.
        mixture, temperatures, scorer, training, base_scorer, base_training, gbdt, metric, main: settings of
            :class:`RankConfig`, as mappings.
        weight: the name of the groups' weights. They stand among the labels given to :meth:`fit`, as propensities do.
        keep_row_numbers: keep columns of a frame that only number the rows, such as an index, as features.
        validation_fraction: part of the groups that chooses the epoch, where no ``eval_set`` is given to :meth:`fit`.
        seed: of split, initialisation, order and sampled weights.
        device: ``auto`` uses a GPU where there is one; ``cpu`` does not.

    Attributes:
        run_: the :class:`~hyperdpo.ranking.run.RankRun`, once fitted.
        objectives_: the m names, in the order of the weights.
        n_features_in_, feature_names_in_: of X.
    """

    def __init__(
        self,
        objectives: Sequence[str | Mapping[str, Any] | Objective] | None = None,
        *,
        beta: str | None = None,
        parametrization: str = RankConfig.parametrization,
        mixture: Mapping[str, Any] | None = None,
        temperatures: Mapping[str, Any] | None = None,
        scorer: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        base_scorer: Mapping[str, Any] | None = None,
        base_training: Mapping[str, Any] | None = None,
        gbdt: Mapping[str, Any] | None = None,
        metric: Mapping[str, Any] | None = None,
        main: Mapping[str, Any] | None = None,
        weight: str | None = None,
        keep_row_numbers: bool = RankConfig.keep_row_numbers,
        validation_fraction: float = SplitConfig.validation,
        seed: int = RankConfig.seed,
        device: str = "auto",
    ):
        self.objectives = objectives
        self.beta = beta
        self.parametrization = parametrization
        self.mixture = mixture
        self.temperatures = temperatures
        self.scorer = scorer
        self.training = training
        self.base_scorer = base_scorer
        self.base_training = base_training
        self.gbdt = gbdt
        self.metric = metric
        self.main = main
        self.weight = weight
        self.keep_row_numbers = keep_row_numbers
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.device = device

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        qid: Any,
        labels: Any,
        base_scores: Any = None,
        eval_set: tuple[Any, ...] | None = None,
        out: str | Path | None = None,
    ) -> HyperRanker:
        """Train.

        Args:
            X: (N, F) features; NaN where a value is missing. A frame's columns that are not numbers, or that number the
                rows, are left out with a warning.
            y: (N,) the main label (relevance); may be None where base scores are given.
            qid: (N,) the group of each row; rows of a group are adjacent.
            labels: (N, m): a mapping of names to columns, a data frame, or an array in the order of ``objectives``.
            base_scores: (N,) scores of your own ranker; None: a base is trained on y.
            eval_set: ``(X, y, qid, labels)`` or ``(X, y, qid, labels, base_scores)`` for validation.
            out: a run directory: checkpoints are kept there, and an interrupted fit is resumed.

        Raises:
            InputError: shapes that do not fit, a label that is missing or does not suit its target, a group in two
                places, a text column of which nearly all values are numbers.
        """
        table, objectives = self._training_table(X, y, qid, labels)
        scores = [_scores(base_scores, table)] * 2
        config = self._config(objectives, has_main=y is not None)
        accelerator = make_accelerator(config.training.precision, cpu=self._device() == "cpu")
        if eval_set is None:
            parts = split_table(table, config)
        else:
            x, main, group, others, base = _five(eval_set)
            evaluation, _ = self._training_table(x, main, group, others, table.origins)
            scores[1] = _scores(base, evaluation)
            same = evaluation.columns == table.columns and evaluation.labels.keys() == table.labels.keys()
            if not same or (scores[0] is None) != (scores[1] is None):
                raise InputError("eval_set: its features, labels or base scores differ from those of the training data")
            parts = {"train": Part.whole(table), "validation": Part.whole(evaluation)}
        self.run_ = fit_run(
            config,
            parts,
            accelerator,
            out=None if out is None else Path(out),
            base_source=BaseSource("trained" if base_scores is None else "given"),
            given_base={name: s for name, s in zip(parts, scores, strict=False) if s is not None} or None,
        )
        self._describe()
        if left_out := self.run_.data["features_left_out"]:
            described = "; ".join(f"{name!r}: {why}" for name, why in left_out.items())
            warnings.warn(f"X: columns that are no features: {described}", stacklevel=2)
        return self

    def predict(
        self,
        X: Any,
        *,
        qid: Any = None,
        weights: ArrayLike | Mapping[str, float] | None = None,
        scale: ArrayLike = 1.0,
        temperatures: ArrayLike | None = None,
        main_share: ArrayLike | None = None,
        base_scores: Any = None,
    ) -> np.ndarray:
        """Scores (N,) float32, in the order of the rows; larger is better within a group.

        Args:
            X: (N, F) features, as in :meth:`fit`.
            qid: (N,) the group of each row, as in :meth:`fit`: a row's score may depend on the others of its list. For
                a single list, a constant such as ``np.zeros(N)``. None: for one row, or where the ranker was fitted on
                one group only.
            weights: (m,), or (g, m) with one row per group in the order of the rows, or a mapping of names to
                numbers (others 0); None: equal weights.
            scale: c, one number or (g,): above 1 is nearer to the base.
            temperatures: m numbers β, one per objective; None: those of the objectives. ``temperature`` and a
                mixture of ``form: product`` answer at any, expected gains at none, others at multiples of their own.
            main_share: λ of the main label, one number or (g,), for expected gains (``form: gain``); None: what the
                training has chosen.
            base_scores: (N,), needed where the ranker was fitted with given base scores, unless it is ``scratch`` and
                ``scale`` is 1.

        Raises:
            InputError: several rows without ``qid``, features that are not those of :meth:`fit`, or weights, scales,
                temperatures or base scores that do not fit.
        """
        run = self._fitted()
        table = self._feature_table(X, qid)
        base = None if base_scores is None else to_vector(base_scores, "base_scores")
        return run.score(
            Part.whole(table),
            self._weights(weights),
            scale,
            temperatures=temperatures,
            main_share=main_share,
            base_scores=base,
            device=self._device(),
        )

    def front(
        self,
        X: Any,
        y: Any = None,
        *,
        qid: Any,
        labels: Any,
        base_scores: Any = None,
        points: int = 11,
        scales: Sequence[float] = (1.0,),
        temperatures: ArrayLike | None = None,
        main_share: float | None = None,
    ) -> Front:
        """Metrics on labelled data at ``points`` weightings and the scales; the rest as in :meth:`predict`."""
        run, device = self._fitted(), self._device()
        part, base = self._labelled(X, y, qid, labels, base_scores)
        examples, grid = run.examples(part, base_scores=base, device=device), weight_grid(len(self.objectives_), points)
        return run.front(examples, grid, scales, temperatures=temperatures, main_share=main_share, device=device)

    def choose(
        self,
        X: Any,
        y: Any = None,
        require: Sequence[str] = (),
        *,
        maximize: str,
        qid: Any,
        labels: Any,
        base_scores: Any = None,
        **settings: Any,
    ) -> Choice:
        """The weights and scale (temperatures, main share) that are best in one metric under requirements on others.

        >>> choice = ranker.choose(X, y, ["main>=0.45"], maximize="clicks", qid=qid, labels=labels)
        >>> choice.to_dict()["python"]  # the call of predict that scores at this point

        Args:
            X, y, qid, labels, base_scores: labelled data that were not trained on, as in :meth:`fit`.
            require, maximize, settings: of :func:`hyperdpo.choose`.
        """
        from hyperdpo.choosing.commands import choose

        run = self._fitted()
        part, base = self._labelled(X, y, qid, labels, base_scores)
        cpu = self._device() == "cpu"
        return choose(run, part, require, maximize=maximize, base_scores=base, cpu=cpu, **settings)

    def save(self, path: str | Path) -> None:
        """Write a run directory, which ``hyperdpo rank`` reads too.

        Raises:
            InputError: the place cannot be written to.
        """
        self._fitted().save(Path(path))

    @classmethod
    def load(cls, path: str | Path) -> HyperRanker:
        """Read a run directory.

        Raises:
            InputError: no run, or one of another format version.
        """
        run = RankRun.load(path)
        config = run.config
        sections: dict[str, Any] = {name: asdict(getattr(config, name)) for name in SECTIONS}
        ranker = cls(
            objectives=config.objectives,
            parametrization=config.parametrization,
            **sections,
            main=None if config.main is None else asdict(config.main),
            weight=config.weight,
            keep_row_numbers=config.keep_row_numbers,
            validation_fraction=config.split.validation,
            seed=config.seed,
        )
        ranker.run_ = run
        ranker._describe()
        return ranker

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "run_")

    def _fitted(self) -> RankRun:
        if not hasattr(self, "run_"):
            raise NotFittedError("this HyperRanker is not fitted yet; call fit first")
        return self.run_

    def _describe(self) -> None:
        self.objectives_ = self.run_.objectives
        self.n_features_in_ = len(self.run_.transform.columns)
        self.feature_names_in_ = np.array(self.run_.transform.columns, dtype=object)
        self.run_.to(self._device())

    def _device(self) -> str:
        if self.device not in ("auto", "cpu"):
            raise InputError(f"device: found {self.device!r}; expected auto or cpu")
        return best_device(cpu=self.device == "cpu")

    def _config(self, objectives: Sequence[Mapping[str, Any]], *, has_main: bool) -> RankConfig:
        held_out = self.validation_fraction
        settings: dict[str, Any] = {
            "objectives": list(objectives),
            "beta": self.beta,
            "main": {**MAIN_LABEL, **(self.main or {}), **self._main_names()} if has_main else None,
            "parametrization": self.parametrization,
            "weight": self.weight,
            "keep_row_numbers": self.keep_row_numbers,
            "split": {"train": 1 - held_out, "validation": held_out, "test": 0.0, "seed": self.seed},
            "seed": self.seed,
        }
        for name in SECTIONS:
            if getattr(self, name) is not None:
                settings[name] = dict(getattr(self, name))
        return parse_config(settings, "HyperRanker")

    def _training_table(
        self,
        X: Any,
        y: Any,
        qid: Any,
        labels: Any,
        origins: Mapping[str, float] | None = None,
    ) -> tuple[GroupedTable, list[dict[str, Any]]]:
        features = to_columns(X, "X", "x", origins)
        rows = len(features.values)
        given = to_columns(labels, "labels", "label")
        if given.left_out:
            name, reason = next(iter(given.left_out.items()))
            raise InputError(f"labels: column {name!r} is {reason}; expected numbers")
        beside_main = {self.weight, *(dict(self.main or {}).get(role) for role in ("propensity", "position"))}
        objectives = self._objectives([n for n in given.names if n not in beside_main], named=given.named)
        values = {name: given.values[:, j] + given.origins.get(name, 0.0) for j, name in enumerate(given.names)}
        used = {one.get(role) for one in objectives for role in ("column", "propensity", "position")} | beside_main
        beside = {name: column for name, column in values.items() if name in used}
        check_rows("labels", len(given.values), rows)
        if y is not None:
            main = self._main_names()["column"]
            if main in beside:
                raise InputError(
                    f"labels: the name {main!r} is that of y; expected another, or main={{'name': ...}} with another"
                )
            beside[main] = to_vector(y, "y", rows=rows, missing=True)
        qids, offsets = group_rows(qid, rows)
        return to_table(features, qids, offsets, beside), objectives

    def _main_names(self) -> dict[str, str]:
        """The main label's name, under which it also stands beside the table."""
        name = str((self.main or {}).get("name", "relevance"))
        return {"name": name, "column": name}

    def _objectives(self, label_names: Sequence[str], *, named: bool) -> list[dict[str, Any]]:
        """Settings of the objectives, each with the column its label has here."""
        chosen: list[dict[str, Any]] = []
        given = self.objectives if self.objectives is not None else label_names
        for position, objective in enumerate(given):
            if isinstance(objective, Objective):
                settings = asdict(objective)
            else:
                settings = {"name": objective} if isinstance(objective, str) else dict(objective)
            name = str(settings.get("name", ""))
            # A label is found by the objective's column, else its name (a run of files knows other columns than the
            # labels given here); an array's labels by their position.
            wanted = str(settings.get("column") or name).removeprefix(OLD_ARRAY_PREFIX)
            if wanted not in label_names:
                wanted = name
            if not named and position < len(label_names):
                wanted = label_names[position]
            if wanted not in label_names:
                raise InputError(f"labels: none for objective {name!r}; found {', '.join(label_names)}")
            chosen.append({**settings, "column": wanted})
        if not named and len(chosen) != len(label_names):
            raise InputError(
                f"labels: found {counted(len(label_names), 'column')}; expected {len(chosen)}, one per objective"
            )
        return chosen

    def _labelled(self, X: Any, y: Any, qid: Any, labels: Any, base_scores: Any) -> tuple[Part, np.ndarray | None]:
        """Labelled data as the fitted run knows it, and the base scores given with it."""
        table, _ = self._training_table(X, y, qid, labels, origins=self._origins())
        known = self._known_names(to_columns(X, "X", "x"))
        origins = dict(zip(known, (table.origins.get(name, 0.0) for name in table.columns), strict=True))
        part = Part.whole(replace(table, columns=known, origins={k: v for k, v in origins.items() if v}))
        return part, _scores(base_scores, table)

    def _origins(self) -> dict[str, float]:
        """The run's origins, under the names of its features and, for an array, under those of their positions."""
        run = self._fitted()
        return run.origins | {
            f"x{i}": run.origins[name] for i, name in enumerate(run.transform.columns) if name in run.origins
        }

    def _known_names(self, columns: Columns) -> tuple[str, ...]:
        """The names of the columns, as fit knew them: those of an array, which has none, by position.

        Raises:
            InputError: a feature of fit is missing, or an array has another number of columns.
        """
        known = tuple(self.feature_names_in_)
        unnamed = tuple(f"x{i}" for i in range(len(known)))  # what fit called the columns of an array
        if columns.named and known != unnamed:
            for name in known:
                if name in columns.doubtful:
                    raise InputError(f"X: {columns.doubtful[name]}")
                if name not in columns.names:
                    reason = f" (it is {columns.left_out[name]})" if name in columns.left_out else ""
                    raise InputError(f"X: no column {name!r} of numbers{reason}; expected the features of fit")
            return columns.names
        if len(columns.names) != self.n_features_in_:
            raise InputError(
                f"X: found {counted(len(columns.names), 'feature')}; expected {self.n_features_in_}, as in fit"
            )
        return known

    def _feature_table(self, X: Any, qid: Any) -> GroupedTable:
        columns = to_columns(X, "X", "x", self._origins())
        names = self._known_names(columns)
        origins = {names[columns.names.index(name)]: origin for name, origin in columns.origins.items()}
        rows = len(columns.values)
        if qid is None:
            if rows > 1 and sum(self._fitted().data["groups"].values()) > 1:  # not one list, most likely
                raise InputError(
                    f"qid: missing for {rows} rows; expected the group of each row, as in fit (a constant, such as "
                    f"np.zeros({rows}), if they are one list)"
                )
            qid = np.zeros(rows, np.int64)
        qids, offsets = group_rows(qid, rows)
        return to_table(replace(columns, names=names, origins=origins), qids, offsets)

    def _weights(self, weights: ArrayLike | Mapping[str, float] | None) -> ArrayLike:
        m = len(self.objectives_)
        if weights is None:
            return np.full(m, 1 / m)
        return named_weights(weights, self.objectives_) if isinstance(weights, Mapping) else weights


def _scores(base_scores: Any, table: GroupedTable) -> np.ndarray | None:
    return None if base_scores is None else to_vector(base_scores, "base_scores", rows=table.num_rows)


def _five(eval_set: tuple[Any, ...]) -> tuple[Any, Any, Any, Any, Any]:
    if len(eval_set) not in (4, 5):
        raise InputError(
            f"eval_set: found {len(eval_set)} parts; expected (X, y, qid, labels) or one more for base_scores"
        )
    x, y, qid, labels, base_scores = (*eval_set, None)[:5]
    return x, y, qid, labels, base_scores

"""A saved run: everything that scores new data, loadable without the training data.

A run directory holds ``run.json``: format, versions, seed, data, columns, and what was chosen after the training.
``config.json`` is the resolved configuration, from which the run can be repeated. ``metrics.json`` is what training
measured. ``model.safetensors`` holds ranker, base and feature transform, and ``base_scores/`` one file per data set
that was scored. ``run.json`` has a checksum of each file, and of itself (:mod:`hyperdpo.checksums`).
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from hyperdpo.core.control import linear_transformation, proportional_scale
from hyperdpo.core.point import check_scales, check_shares, check_temperatures, check_weights
from hyperdpo.data.batching import GroupBatch
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part, split_groups
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.errors import InputError, one_line, shown
from hyperdpo.files import read_json, read_tensors, with_prefix, without_prefix, write_json, write_tensors
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.base_scores import BaseSource, base_column, checked_scores, score_all_rows
from hyperdpo.ranking.clicks import measured_weight
from hyperdpo.ranking.config import WITH_TREES, RankConfig, parse_config
from hyperdpo.ranking.evaluation import Front, evaluate_front, ranker_scores, score_items
from hyperdpo.ranking.examples import Batch, Examples, Features, Items, build_examples
from hyperdpo.ranking.labels import label_in
from hyperdpo.ranking.metrics import NdcgSettings
from hyperdpo.ranking.new_rankers import conditioned_ranker
from hyperdpo.ranking.parametrizations import Ranker
from hyperdpo.ranking.run_files import (
    BASE_SCORES,
    CHECKED_FROM,
    CONFIG,
    FORMAT_VERSION,
    MODEL,
    READABLE_VERSIONS,
    TREES,
    keep_scores,
    kept_scores,
    versions,
)
from hyperdpo.ranking.tree_columns import TreeColumns
from hyperdpo.runs import METRICS, RUN, read_metrics, read_run, write_run


@dataclass
class RankRun:
    """A trained, conditioned ranker with its base."""

    config: RankConfig
    """With the labels fitted."""
    transform: FeatureTransform
    ranker: Ranker
    """For all weightings."""
    base: Ranker | None
    base_source: BaseSource
    data: dict[str, Any]
    """Source, fingerprint and number of groups of each split."""
    metrics: dict[str, Any]
    """Histories, validation fronts, parameter counts and seconds."""
    path: Path | None = None
    _base_scores: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The m names, in the order of the weights."""
        return self.config.names

    def base_scores(
        self,
        table: GroupedTable,
        given: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> np.ndarray:
        """(N,) base scores of all rows of a table; computed once, then kept in the run directory.

        Args:
            given: (N,) from the caller, which come first.

        Raises:
            InputError: the run has no base of its own and none are given, or they do not fit the rows.
        """
        if given is not None:
            own = self.base_source.kind == "given" and table.fingerprint in self.data["fingerprints"].values()
            scores = checked_scores(given, table, self._recalled(table) if own else None)
            if self.base is not None:
                warnings.warn(
                    f"{table.source}: the base scores that are given stand in for those of the run's own base",
                    stacklevel=2,
                )
            # Kept only where there are no others: scores given for once must not replace those of the run's own base.
            return self.remember(table, scores) if self.base_source.kind == "given" else scores
        if self.base_source.kind == "column":
            return base_column(table, str(self.base_source.column), self.config.qid_column)
        if (known := self._recalled(table)) is not None:
            return known
        if self.base is None:
            raise InputError(
                f"{table.source}: this run was trained on base scores that were given to it, and has none for this "
                "data; expected base scores (--base-scores, or base_scores=)"
            )
        return self.remember(table, score_all_rows(self.base, table, self.transform, device))

    def score(
        self,
        part: Part,
        weights: ArrayLike,
        scale: ArrayLike = 1.0,
        *,
        temperatures: ArrayLike | None = None,
        main_share: ArrayLike | None = None,
        base_scores: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> np.ndarray:
        """(N,) float32 scores of the part's rows.

        Args:
            weights: (m,), or (g, m) with one row per group.
            scale: c of :func:`~hyperdpo.core.control.linear_transformation`, one number, or (g,) with one per group.
            temperatures: m numbers β, before the scale; None: those of the run. See :meth:`answering`.
            main_share: λ, one number, or (g,) with one per group; None: that of the run. See :meth:`share`.
            base_scores: (N of the table,), where the run cannot compute them itself.

        Raises:
            InputError: weights, scales or temperatures that the run cannot answer, or base scores are missing.
        """
        groups = len(part.groups)
        betas, factor = self.answering(temperatures)
        w = check_weights(weights, len(self.objectives))
        if w.ndim > 2 or (w.ndim == 2 and len(w) != groups):
            raise InputError(
                f"weights: found shape {w.shape}; expected ({len(self.objectives)},) "
                f"or ({groups}, {len(self.objectives)})"
            )
        c = check_scales(scale, groups) * factor
        share = self.share(main_share, groups)
        needs_base = self.ranker.needs_base or not np.all(c == 1)
        base = np.zeros(int(part.sizes.sum()), np.float32)
        if needs_base or base_scores is not None:
            base = self.base_scores(part.table, base_scores, device)[part.rows()]
        features = self.features(part)
        items = Items(part=part, features=features, base_scores=base, trees=self.ranker.trees)
        w = np.broadcast_to(w, (groups, w.shape[-1]))
        scores = score_items(self.ranker, items, w, betas, device, main_share=share)
        per_row: Any = float(c) if np.ndim(c) == 0 else np.repeat(c, part.sizes).astype(np.float32)
        return np.asarray(linear_transformation(scores, base, per_row), dtype=np.float32)

    def examples(
        self, part: Part, *, base_scores: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Examples:
        """A labelled part with its base scores, to measure fronts on."""
        objectives = [label_in(part.table, objective) for objective in self.config.objectives]
        main = None if self.config.main is None else label_in(part.table, self.config.main)
        if main is not None and main.column not in part.table.label_columns:
            main = None
        base = self.base_scores(part.table, base_scores, device)[part.rows()]
        found = build_examples(
            part,
            objectives,
            main,
            features=self.features(part, resident=True),
            base_scores=base,
            qid_column=self.config.qid_column,
            weight=measured_weight(self.config.weight, part.table),
        )
        return replace(found, trees=self.ranker.trees)

    def front(
        self,
        examples: Examples,
        weights: ArrayLike,
        scales: Sequence[float] | np.ndarray = (1.0,),
        *,
        metric: NdcgSettings | None = None,
        temperatures: ArrayLike | None = None,
        main_share: float | None = None,
        device: torch.device | str = "cpu",
        show: bool = False,
    ) -> Front:
        """Metrics at every pair of weights (P, m) and scale, on what :meth:`examples` made.

        Args:
            temperatures, main_share: as in :meth:`score`.
        """
        grid = np.atleast_2d(check_weights(weights, len(self.objectives)))
        betas, factor = self.answering(temperatures)
        self.ranker.eval()
        shares = self.share(main_share, len(grid) * len(scales))
        score = ranker_scores(self.ranker, grid, betas, device, None if shares is None else float(shares[0]))
        scaled = [c * factor for c in scales]
        settings = metric or self.config.metric
        with progress_bar("front", examples.num_items, "items", show=show) as update:
            front = evaluate_front(score, examples, grid, scaled, betas, settings, device=device, update=update)
        wanted = np.asarray(betas) * factor
        tiled = np.tile(wanted, (len(front.scales), 1))
        return replace(front, scales=front.scales / factor, temperatures=tiled, main_shares=shares)

    def answering(self, temperatures: ArrayLike | None) -> tuple[list[float], float]:
        """At which temperatures the ranker is to be asked, and with which scale, to have the scores at others.

        ``mixture`` and ``temperature`` rankers answer at any; the others at multiples of their own, which
        a scale makes of their scores.

        Raises:
            InputError: not m numbers above 0, or not a multiple of the run's temperatures where it has to be.
        """
        if temperatures is None:
            return self.betas, 1.0
        if self.ranker.takes_main_share:
            raise InputError(
                f"temperatures (--beta): found {shown(temperatures)}, but expected gains have none; use --main-share, "
                "or fit with --set mixture.form=product"
            )
        wanted = check_temperatures(temperatures, len(self.objectives))
        if self.ranker.takes_temperatures:
            return [float(beta) for beta in wanted], 1.0
        factor = proportional_scale(wanted, self.betas)
        if factor is None:
            raise InputError(
                f"temperatures: found {', '.join(f'{b:g}' for b in wanted)}; a ranker of parametrization "
                f"{self.config.parametrization} answers at multiples of {', '.join(f'{b:g}' for b in self.betas)} only "
                "(mixture and temperature answer at any)"
            )
        return self.betas, factor

    def share(self, main_share: ArrayLike | None, rows: int) -> np.ndarray | None:
        """(rows,) λ, the main label's share: what is asked for, or the run's own. None for a run that takes none.

        Args:
            main_share: one number, or one for each row.

        Raises:
            InputError: a run that takes no share is asked for one, or not numbers from 0 to below 1.
        """
        if self.ranker.takes_main_share:
            asked = self.ranker.chosen["main_share"] if main_share is None else main_share
            return np.broadcast_to(check_shares(asked, rows), (rows,))
        if main_share is not None:
            raise InputError("main share: this run takes none; train one with mixture.form=gain, or use a scale")
        return None

    def use_share(self, main_share: float | None) -> RankRun:
        """Answer with this share λ where none is asked for, from now on; None leaves it as it is.

        Raises:
            InputError: as :meth:`share`.
        """
        if main_share is not None:
            self.share(main_share, 1)
            self.ranker.use(main_share=main_share)
        return self

    def base_front(self, examples: Examples, *, metric: NdcgSettings | None = None) -> Front:
        """The base as a front of one point."""

        def score(_: GroupBatch, batch: Batch) -> torch.Tensor:
            return batch.base_scores.unsqueeze(0)

        weights = np.full((1, len(self.objectives)), 1 / len(self.objectives))
        return evaluate_front(score, examples, weights, [1.0], self.betas, metric or self.config.metric)

    @property
    def betas(self) -> list[float]:
        """The m temperatures."""
        return [o.beta for o in self.config.objectives]

    def read_files(
        self, *, sort: bool = False, features_from_zero: bool = False, like: RankConfig | None = None
    ) -> RankRun:
        """Read files with these settings from now on, besides those that the run was trained with.

        Args:
            like: a configuration that says how other files name the query id and the labels.
        """
        config = self.config
        if like is not None:
            columns = {o.name: o.column for o in like.objectives}
            main = config.main
            if main is not None and like.main is not None:
                main = replace(main, column=like.main.column)
            config = replace(
                config,
                qid_column=like.qid_column,
                objectives=tuple(replace(o, column=columns.get(o.name, o.column)) for o in config.objectives),
                main=main,
            )
            sort, features_from_zero = sort or like.sort, features_from_zero or like.features_from_zero
        self.config = replace(
            config, sort=config.sort or sort, features_from_zero=config.features_from_zero or features_from_zero
        )
        return self

    @property
    def origins(self) -> dict[str, float]:
        """Feature -> what is subtracted from it, of those that have an origin."""
        return {n: float(o) for n, o in zip(self.transform.columns, self.transform.origins, strict=True) if o}

    def to(self, device: torch.device | str) -> RankRun:
        """Move the networks to a device."""
        self.ranker.to(device)
        if self.base is not None:
            self.base.to(device)
        return self

    def part(self, table: GroupedTable, split: str = "auto") -> tuple[str, Part]:
        """A split of a table, and its name.

        Args:
            split: ``auto``: what the run may be judged on, which is the test groups of its own data, and all groups of
                data it has not seen. ``all``: every group. ``train``, ``validation``, ``test``: of its own data.

        Raises:
            InputError: ``auto`` on data that was trained on and of which nothing was held out, or a split that the
                table is not part of.
        """
        if split == "all":
            return "all", Part.whole(table)
        own = [name for name, known in self.data["fingerprints"].items() if known == table.fingerprint != ""]
        wanted = "test" if split == "auto" else split
        if wanted in own:
            if "fractions" not in self.data:
                return wanted, Part.whole(table)
            groups = split_groups(table.num_groups, tuple(self.data["fractions"]), self.data["split_seed"])
            return wanted, Part(table, groups[wanted])
        if split != "auto":
            raise InputError(
                f"--split {split}: {table.source} is not the {split} data of this run; expected that, or all"
            )
        if own:
            raise InputError(
                f"{table.source}: is what this run was trained or chosen on ({', '.join(own)}), and none of it was "
                "held out; expected other data, or --split to measure on it all the same"
            )
        return "all", Part.whole(table)

    def save(self, path: Path) -> None:
        """Write the run directory; ``run.json`` goes first and comes last: a directory with one is complete."""
        (path / RUN).unlink(missing_ok=True)
        for name in (BASE_SCORES, TREES):
            shutil.rmtree(path / name, ignore_errors=True)
        tensors = with_prefix("ranker", self.ranker.state_dict())
        if self.base is not None:
            tensors |= with_prefix("base", self.base.state_dict())
        tensors |= {
            f"transform.{name}": torch.from_numpy(getattr(self.transform, name))
            for name in ("mean", "scale", "origins", "logs", "indicators")
        }
        write_tensors(path / MODEL, tensors)
        if self.ranker.trees is not None:
            self.ranker.trees.save(path / TREES, self.config.label_names)
        write_json(path / CONFIG, self.config.to_dict())
        write_json(path / METRICS, self.metrics)
        for name, scores in self._base_scores.items():
            keep_scores(path, name, scores)
        trees = [file.relative_to(path).as_posix() for file in (path / TREES).glob("*")]
        write_run(
            path,
            "rank",
            FORMAT_VERSION,
            [MODEL, CONFIG, METRICS, *trees],
            {
                "versions": versions(),
                "seed": self.config.seed,
                "data": self.data,
                "features": list(self.transform.columns),
                "chosen": self.ranker.chosen,
                "constants": self.ranker.constants,
                "temperatures": dict(zip(self.objectives, self.betas, strict=True)),
                "base": {"kind": self.base_source.kind, "column": self.base_source.column},
            },
        )
        self.path = path

    @staticmethod
    def load(path: str | Path) -> RankRun:
        """Read a run directory.

        Raises:
            InputError: no run, one of another format version, or one whose files are damaged or do not agree.
        """
        path = Path(path)
        run = read_run(path, "rank", READABLE_VERSIONS, checked_from=CHECKED_FROM)
        settings = read_json(path / CONFIG)
        if isinstance(settings, dict) and isinstance(settings.get("mixture"), dict):
            settings["mixture"] = {"members": 1, "form": "product"} | settings["mixture"]  # what older runs had
        if isinstance(settings, dict) and isinstance(settings.get("gbdt"), dict):
            settings["gbdt"].setdefault("loss", "cross_entropy")
        config = parse_config(settings, str(path / CONFIG))
        tensors, _ = read_tensors(path / MODEL)
        try:
            columns = tuple(run["features"])
            if repeated := [name for name, count in Counter(columns).items() if count > 1]:
                raise ValueError(f"run.json names the feature {shown(repeated[0])} twice")
            # A run of version 2 has mean and scale only.
            known: dict[str, Any] = {n: tensor.numpy() for n, tensor in without_prefix("transform", tensors).items()}
            transform = FeatureTransform(columns, **known)
            base, base_state = None, without_prefix("base", tensors)
            with torch.random.fork_rng(devices=[]):  # networks draw their weights before they are given others
                ranker = conditioned_ranker(config, transform.width)
                if base_state:
                    base = Ranker(config.base_scorer, transform.width)
            ranker.load_state_dict(without_prefix("ranker", tensors))
            ranker.use(**run["chosen"])
            if config.scorer.kind in WITH_TREES:
                names = config.label_names
                origins = transform.origins.tolist()
                ranker.trees = TreeColumns.load(path / TREES, names, columns, origins, config.gbdt.threads)
            if base is not None:
                base.load_state_dict(base_state)
            source = BaseSource(run["base"]["kind"], run["base"]["column"])
            metrics = read_metrics(path)
            return RankRun(config, transform, ranker, base, source, run["data"], metrics, path)
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
            raise InputError(f"{path}: its files do not belong together ({one_line(error)})") from None

    def features(self, part: Part, *, resident: bool = False) -> Features:
        """Transformed features of a part's rows; in memory as a whole if ``resident`` and not too large."""
        return Features(part, self.transform, self.config.resident_gib * 2**30 if resident else 0)

    def _recalled(self, table: GroupedTable) -> np.ndarray | None:
        name = table.fingerprint
        if not name:
            return None
        if name not in self._base_scores and self.path is not None:
            kept = kept_scores(self.path, name)
            if kept is not None:
                self._base_scores[name] = kept
        scores = self._base_scores.get(name)
        return scores if scores is not None and len(scores) == table.num_rows else None

    def remember(self, table: GroupedTable, scores: np.ndarray) -> np.ndarray:
        """Keep (N,) base scores of a table's rows for the next time."""
        if table.fingerprint:
            self._base_scores[table.fingerprint] = scores
            if self.path is not None and self.base_source.kind == "trained":
                with contextlib.suppress(InputError):  # a run directory that cannot be written to can still be used
                    keep_scores(self.path, table.fingerprint, scores)
        return scores

"""Rankers compared: what each repeat measures, and what ``compare.json`` of ``rank compare`` holds.

Every method is asked for the same weights at the same temperatures, on the same held-out groups, from the same base.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.comparison.entries import Entry, check_labels
from hyperdpo.comparison.main_levels import MainLevels, level_differences
from hyperdpo.comparison.methods import needs_lightgbm
from hyperdpo.comparison.rank import DENSE_POINTS, VOLUMES, RankTrainings, spread_of_main
from hyperdpo.comparison.repeats import RankRepeat
from hyperdpo.comparison.summary import averages, means, measure_all, summary_of
from hyperdpo.comparison.trainings import cost
from hyperdpo.comparison.uncorrected import check_corrected
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.extras import require
from hyperdpo.ranking.betas import check_beta
from hyperdpo.ranking.config import RankConfig, with_overrides
from hyperdpo.ranking.evaluation import Front, evaluate_front
from hyperdpo.ranking.examples import Examples
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.gbdt_model import GbdtModel
from hyperdpo.ranking.oracle import attained, gain_oracle_front, oracle_front
from hyperdpo.ranking.run_files import versions
from hyperdpo.ranking.training import quality

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Scales among which a method's best is chosen on validation groups, for a view of all methods, each at the distance
#: from the base that suits it.
SCALES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0)

#: What an attainable front is: a method's fraction of one is not comparable with another's fraction of the other.
CLOSED_FORM, GAIN_ORDER = "closed form", "order by expected gains, at the own share"


def compare(
    config: RankConfig,
    repeats: Sequence[RankRepeat],
    entries: Sequence[Entry],
    accelerator: Accelerator,
    out: Path,
    *,
    points: int = 11,
    main_levels: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train and measure every entry on every repeat.

    Args:
        out: directory of the trainings; an interrupted comparison resumes there.
        points: weightings of each front.
        main_levels: at so many mean main scores every method is measured, moved there by its own dial.
        say: called with each line of progress.

    Returns:
        The content of ``compare.json``.

    Raises:
        InputError: several processes, two entries of one label, or what :func:`~hyperdpo.ranking.fitting.prepare`
            raises.
    """
    refuse_several_processes(accelerator)
    check_labels(entries)
    reference = next((entry for entry in entries if entry.one_shot), None)
    with_lightgbm = any(needs_lightgbm(entry.method) for entry in entries)
    if with_lightgbm and reference is None:
        raise InputError(
            "--methods: lightgbm-ls is trained to the main score of hyperdpo; expected hyperdpo among the methods"
        )
    with_lightgbm |= any(repeat.base_source.kind == "lightgbm" for repeat in repeats)
    if with_lightgbm:
        require("gbdt")
    for entry in entries:
        if entry.one_shot:
            try:
                check_entry(with_overrides(config, entry.overrides), entry.label)
                if entry.uncorrected:
                    check_corrected(config)
            except InputError as error:
                raise InputError(f"{entry.label}: {error}") from None
    grid = weight_grid(len(config.objectives), points)
    oracles: list[Any] = []

    def measurements(repeat: RankRepeat) -> RankMeasurements:
        trainings = RankTrainings(repeat, config, out / repeat.name, accelerator, reference)
        levels = MainLevels(trainings, entries, main_levels) if main_levels else None
        found = RankMeasurements(trainings, grid, levels)
        if found.attainable is not None:
            oracles.append(found.attainable.to_dict()["points"])
        return found

    result = measure_all(repeats, entries, measurements, summary, say)
    return result | {
        "chosen": _chosen(entries, result["methods"]),
        "level_differences": level_differences(result["methods"]),
        "weights": grid.tolist(),
        "temperatures": config.beta or [o.beta for o in config.objectives],
        "settings": config.to_dict(),
        "versions": versions() | ({"lightgbm": version("lightgbm")} if with_lightgbm else {}),
        "oracle": mean_points(oracles) if len(oracles) == len(repeats) else None,
    }


def refuse_several_processes(accelerator: Accelerator) -> None:
    """A comparison trains its models one after the other, in one process.

    Raises:
        InputError: there are several.
    """
    if accelerator.num_processes > 1:
        raise InputError(
            f"a comparison runs in one process, found {accelerator.num_processes}; run it without accelerate launch"
        )


class RankMeasurements:
    """What one repeat says about the base and about each entry.

    Args:
        trainings: of the repeat.
        grid: (P, m), the weights of every front.
        levels: the main scores at which all methods are measured; None: at none.
    """

    def __init__(self, trainings: RankTrainings, grid: np.ndarray, levels: MainLevels | None = None):
        self.trainings, self.grid, self.levels, self.test = trainings, grid, levels, trainings.test()
        self.betas, self.metric = trainings.prepared.betas, trainings.prepared.config.metric
        m, oracle = len(self.betas), trainings.repeat.oracle
        base = evaluate_front(
            lambda _, batch: batch.base_scores.unsqueeze(0),
            self.test,
            np.full((1, m), 1 / m),
            [1.0],
            self.betas,
            self.metric,
            device=trainings.accelerator.device,
            with_losses=False,
        )
        (point,) = base.to_dict()["points"]
        self.base = {"metrics": point["metrics"], "main": point["main"]}
        #: The oracle's front at the grid, where it is known.
        self.attainable: Front | None = None
        if oracle is not None:
            self.attainable = oracle_front(self.test, oracle, grid, [1.0], list(self.betas), self.metric)

    def gains_attainable(self, ranker: GainRanker) -> Front:
        """The front of the expected gains that the oracle knows, at the share of a ranker."""
        oracle, main = self.trainings.repeat.oracle, self.trainings.prepared.config.main
        assert oracle is not None
        where = (self.test, oracle, self.grid, [1.0], list(self.betas), self.metric)
        return gain_oracle_front(ranker, *where, main=main, main_share=ranker.main_share)

    def measured(self, entry: Entry) -> dict[str, Any]:
        """Everything that the repeat says about an entry.

        Returns:
            The front's own keys, cost, the front on validation groups, and ``views``: fronts at other scales, at more
            weightings, at other temperatures, which no method needs a training for.
        """
        trainings, grid = self.trainings, self.grid
        trained = trainings.all_trained(entry, grid)

        def front(
            weights: np.ndarray = grid,
            scales: Sequence[float] = (1.0,),
            at: Sequence[float] = self.betas,
            on: Examples = self.test,
            with_losses: bool = False,
        ) -> Front:
            score, device = trainings.score(entry, weights, at, on), trainings.accelerator.device
            return evaluate_front(score, on, weights, scales, at, self.metric, device=device, with_losses=with_losses)

        own = front(with_losses=True)
        result = own.to_dict() | spread_of_main(own) | cost(trained)
        epochs = [one.epochs for one in trained if one.epochs is not None]
        allowed = [one.epochs_allowed for one in trained if one.epochs_allowed is not None]
        result |= {"epochs": epochs, "epochs_allowed": max(allowed, default=None), "vertices": vertices(own)}
        held_out = front(on=trainings.validation)
        result["validation"] = {name: getattr(held_out, name) for name in VOLUMES} | spread_of_main(held_out)
        gains = [one.model for one in trained if isinstance(one.model, GainRanker)]
        for model in gains:
            result["details"] = {"chosen": model.chosen}
        views: dict[str, Front] = {}
        trees = [one.model for one in trained if isinstance(one.model, GbdtModel)]
        if trees:  # a scale moves scores towards the base, which trees do not start from
            result["train_seconds"] += trainings.trees(entry).bin_seconds
            result["details"] = trainings.share(entry) | {"trees": [model.num_trees for model in trees]}
        elif entry.scales:
            views["scales"] = front(scales=sorted({1.0, *entry.scales}))
            fronts = [front(scales=[c], on=trainings.validation) for c in SCALES]
            result["best_scale"] = float(max(fronts, key=quality).scales[0])
            views["best scale"] = front(scales=[result["best_scale"]])
        if entry.one_shot and entry.dense and len(self.betas) > 1:
            views["dense"] = front(weight_grid(len(self.betas), DENSE_POINTS))
        for temperatures in entry.temperatures:
            views["temperature " + ",".join(f"{b:g}" for b in temperatures)] = front(at=temperatures)
        kept = ("points", *VOLUMES)
        result["views"] = {name: {key: view.to_dict()[key] for key in kept} for name, view in views.items()}
        if self.attainable is not None:
            attainable = self.gains_attainable(gains[0]) if gains else self.attainable
            result["oracle"] = attained(own, attainable)
            result["attainable_by"] = GAIN_ORDER if gains else CLOSED_FORM
        result["main_levels"] = []
        if self.levels is not None:
            result["main_levels"] = self.levels.measured(entry, grid, self.test)
            result["ends"] = vertices(self.levels.freest(entry, self.test))
        return result


def check_entry(config: RankConfig, label: str) -> None:
    """Refuse a configuration that cannot be trained. Expected gains do not use the β of the comparison: say so.

    Raises:
        InputError: it is refused.
    """
    config.check_trainable()
    if (config.parametrization, config.mixture.form) != ("mixture", "gain"):
        check_beta(config)
    elif config.beta is not None or any(objective.beta != 1 for objective in config.objectives):
        warnings.warn(f"{label}: expected gains have no β; the other methods use it", stacklevel=3)


def vertices(front: Front) -> dict[str, float | None]:
    """Each objective's own metric where all weight lies on it; None where it is not known."""
    found: dict[str, float | None] = {}
    for j, name in enumerate(front.objectives):
        own = front.metrics[front.weights[:, j] == 1, j]
        found[name] = float(own[0]) if len(own) and not np.isnan(own[0]) else None
    return found


# --- over all repeats


def summary(entry: Entry, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An entry over all repeats: means, standard deviations (None for one repeat), and each repeat."""
    epochs = [{"epochs": float(np.mean(seed["epochs"])) if seed["epochs"] else None} for seed in seeds]
    return (
        summary_of(entry, seeds, mean_points, VOLUMES)
        | means(epochs, "epochs")
        | {"epochs_allowed": seeds[0]["epochs_allowed"]}
        | means(seeds, "vertices", "validation", *(name for name in ("oracle", "ends") if name in seeds[0]))
        | {"main_levels": _mean_levels([seed["main_levels"] for seed in seeds])}
        | ({"attainable_by": seeds[0]["attainable_by"]} if "attainable_by" in seeds[0] else {})
    )


def _mean_levels(repeats: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Each level over the repeats; none where a repeat has none."""
    if not all(repeats):
        return []
    return [averages(levels, *levels[0]) for levels in zip(*repeats, strict=True)]


def mean_points(fronts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The points of several fronts at the same weights, scales and temperatures, averaged one by one."""
    return [
        {name: points[0][name] for name in ("weights", "scale", "temperature")} | averages(points, "metrics", "main")
        for points in zip(*fronts, strict=True)
    ]


def _chosen(entries: Sequence[Entry], methods: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The one-shot entry with the best front on validation groups, with main where there is one."""
    best: tuple[float, str] | None = None
    for entry in entries:
        if entry.one_shot:
            found = methods[entry.label]["validation"]
            with_main = found["hypervolume_with_main"]
            value = found["hypervolume"] if with_main is None else with_main
            if value is not None and (best is None or value > best[0]):
                best = (value, entry.label)
    return None if best is None else best[1]

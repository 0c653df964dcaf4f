"""Methods compared over several repeats: what ``compare.json`` holds.

Every method is asked for the same weights at the same temperatures, on the same held-out groups, from the same base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.extras import require
from hyperdpo.printing import four_digits
from hyperdpo.ranking.bench import Bench, Entry, Model, Repeat
from hyperdpo.ranking.config import RankConfig, with_overrides
from hyperdpo.ranking.evaluation import Front, evaluate_front
from hyperdpo.ranking.examples import Examples
from hyperdpo.ranking.metrics import NdcgSettings
from hyperdpo.ranking.oracle import oracle_front
from hyperdpo.ranking.run import versions
from hyperdpo.ranking.training import quality

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Weightings of the dense view of a method that answers any w at no cost.
DENSE_POINTS = 101
#: Scales among which a method's best is chosen on validation groups, for a view of all methods, each at the distance
#: from the base that suits it.
SCALES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0)
#: Trained on scalarised labels, with the main label's share chosen to match the first one-shot entry's main score.
LIGHTGBM_LS = "lightgbm-ls"
#: What is averaged over repeats; each gets a neighbour ``_sd``.
AVERAGED = ("hypervolume", "hypervolume_with_main", "main_mean", "main_sd", "train_seconds", "models", "parameters")


def compare(
    config: RankConfig,
    repeats: Sequence[Repeat],
    entries: Sequence[Entry],
    accelerator: Accelerator,
    out: Path,
    *,
    points: int = 11,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train and measure every entry on every repeat.

    Args:
        out: directory of the trainings; a comparison that was stopped goes on there.
        points: weightings of each front.
        say: is told what has been done, line by line.

    Returns:
        The content of ``compare.json``.

    Raises:
        InputError: several processes, two entries of one label, or what :func:`~hyperdpo.ranking.fitting.prepare`
            raises.
    """
    refuse_several_processes(accelerator)
    labels = [entry.label for entry in entries]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"--methods: {label!r} is named more than once")
    with_lightgbm = any(entry.method == LIGHTGBM_LS for entry in entries)
    if with_lightgbm and not any(entry.one_shot for entry in entries):
        raise InputError(
            "--methods: lightgbm-ls is trained to the main score of hyperdpo; expected hyperdpo among the methods"
        )
    with_lightgbm |= any(repeat.base_source.kind == "given" and repeat.given_base is None for repeat in repeats)
    if with_lightgbm:
        require("gbdt")
    for entry in entries:
        if entry.one_shot:
            try:
                with_overrides(config, entry.overrides).check_trainable()
            except InputError as error:
                raise InputError(f"{entry.label}: {error}") from None
    grid = weight_grid(len(config.objectives), points)
    results: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    bases, described = [], []
    attainables: list[Front] = []
    for number, repeat in enumerate(repeats, 1):
        bench = Bench(repeat, config, out / repeat.name, accelerator)
        test = bench.test()
        base = base_point(bench, test)
        bases.append(base)
        attainable: Front | None = None
        if repeat.oracle is not None:
            prepared = bench.prepared
            attainable = oracle_front(test, repeat.oracle, grid, [1.0], list(prepared.betas), prepared.config.metric)
            attainables.append(attainable)
        described.append(
            {
                "name": repeat.name,
                "seed": repeat.seed,
                "groups": {name: len(part.groups) for name, part in repeat.parts.items()},
                "items": {name: int(part.sizes.sum()) for name, part in repeat.parts.items()},
            }
        )
        main_target: float | None = None
        for entry in sorted(entries, key=lambda one: one.method == LIGHTGBM_LS):  # it is told what to match
            if entry.method == LIGHTGBM_LS:
                from hyperdpo.ranking.gbdt_bench import lightgbm_model

                model = lightgbm_model(bench, entry, grid, few_weightings(grid.shape[1]), main_target)
            else:
                model = bench.model(entry, grid)
            result: dict[str, Any] = {"repeat": repeat.name, "seed": repeat.seed}
            result |= measure(bench, model, entry, test, grid, attainable)
            results[entry.label].append(result)
            if entry.one_shot and main_target is None:
                main_target = _main_at_few(bench, model, grid.shape[1])
            say(
                f"{repeat.name} ({number} of {len(repeats)}) {entry.label}: hypervolume "
                f"{four_digits(result['hypervolume'])}, with main {four_digits(result['hypervolume_with_main'])}, "
                f"{result['train_seconds']:.1f} s"
            )
    return {
        "methods": {entry.label: summary(entry, results[entry.label]) for entry in entries},
        "chosen": _chosen(entries, results),
        "base": _mean_point(bases),
        "weights": grid.tolist(),
        "temperatures": [o.beta for o in config.objectives],
        "repeats": described,
        "settings": config.to_dict(),
        "versions": versions() | ({"lightgbm": version("lightgbm")} if with_lightgbm else {}),
        "oracle": mean_points([front.to_dict()["points"] for front in attainables])
        if len(attainables) == len(repeats)
        else None,
    }


def refuse_several_processes(accelerator: Accelerator) -> None:
    """A comparison trains its models one after the other, in one process.

    Raises:
        InputError: there are several.
    """
    if accelerator.num_processes > 1:
        raise InputError(
            f"a comparison runs in one process, found {accelerator.num_processes}; "
            "expected it without accelerate launch"
        )


def measure(
    bench: Bench, model: Model, entry: Entry, test: Examples, grid: np.ndarray, attainable: Front | None = None
) -> dict[str, Any]:
    """Everything that one repeat says about an entry.

    Args:
        attainable: the oracle's front at the grid, where it is known.

    Returns:
        The front's own keys, cost, the front on validation groups, and ``views``: fronts at other scales, at more
        weightings, at other temperatures, which no method needs a training for.
    """
    betas, metric, device = bench.prepared.betas, bench.prepared.config.metric, bench.accelerator.device

    def front(
        weights: np.ndarray,
        scales: Sequence[float] = (1.0,),
        at: Sequence[float] = betas,
        on: Examples = test,
        with_losses: bool = False,
    ) -> Front:
        score = model.scores(on, weights, at)
        return evaluate_front(score, on, weights, scales, at, metric, device=device, with_losses=with_losses)

    own = front(grid, with_losses=True)
    result = own.to_dict() | spread_of_main(own)
    result |= {
        "train_seconds": model.seconds,
        "models": model.models,
        "parameters": model.parameters,
        "epochs": model.epochs,
        "epochs_allowed": model.epochs_allowed,
        "vertices": vertices(own),
    }
    if model.details:
        result["details"] = dict(model.details)
    result["validation"] = volumes(front(grid, on=bench.validation))
    views: dict[str, Front] = {}
    if entry.scales:
        views["scales"] = front(grid, sorted({1.0, *entry.scales}))
        result["best_scale"] = best_scale([front(grid, [c], on=bench.validation) for c in SCALES])
        views["best scale"] = front(grid, [result["best_scale"]])
    if entry.one_shot and entry.dense and len(betas) > 1:
        views["dense"] = front(weight_grid(len(betas), DENSE_POINTS))
    for temperatures in entry.temperatures:
        views["temperature " + ",".join(f"{b:g}" for b in temperatures)] = front(grid, at=temperatures)
    result["views"] = {name: view.to_dict() for name, view in views.items()}
    for view in result["views"].values():
        for shared in ("objectives", "directions", "metric", "groups_counted", "reference_point"):
            del view[shared]
    if attainable is not None:
        result["oracle"] = attained(own, attainable)
    return result


def best_scale(fronts: Sequence[Front]) -> float:
    """The scale of the best of some fronts at one scale each."""
    return float(max(fronts, key=quality).scales[0])


def few_weightings(num_objectives: int) -> np.ndarray:
    """At which a share of the main label is tried: the vertices and points between them, one of two objectives and
    two of more."""
    return weight_grid(num_objectives, 3 if num_objectives <= 2 else num_objectives + 2)


def _main_at_few(bench: Bench, model: Model, num_objectives: int) -> float | None:
    """Mean main metric on validation groups at the weightings that another method is matched at."""
    prepared, few = bench.prepared, few_weightings(num_objectives)
    score = model.scores(bench.validation, few, prepared.betas)
    front = evaluate_front(
        score, bench.validation, few, [1.0], prepared.betas, prepared.config.metric, with_losses=False
    )
    return spread_of_main(front)["main_mean"]


def base_point(bench: Bench, test: Examples) -> dict[str, Any]:
    """The base as a front of one point."""
    prepared = bench.prepared
    m = len(prepared.betas)
    front = evaluate_front(
        lambda _, batch: batch.base_scores.unsqueeze(0),
        test,
        np.full((1, m), 1 / m),
        [1.0],
        prepared.betas,
        prepared.config.metric,
        device=bench.accelerator.device,
        with_losses=False,
    )
    point = front.to_dict()["points"][0]
    return {"metrics": point["metrics"], "main": point["main"]}


def volumes(front: Front) -> dict[str, Any]:
    """Hypervolumes and the mean main metric."""
    return {
        "hypervolume": front.hypervolume,
        "hypervolume_with_main": front.hypervolume_with_main,
        **spread_of_main(front),
    }


def spread_of_main(front: Front) -> dict[str, float | None]:
    """Mean and standard deviation of the main metric over the points."""
    if front.main is None or np.isnan(front.main).all():
        return {"main_mean": None, "main_sd": None}
    return {"main_mean": float(np.nanmean(front.main)), "main_sd": float(np.nanstd(front.main))}


def vertices(front: Front) -> dict[str, float | None]:
    """Each objective's own metric where all weight lies on it."""
    found: dict[str, float | None] = {}
    for j, name in enumerate(front.objectives):
        at = np.flatnonzero(front.weights[:, j] == 1)
        value = float(front.metrics[at[0], j]) if len(at) else np.nan
        found[name] = None if np.isnan(value) else value
    return found


def attained(front: Front, attainable: Front) -> dict[str, Any]:
    """What part of the attainable front a front reaches, and what it loses at each w.

    Returns:
        Hypervolumes of the oracle and the fractions of them; ``regret``: at each point, the weighted metric
        sum_j w_j NDCG_j of the oracle minus that of the front.
    """
    best, with_main = attainable.hypervolume, attainable.hypervolume_with_main
    own = front.hypervolume_with_main
    regret = (front.weights * (np.nan_to_num(attainable.metrics) - np.nan_to_num(front.metrics))).sum(1)
    return {
        "hypervolume": best,
        "hypervolume_with_main": with_main,
        "fraction": front.hypervolume / best if best else None,
        "fraction_with_main": own / with_main if own is not None and with_main else None,
        "regret": regret.tolist(),
    }


def summary(entry: Entry, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An entry over all repeats: means, standard deviations (None for one repeat), and each repeat."""
    first = seeds[0]
    result = {name: first[name] for name in ("objectives", "directions", "metric", "reference_point")}
    result |= {"method": entry.method, "settings": dict(entry.overrides), "one_shot": entry.one_shot}
    for name in AVERAGED:
        result[name], result[f"{name}_sd"] = mean_and_sd([seed[name] for seed in seeds])
    result["epochs"] = mean_and_sd([float(np.mean(seed["epochs"])) if seed["epochs"] else None for seed in seeds])[0]
    result["epochs_allowed"] = first["epochs_allowed"]
    result["points"] = mean_points([seed["points"] for seed in seeds])
    result["vertices"] = {n: mean_and_sd([seed["vertices"][n] for seed in seeds])[0] for n in first["vertices"]}
    for part in ("validation", "oracle"):
        if part in first:
            numbers = [key for key in first[part] if key != "regret"]
            result[part] = {key: mean_and_sd([seed[part][key] for seed in seeds])[0] for key in numbers}
    if "oracle" in first:
        result["oracle"]["regret"] = np.mean([seed["oracle"]["regret"] for seed in seeds], axis=0).tolist()
    result["views"] = {}
    for name in first["views"]:
        one: dict[str, Any] = {"points": mean_points([seed["views"][name]["points"] for seed in seeds])}
        for key in ("hypervolume", "hypervolume_with_main"):
            one[key], one[f"{key}_sd"] = mean_and_sd([seed["views"][name][key] for seed in seeds])
        result["views"][name] = one
    result["seeds"] = [dict(seed) for seed in seeds]
    return result


def mean_front(one: Mapping[str, Any]) -> Front:
    """The averaged points of an entry of ``compare.json`` as a front, to be drawn."""
    names, points = one["objectives"], one["points"]

    def table(values: Sequence[Sequence[float | None]]) -> np.ndarray:
        return np.array(values, dtype=np.float64)

    metrics = table([[point["metrics"][name] for name in names] for point in points])
    main = table([[point["main"]] for point in points])[:, 0]
    return Front(
        objectives=tuple(names),
        weights=table([point["weights"] for point in points]),
        scales=table([[point["scale"]] for point in points])[:, 0],
        temperatures=table([point["temperature"] for point in points]),
        metrics=metrics,
        main=None if np.isnan(main).all() else main,
        mrr=np.full_like(metrics, np.nan),
        cross_entropy=np.full_like(metrics, np.nan),
        groups_counted=np.full(len(names), np.nan),
        settings=NdcgSettings(k=one["metric"]["k"], gain=one["metric"]["gain"], empty=one["metric"]["empty"]),
    )


def mean_and_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (of n - 1; None for one repeat); None where a repeat has no value."""
    if any(value is None for value in values):
        return None, None
    array = np.array(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def mean_points(fronts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The points of several fronts at the same weights, scales and temperatures, averaged one by one."""
    averaged = []
    for points in zip(*fronts, strict=True):
        one = {name: points[0][name] for name in ("weights", "scale", "temperature")}
        one["metrics"], one["metrics_sd"] = {}, {}
        for name in points[0]["metrics"]:
            one["metrics"][name], one["metrics_sd"][name] = mean_and_sd([p["metrics"][name] for p in points])
        one["main"], one["main_sd"] = mean_and_sd([p["main"] for p in points])
        averaged.append(one)
    return averaged


def _chosen(entries: Sequence[Entry], results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str | None:
    """The one-shot entry with the best front on validation groups, with main where there is one."""
    best: tuple[float, str] | None = None
    for entry in entries:
        if entry.one_shot:
            fronts = [seed["validation"] for seed in results[entry.label]]
            with_main = mean_and_sd([front["hypervolume_with_main"] for front in fronts])[0]
            value = mean_and_sd([front["hypervolume"] for front in fronts])[0] if with_main is None else with_main
            if value is not None and (best is None or value > best[0]):
                best = (value, entry.label)
    return None if best is None else best[1]


def _mean_point(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = points[0]["metrics"]
    return {
        "metrics": {name: mean_and_sd([p["metrics"][name] for p in points])[0] for name in names},
        "main": mean_and_sd([p["main"] for p in points])[0],
    }

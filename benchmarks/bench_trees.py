"""The training of expected gains with trees against m + 2 plain LightGBM rankers on the same rows, in turn.

    OMP_NUM_THREADS=1 python benchmarks/bench_trees.py [DATA --config FILE] [--queries 600] [--rounds 3]

Generated queries, or the rows of DATA, with the objectives of ``--objectives`` and the main label. ``fit`` trains
scorer.kind gbdt and blend on the training and validation groups of the project's split, with base scores of 0. The
rankers are LightGBM's own LGBMRanker with as many trees, leaves and rounds of patience: one for each objective, one for
the main label, and one for their mean. Prints processor seconds, medians over the rounds, and of their ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import lightgbm
import numpy as np

from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.data.transform import column_values
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.clicks import read_labels
from hyperdpo.ranking.config import RankConfig, build_config, with_overrides
from hyperdpo.ranking.features import choose_features
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.training import make_accelerator


def fit_seconds(config: RankConfig, parts: dict[str, Part], kind: str) -> float:
    """Processor seconds of a fit with given base scores."""
    config = with_overrides(config, {"scorer": {"kind": kind}, "mixture": {"form": "gain"}})
    scores = {name: np.zeros(part.table.num_rows, np.float32) for name, part in parts.items()}
    accelerator = make_accelerator("no", cpu=True)
    started = time.process_time()
    fit_run(config, parts, accelerator, base_source=BaseSource("given"), given_base=scores)
    return time.process_time() - started


def lightgbm_seconds(config: RankConfig, parts: dict[str, Part]) -> float:
    """Processor seconds of m + 2 plain rankers: reading the features is not among them, making the bins is."""
    assert config.main is not None
    columns, labels = choose_features(parts["train"].table, config).columns, (*config.objectives, config.main)
    data = {}
    for name, part in parts.items():
        values = read_labels(part, labels, config.qid_column)[0]
        data[name] = column_values(part, columns), np.column_stack([values, values.mean(1)]), part.sizes
    started = time.process_time()
    for k in range(len(labels) + 1):
        grades = {name: graded(y[:, k], config.gbdt.levels) for name, (_, y, _) in data.items()}
        ranker = lightgbm.LGBMRanker(
            n_estimators=config.gbdt.trees,
            learning_rate=config.gbdt.learning_rate,
            num_leaves=config.gbdt.leaves,
            min_child_samples=config.gbdt.min_items_in_leaf,
            label_gain=list(range(config.gbdt.levels)),
            n_jobs=1,
            verbose=-1,
        )
        x, _, sizes = data["validation"]
        ranker.fit(
            data["train"][0],
            grades["train"],
            group=data["train"][2],
            eval_set=[(x, grades["validation"])],
            eval_group=[sizes],
            eval_at=[10],
            callbacks=[lightgbm.early_stopping(config.gbdt.patience, verbose=False)],
        )
    return time.process_time() - started


def graded(values: np.ndarray, levels: int) -> np.ndarray:
    """Whole grades from 0 on, as LambdaMART wants them."""
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) / (high - low or 1.0) * (levels - 1)).astype(int)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--objectives", default="134,135")
    parser.add_argument("--queries", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    names = options.objectives.split(",")
    settings = (
        {}
        if options.config
        else {"objectives": [{"name": n, "column": n} for n in names], "excluded_columns": ["132", "133", "136"]}
    )
    with tempfile.TemporaryDirectory() as directory:
        path = options.data or Path(directory, "data.txt")
        if options.data is None:
            generate(path, options.queries, 21)
        config = build_config(config_file=options.config, overrides=settings)
        config = replace(config, gbdt=replace(config.gbdt, threads=1))
        table = read_table(path)
        parts = {name: part for name, part in split_table(table, config).items() if name != "test"}
        sides: dict[str, Callable[[], float]] = {
            "gbdt": lambda: fit_seconds(config, parts, "gbdt"),
            "blend": lambda: fit_seconds(config, parts, "blend"),
            "m + 2 rankers": lambda: lightgbm_seconds(config, parts),
        }
        found: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(options.rounds):
            for name in list(sides)[:: 1 if number % 2 else -1]:
                found[name].append(sides[name]())
                print(f"round {number}, {name}: {found[name][-1]:.2f} s", flush=True)
    rankers = found["m + 2 rankers"]
    items = sum(int(part.sizes.sum()) for part in parts.values())
    print(f"{len(config.objectives)} objectives, {items:,} items: {median(rankers):.2f} s for m + 2 LightGBM rankers")
    for name in ("gbdt", "blend"):
        ratios = [own / other for own, other in zip(found[name], rankers, strict=True)]
        print(f"{name}: {median(found[name]):.2f} s, {median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()

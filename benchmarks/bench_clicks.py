"""What position bias costs, and what corrections win back: fronts of expected gains, measured by the oracle's labels.

    python benchmarks/bench_clicks.py --queries 400 --seeds 5 --kind gbdt

Each seed has its own generated queries: the first 60% for training, then 20% for validation, then 20% for the test.
Rows and features are the same in all data sets; only the clicks (two sparse objectives) differ.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import POSITION, PROPENSITY, Clicks, generate
from hyperdpo.data.transform import column_values
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import RankConfig, build_config
from hyperdpo.ranking.evaluation import Front
from hyperdpo.ranking.fitting import fit_run
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import make_accelerator

COLUMNS = ("134", "135")
#: name: (how the clicks were logged, settings of the objectives).
VARIANTS: Mapping[str, tuple[Clicks, Mapping[str, Any]]] = {
    "every click seen": (Clicks(power=0), {}),
    "biased, as they are": (Clicks(), {}),
    "biased, known propensity": (Clicks(), {"propensity": PROPENSITY}),
    "biased, fitted position": (Clicks(), {"position": POSITION}),
}


def config_of(kind: str, settings: Mapping[str, Any], seed: int) -> RankConfig:
    """Expected gains of the two objectives."""
    return build_config(
        overrides={
            "objectives": [{"name": column, "column": column, "target": "l1", **settings} for column in COLUMNS],
            "main": {"name": "relevance"},
            "mixture": {"form": "gain"},
            "scorer": {"kind": kind},
            "gbdt": {"threads": 1},
            "excluded_columns": ["132", "133", "136", POSITION, PROPENSITY],
            "seed": seed,
        }
    )


def parts_of(path: Path) -> dict[str, Part]:
    """60%, 20% and 20% of the groups, in order: no query is in two parts (but one that is shown twice may be)."""
    table = read_table(path)
    bounds = np.round(np.cumsum([0, 0.6, 0.2, 0.2]) * table.num_groups).astype(int)
    names = ("train", "validation", "test")
    return {name: Part(table, np.arange(*bounds[i : i + 2])) for i, name in enumerate(names)}


def oracle_front(run: RankRun, part: Part, oracle: Path) -> Front:
    """The run's front by the labels' expectations."""
    examples = run.examples(part, base_scores=np.zeros(part.table.num_rows, np.float32))
    truth = column_values(Part(read_table(oracle), part.groups), (*COLUMNS, "relevance"))
    plain = replace(examples, gains=truth[:, :2], main_gains=truth[:, 2], click_counts=None)
    return run.front(plain, weight_grid(2, 11))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kind", default="gbdt")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in VARIANTS}
    started = time.monotonic()
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as directory:
            for name, (clicks, settings) in VARIANTS.items():
                data, oracle = Path(directory, "data.txt"), Path(directory, "oracle.csv")
                generate(data, options.queries, 100 + seed, oracle, clicks=clicks)
                parts = parts_of(data)
                run = fit_run(
                    config_of(options.kind, settings, seed),
                    {key: part for key, part in parts.items() if key != "test"},
                    make_accelerator("no", cpu=True),
                    base_source=BaseSource("given"),
                    given_base={key: np.zeros(part.table.num_rows, np.float32) for key, part in parts.items()},
                )
                front = oracle_front(run, parts["test"], oracle)
                assert front.main is not None
                power = run.config.objectives[0].position_power
                found[name].append((front.hypervolume, float(front.hypervolume_with_main or 0), front.main.mean()))
                numbers = " ".join(f"{number:.4f}" for number in found[name][-1])
                print(f"seed {seed} {name}: {numbers}" + (f" η {power:.3f}" if power else ""), flush=True)
    print(f"\n{options.kind}, {options.queries} queries, {options.seeds} seeds, {time.monotonic() - started:.0f} s")
    print("| clicks | hypervolume | with main | mean main |\n|---|---|---|---|")
    for name, rows in found.items():
        cells = [f"{mean:.4f} ± {sd:.4f}" for mean, sd in zip(np.mean(rows, 0), np.std(rows, 0, ddof=1), strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")
    volumes = {name: np.array(rows)[:, :2] for name, rows in found.items()}
    best, biased, *corrected = volumes
    for name in corrected:
        won = (volumes[name] - volumes[biased]).mean(0) / (volumes[best] - volumes[biased]).mean(0)
        print(f"{name}: wins back {won[0]:.0%} of what the bias costs; with main {won[1]:.0%}")


if __name__ == "__main__":
    main()

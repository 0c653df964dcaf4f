"""Scoring with Dask: one worker process against `rank score` on the same files, and two workers.

    OMP_NUM_THREADS=1 python benchmarks/bench_dask.py [--queries 1000] [--files 8] [--rounds 3]

Generates data, trains a small run, writes the data as Parquet files of whole groups, and scores all of them in turn:
with `rank score` file by file in this process, with one warm worker, and with two. All start without parsed files and
without base scores. Checks that the scores agree, and prints rows/s: medians over the rounds, and of their ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyperdpo.data.cache import read_table
from hyperdpo.data.synthetic import generate
from hyperdpo.ranking.commands import score_command
from hyperdpo.ranking.config import build_config
from hyperdpo.ranking.distributed import local_cluster, score_files
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.scoring import ScoreRequest
from hyperdpo.ranking.training import make_accelerator


def prepared(directory: Path, queries: int, files: int) -> tuple[Path, list[Path]]:
    """A run, and the Parquet files."""
    generate(directory / "data.txt", queries, seed=1)
    table = read_table(directory / "data.txt")
    quick = {"training": {"epochs": 1}, "base_training": {"epochs": 1}}
    config = build_config(preset="mslr", objectives=["query_url_clicks", "quality"], overrides=quick)
    fit_run(config, split_table(table, config), make_accelerator("no", cpu=True), out=directory / "run")
    columns = {"qid": np.repeat(table.qids, table.group_sizes)}
    columns |= {name: table.values[:, j] for j, name in enumerate(table.columns)}
    whole, found = pa.table(columns), []
    cuts = table.offsets[np.linspace(0, table.num_groups, files + 1).astype(int)]
    (directory / "parts").mkdir()
    for i, (start, stop) in enumerate(pairwise(cuts)):
        found.append(directory / "parts" / f"part-{i}.parquet")
        pq.write_table(whole.slice(start, stop - start), found[-1])
    return directory / "run", found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, local_cluster(1) as one, local_cluster(2) as two:
        directory = Path(place)
        os.environ["HYPERDPO_CACHE"] = str(directory / "cache")
        path, files = prepared(directory, options.queries, options.files)
        request = ScoreRequest((0.3, 0.7), 2.0)
        rows = sum(pq.read_metadata(file).num_rows for file in files)

        def plain() -> None:
            for file in files:
                out = directory / f"{file.stem}.npy"
                with contextlib.redirect_stdout(io.StringIO()):
                    score_command(path, file, weights=".3,.7", scale=2.0, out=out, cpu=True)

        def dask(cluster: Any) -> None:
            run, out = RankRun.load(path), directory / "scores"
            score_files(run, files[0].parent, request, out, scheduler=cluster.scheduler_address, cpu=True)

        ways = {"rank score": plain, "one worker": lambda: dask(one), "two workers": lambda: dask(two)}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds + 1):  # the first warms up
            for name, way in ways.items():
                for kept in (directory / "cache", directory / "scores", path / "base_scores"):
                    shutil.rmtree(kept, ignore_errors=True)
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
        for file in files:
            made = pq.read_table(directory / "scores" / f"{file.stem}-00000.parquet")["score"].to_numpy()
            np.testing.assert_allclose(made, np.load(directory / f"{file.stem}.npy"), atol=2e-6)
        print(f"{rows:,} rows in {len(files)} files")
        for name, taken in seconds.items():
            ratio = median(a / b for a, b in zip(seconds["rank score"][1:], taken[1:], strict=True))
            print(f"{name}: {rows / median(taken[1:]):,.0f} rows/s, {ratio:.2f} x")


if __name__ == "__main__":
    main()

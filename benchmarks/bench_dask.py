"""Scoring with Dask: one worker process against `rank score` on the same files, and two workers.

    OMP_NUM_THREADS=1 python benchmarks/bench_dask.py [--queries 1000] [--files 8] [--rounds 3]
    OMP_NUM_THREADS=1 python benchmarks/bench_dask.py --memory [--queries 1000]

Generates data, trains a small run, writes the data as Parquet files of whole groups, and scores all of them in turn:
with `rank score` file by file in this process, with one warm worker, and with two. All start without parsed files and
without base scores. Checks that the scores agree, and prints rows/s: medians over the rounds, and of their ratios.

With --memory: the peak memory of a worker that scores the data once and four times as many rows, in one file each, in
partitions of a fixed size and in one partition. It is what the process adds to what it has before, resident pages of
mapped files included.
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
from distributed import Client

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
        pq.write_table(whole.slice(start, stop - start), found[-1], row_group_size=5_000)
    return directory / "run", found


def peak_memory(queries: int) -> None:
    """Print the peak memory of a worker at each number of rows and size of partitions."""

    def peak() -> int:
        # Not getrusage's: that of a process begins at its parent's.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    for times in (1, 4):
        with tempfile.TemporaryDirectory() as place:
            directory = Path(place)
            os.environ["HYPERDPO_CACHE"] = str(directory / "cache")
            path, (file,) = prepared(directory, queries * times, 1)
            rows = pq.read_metadata(file).num_rows
            for most in (5_000, rows):
                with local_cluster(1) as cluster, Client(cluster) as client:
                    (before,) = client.run(peak).values()
                    out = directory / f"scores-{most}"
                    run, where = RankRun.load(path), cluster.scheduler_address
                    score_files(
                        run, file.parent, ScoreRequest((0.3, 0.7)), out, scheduler=where, partition_rows=most, cpu=True
                    )
                    (after,) = client.run(peak).values()
                print(f"{rows:,} rows, at most {most:,} in a partition: {(after - before) / 1024:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.memory:
        peak_memory(options.queries)
        return
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

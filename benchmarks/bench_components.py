"""What a trade-off costs from components, against the ONNX graph.

    python benchmarks/bench_components.py [--lists 1000] [--rounds 5]

Lists of 120 documents x 136 features, a ranker of expected gains of the default size (hardly trained: the arithmetic is
the same). Both sides rank all lists at one trade-off, sort included, with one thread, and take turns at a new trade-off
in each round. The graph is called with one list or eight at a time, whichever is faster; components are one matrix
product and one sort of each list. The two rankings are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_serving import FEATURES, ITEMS, saved_ranker

#: Lists of one call of the graph.
BATCHES = (1, 8)


def graph_inputs(features: np.ndarray, w: np.ndarray, share: float) -> dict[str, np.ndarray]:
    """(B, n, F) lists at one trade-off, scale 1."""
    lists = len(features)
    return {
        "features": features,
        "mask": np.ones(features.shape[:2], bool),
        "weights": np.tile(w, (lists, 1)).astype(np.float32),
        "scale": np.ones(lists, np.float32),
        "main_share": np.full(lists, share, np.float32),
    }


def by_graph(session: Any, features: np.ndarray, w: np.ndarray, share: float, batch: int) -> np.ndarray:
    """(L, n) scores."""
    parts = [features[start : start + batch] for start in range(0, len(features), batch)]
    return np.concatenate([session.run(["scores"], graph_inputs(part, w, share))[0] for part in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as place:
        file = saved_ranker(Path(place) / "ranker.onnx", form="gain")
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    features = rng.normal(size=(arguments.lists, ITEMS, FEATURES)).astype(np.float32)
    columns = np.concatenate(
        [session.run(["components"], graph_inputs(one[None], np.array([0.5, 0.5]), 0.2))[0] for one in features]
    )
    times: dict[str, list[float]] = {"components": [], **{f"graph, {batch} at a time": [] for batch in BATCHES}}
    for _ in range(arguments.rounds):
        first, share = rng.random(), float(rng.uniform(0, 0.5))
        w = np.array([first, 1 - first])
        started = time.perf_counter()
        v = np.append((1 - share) * w, share).astype(np.float32)
        order = np.argsort(-(columns @ v), axis=1)
        times["components"].append(time.perf_counter() - started)
        for batch in BATCHES:
            started = time.perf_counter()
            scores = by_graph(session, features, w, share, batch)
            np.argsort(-scores, axis=1)
            times[f"graph, {batch} at a time"].append(time.perf_counter() - started)
        falling = np.take_along_axis(scores, order, 1)
        if np.diff(falling).max() > 1e-4 * np.ptp(scores):
            raise SystemExit("the two rankings differ")
    for name, values in times.items():
        print(
            f"  {name:<22} {1e3 * statistics.median(values):9.2f} ms (rounds {1e3 * min(values):.2f} to "
            f"{1e3 * max(values):.2f})"
        )
    ratios = [min(graphs) / own for own, *graphs in zip(*times.values(), strict=True)]
    print(
        f"a trade-off of {arguments.lists:,} lists of {ITEMS}, sort included: components are "
        f"{statistics.median(ratios):.0f} x as fast (rounds {min(ratios):.0f} to {max(ratios):.0f})"
    )


if __name__ == "__main__":
    main()

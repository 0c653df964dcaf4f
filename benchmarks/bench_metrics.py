"""NDCG@10 of 2,000 groups of 5 to 200 items: this project against torchmetrics and scikit-learn.

    .venv/bin/python benchmarks/bench_metrics.py

The values are compared while they are timed. Peers are called group by group, which is the only way they have for
groups of different sizes. Times are the best of several runs, of one evaluation on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.metrics import ndcg_score
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from hyperdpo.ranking.metrics import NdcgSettings, ideal_dcg, ndcg

SETTINGS = NdcgSettings(k=10)


def best_of(runs: int, call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of the fastest run, and its value."""
    seconds, value = float("inf"), np.empty(0)
    for _ in range(runs):
        start = time.perf_counter()
        value = call()
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, value


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 201, 2000)
    mask = torch.from_numpy(np.arange(200) < sizes[:, None])
    labels = torch.from_numpy(rng.integers(0, 5, mask.shape).astype(np.float32))
    labels[:, 0] = 1
    distinct = torch.from_numpy(rng.permuted(np.tile(np.arange(200, dtype=np.float32), (2000, 1)), axis=1))
    tied = torch.floor(distinct / 4)  # about four items to a score
    weightings = torch.stack([distinct, distinct.flip(0), *[distinct.roll(i, 1) for i in range(1, 10)]]).unsqueeze(1)
    objectives = torch.stack([labels, labels.roll(1, 0), labels.roll(2, 0), labels.roll(3, 0), labels.roll(4, 0)])
    ideal = ideal_dcg(objectives, mask, SETTINGS)

    def ragged(values: torch.Tensor) -> list[torch.Tensor]:
        return [row[:size] for row, size in zip(values, sizes.tolist(), strict=True)]

    def hyperdpo(scores: torch.Tensor) -> np.ndarray:
        return ndcg(scores, labels, mask, SETTINGS).numpy()

    def torchmetrics_loop(scores: torch.Tensor) -> np.ndarray:
        pairs = zip(ragged(scores), ragged(labels), strict=True)
        return np.array([retrieval_normalized_dcg(s, y.long(), top_k=10).item() for s, y in pairs])

    def sklearn_loop(scores: torch.Tensor) -> np.ndarray:
        pairs = zip(ragged(scores), ragged(labels), strict=True)
        return np.array([ndcg_score(y.numpy()[None], s.numpy()[None], k=10) for s, y in pairs])

    print("| NDCG@10, 2,000 groups | ms | ratio | largest difference |\n|---|---:|---:|---:|")
    for name, scores in (("distinct scores", distinct), ("tied scores", tied)):
        seconds, ours = best_of(10, partial(hyperdpo, scores))
        print(f"| hyperdpo, {name} | {1e3 * seconds:.1f} | 1 | |")
        for peer, call in (("torchmetrics", torchmetrics_loop), ("scikit-learn", sklearn_loop)):
            peer_seconds, theirs = best_of(2, partial(call, scores))
            difference = np.abs(ours - theirs).max()
            assert difference < 1e-6, f"{peer}: NDCG differs by {difference}"
            print(f"| {peer}, {name} | {1e3 * peer_seconds:.1f} | {peer_seconds / seconds:.0f} | {difference:.1e} |")
    seconds, _ = best_of(3, lambda: ndcg(weightings, objectives, mask, SETTINGS, ideal).numpy())
    print(f"| hyperdpo, 11 weightings x 5 objectives at once | {1e3 * seconds:.1f} | | |")


if __name__ == "__main__":
    main()

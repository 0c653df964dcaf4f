"""Training: the share of the machine's matrix-multiplication rate that a step reaches, and what the weights w cost.

    python benchmarks/bench_training.py [--groups 600] [--profile]

Sizes as in the paper: 131 features, 5 objectives, 2 layers, d = 64, token-budget batches of 4,096 documents; lists of
120 documents on average, as in MSLR-WEB10K. Only the multiplications that the model needs are counted: not padding, not
the loss.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np
import torch

from hyperdpo.data.batching import shuffled_batches
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part, split_groups
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.ranking.config import RankConfig, ScorerConfig, TrainingConfig, build_config
from hyperdpo.ranking.draws import dirichlet_weights, fixed_weights
from hyperdpo.ranking.examples import Examples, Features, build_examples, feature_columns
from hyperdpo.ranking.parametrizations import Ranker
from hyperdpo.ranking.training import Training, _Loop, make_accelerator, train

OBJECTIVES = 5
#: Size of the matrices whose product is the measure.
PRODUCT = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")

    config = build_config(preset="mslr", paper=True)
    examples = {name: _examples(config, part) for name, part in _parts(arguments.groups).items()}
    accelerator = make_accelerator("no", cpu=True)
    loop = _Loop(_job(config, examples, conditioned=True), accelerator)
    batches = shuffled_batches(examples["train"].sizes, loop.budget, np.random.default_rng(0))
    flops = np.array([step_flops(config.scorer, examples["train"].sizes[b.groups]) for b in batches])
    padded = sum(len(b.groups) * b.length for b in batches)
    items = examples["train"].num_items
    a, b = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT)
    shares, speeds, rates = [], [], []
    for _ in range(arguments.repeats):
        # A product before each step: the speed of a shared machine drifts, and both then see the same drift.
        products, steps = np.zeros(len(batches)), np.zeros(len(batches))
        for step, batch in enumerate(batches):
            started = time.perf_counter()
            torch.mm(a, b)
            between = time.perf_counter()
            loop._step(step, batch)
            products[step], steps[step] = between - started, time.perf_counter() - between
        rates.append(2 * PRODUCT**3 * len(batches) / products.sum())
        speeds.append(items / steps.sum())
        shares.append(flops.sum() / steps.sum() / rates[-1])
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; float32 product of {PRODUCT}-square matrices: "
        f"{statistics.median(rates) / 1e9:.0f} GFLOP/s (best tried alone: {matmul_rate() / 1e9:.0f})"
    )
    print(
        f"training step: {statistics.median(speeds):,.0f} documents/s in batches of {items / len(batches):,.0f}, "
        f"padding {padded / items - 1:.1%}, {flops.sum() / items * statistics.median(speeds) / 1e9:.0f} GFLOP/s"
    )
    print(f"share of the product's rate: {statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})")
    if arguments.profile:
        profile(loop, batches[:8])

    ratios = []
    for _ in range(arguments.repeats):
        seconds = {}
        for name, conditioned in (("with w", True), ("without w", False)):
            history = train(_job(config, examples, conditioned=conditioned), accelerator)
            seconds[name] = history.seconds
        ratios.append(seconds["with w"] / seconds["without w"])
    print(
        f"one HyperDPO fit over one of the same network without w, same steps and evaluations: "
        f"{statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
    )


def matmul_rate() -> float:
    """FLOP/s of square float32 products; the best size and try, after a warm-up."""
    best = 0.0
    for n in (512, 1024, 2048):
        a, b = torch.randn(n, n), torch.randn(n, n)
        for _ in range(8):
            started = time.perf_counter()
            torch.mm(a, b)
            best = max(best, 2 * n**3 / (time.perf_counter() - started))
    return best


def step_flops(scorer: ScorerConfig, sizes: np.ndarray, features: int = 131) -> float:
    """Multiplications and additions of the model, forward and backward, for groups of these sizes.

    Backward costs twice the forward pass, but nothing needs the gradient of the features.
    """
    width, inner = scorer.width, scorer.feedforward or 0
    items, pairs = float(sizes.sum()), float((sizes.astype(np.float64) ** 2).sum())
    first = 2 * items * features * width
    blocks = scorer.layers * (2 * items * (4 * width**2 + 2 * width * inner) + 4 * pairs * width)
    return 3 * (first + blocks + 2 * items * width) - first


def profile(loop: _Loop, batches: list) -> None:
    from torch.profiler import ProfilerActivity

    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as recorded:
        for step, batch in enumerate(batches):
            loop._step(step, batch)
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=50))


def _job(config: RankConfig, examples: dict[str, Examples], *, conditioned: bool) -> Training:
    m = OBJECTIVES
    training = TrainingConfig(epochs=15, evaluations=4, patience=0)
    return Training(
        name="bench",
        ranker=Ranker(config.scorer, 131, m if conditioned else 0),
        train=examples["train"],
        validation=examples["validation"],
        sampler=dirichlet_weights(training, m, 0) if conditioned else fixed_weights(np.full(m, 1 / m)),
        betas=(1.0,) * m,
        config=training,
        metric=config.metric,
        seed=0,
    )


def _parts(groups: int) -> dict[str, Part]:
    rng = np.random.default_rng(0)
    sizes = np.clip(rng.gamma(2.2, 55, groups).round(), 5, 900).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    values = rng.gamma(1.0, 20.0, (offsets[-1], 137)).astype(np.float32)
    values[:, 0] = rng.integers(0, 5, offsets[-1])
    values[:, 134:] *= rng.random((offsets[-1], 3)) < 0.1
    columns = ("relevance", *(str(k) for k in range(1, 137)))
    table = GroupedTable(values, columns, np.arange(groups), offsets)
    split = split_groups(groups, (0.75, 0.25, 0.0), 0)
    return {name: Part(table, split[name]) for name in ("train", "validation")}


def _examples(config: RankConfig, part: Part) -> Examples:
    labels = [o.fitted(part.table.column(o.column)) for o in config.objectives]
    columns = feature_columns(part.table, ["relevance", *(o.column for o in labels)])
    transform = FeatureTransform.fit(part, columns)
    return build_examples(part, labels, config.main, features=Features(part, transform, 2**40))


if __name__ == "__main__":
    main()

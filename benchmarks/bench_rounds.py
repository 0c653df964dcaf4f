"""On-policy rounds against as much data from the base: mean inner product of texts, with the cost of both.

    hyperdpo align improve RUN --prompts-file P --scorer S --rounds 2 --out own
    hyperdpo align improve RUN --prompts-file P --scorer S --rounds 2 --out offline --sample-from base
    python benchmarks/bench_rounds.py own offline

The prompts that are measured, the steps, and the random numbers are the same in both. The interval is a paired
bootstrap over prompts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from hyperdpo.core.inner_product import inner_products


def per_prompt(out: Path, number: int) -> np.ndarray:
    """(T,): each held-out prompt's mean inner product after a round."""
    result, base = (json.loads((out / name).read_text()) for name in ("rounds.json", "base/texts.json"))
    texts = json.loads((out / f"round-{number}" / "texts.json").read_text())
    signs = np.array([-1.0 if way == "minimize" else 1.0 for way in result["directions"].values()])
    own = np.array(base["scores"]).reshape(-1, len(signs)) * signs
    scores = np.array(texts["scores"]) * signs
    return inner_products(np.array(texts["weights"]), scores, own.mean(0), own.std(0)).mean((0, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("own", type=Path)
    parser.add_argument("offline", type=Path)
    asked = parser.parse_args()
    results = {name: json.loads((getattr(asked, name) / "rounds.json").read_text()) for name in ("own", "offline")}
    rng = np.random.default_rng(0)
    for number in range(1, min(len(result["rounds"]) for result in results.values())):
        own, offline = (per_prompt(getattr(asked, name), number) for name in ("own", "offline"))
        draws = rng.integers(len(own), size=(10_000, len(own)))
        ratios = own[draws].mean(1) / offline[draws].mean(1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        costs = {
            name: sum(
                one["seconds"].get(what, 0)
                for one in result["rounds"][: number + 1]
                for what in ("sampling", "training")
            )
            for name, result in results.items()
        }
        print(
            f"round {number}: {own.mean():.3f} against {offline.mean():.3f}, ratio {own.mean() / offline.mean():.2f} "
            f"[{low:.2f}, {high:.2f}]; sampling and training {costs['own']:.0f} s against {costs['offline']:.0f} s"
        )


if __name__ == "__main__":
    main()

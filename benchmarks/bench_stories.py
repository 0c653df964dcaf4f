"""Preferences sampled from a language model: how fast, and how well the text measures tell responses apart.

python benchmarks/bench_stories.py MODEL [--prompts 480]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from hyperdpo.scorers.text_measures import MEASURES
from hyperdpo.stories.preferences import sample_preferences


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="a local causal language model, such as stories260k")
    parser.add_argument("--prompts", type=int, default=480)
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    started = time.process_time()
    sampled = sample_preferences(model, tokenizer, prompts=options.prompts, objectives=tuple(MEASURES), progress=False)
    print(f"{len(sampled)} prompts x 4 responses: {time.process_time() - started:.1f} s of CPU")
    labels = np.array([[group.labels[name] for name in sampled.objectives] for group in sampled.groups])  # (G, m, n)
    centred = labels - labels.mean(2, keepdims=True)
    covariances = np.einsum("gin,gjn->ij", centred, centred)
    correlations = covariances / np.sqrt(np.outer(np.diag(covariances), np.diag(covariances)))
    ties = (np.ptp(labels, axis=2) == 0).mean(0)  # the share of groups that teach nothing
    print(f"{'measure':16} {'mean':>7} {'within':>7} {'ties':>5}  correlation with {sampled.objectives[0]}")
    for j, name in enumerate(sampled.objectives):
        numbers = f"{labels[:, j].mean():7.2f} {np.sqrt((centred[:, j] ** 2).mean()):7.2f} {ties[j]:5.0%}"
        print(f"{name:16} {numbers}  {correlations[0, j]:.2f}")


if __name__ == "__main__":
    main()

"""Preferences sampled from a language model: how fast, and how well the text measures tell responses apart.

python benchmarks/bench_stories.py MODEL [--prompts 480]
"""

from __future__ import annotations

import argparse
import time

from transformers import AutoModelForCausalLM, AutoTokenizer

from hyperdpo.stories.preferences import group_statistics, sample_preferences
from hyperdpo.stories.text_measures import MEASURES


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
    found = group_statistics(sampled)
    print(f"{'measure':16} {'mean':>7} {'within':>7} {'ties':>5}  correlation with {found.objectives[0]}")
    for j, name in enumerate(found.objectives):
        numbers = f"{found.means[j]:7.2f} {found.within[j]:7.2f} {found.ties[j]:5.0%}"
        print(f"{name:16} {numbers}  {found.correlations[0, j]:.2f}")


if __name__ == "__main__":
    main()

"""One HyperDPO training against one of TRL's DPOTrainer, and generation with per-row weights against plain LoRA.

python benchmarks/bench_alignment.py [--model MODEL] [--pairs 256] [--rounds 3]
python benchmarks/bench_alignment.py --generation [--model MODEL]   # generation only
python benchmarks/bench_alignment.py --gpt2     # generation only, a GPT-2-small-shaped model with random weights

Every figure is a ratio within one run: contestants take turns, and the least of each one's seconds counts (of CPU time
where there is no GPU: all runs in one thread, and other processes then count less). All are in float32. Peak memory
is that of a process of its own for each contestant, above what imports and data take. MODEL is a local causal LM such
as stories260k; a GPT-2-shaped one of the same size is trained on the spot if it is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hyperdpo.alignment.data.groups import PreferenceGroup, Preferences
from hyperdpo.alignment.model import ConditionedLM, ConditioningConfig
from hyperdpo.alignment.trainer import HyperDPOConfig, HyperDPOTrainer
from hyperdpo.stories.preferences import sample_preferences

BATCH, EPOCHS = 16, 1
#: Rank and scale of the default adapter, which has as many components for each objective.
LORA = {"r": 8, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
MEASURES = ("positive_words", "sentence_length", "word_length", "short_words", "distinct_words")
CONTESTANTS = ("TRL DPOTrainer", "TRL, reference precomputed", "HyperDPO m = 2", "HyperDPO m = 5")
Pairs = list[dict[str, str]]
clock = time.perf_counter if torch.cuda.is_available() else time.process_time


def pairs_of(model: str, count: int) -> tuple[Pairs, list[PreferenceGroup]]:
    """The same two responses for everybody; labels for five objectives."""
    base, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    sampled = sample_preferences(base, tokenizer, prompts=count, responses=2, objectives=MEASURES, progress=False)
    pairs = []
    for group in sampled.groups:
        first = group.labels[MEASURES[0]]
        order = (0, 1) if first[0] >= first[1] else (1, 0)
        chosen, rejected = (group.completions[i] for i in order)
        pairs.append({"prompt": str(group.prompt), "chosen": chosen, "rejected": rejected})
    return pairs, list(sampled.groups)


def training(contestant: str, model: str, pairs: Pairs, groups: list[PreferenceGroup], out: str) -> Any:
    """A trainer that has not begun."""
    shared: dict[str, Any] = {
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": EPOCHS,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,  # TRL's default is True, which a CPU without bfloat16 instructions only emulates
        "learning_rate": 1e-3,
        "seed": 0,
    }
    tokenizer = AutoTokenizer.from_pretrained(model)
    if contestant.startswith("TRL"):
        from datasets import Dataset
        from peft import LoraConfig
        from trl import DPOConfig, DPOTrainer

        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        ahead = "precomputed" in contestant
        args = DPOConfig(out, beta=0.1, precompute_ref_log_probs=ahead, gradient_checkpointing=False, **shared)
        base = AutoModelForCausalLM.from_pretrained(model)
        config = LoraConfig(task_type="CAUSAL_LM", **targets(base))
        return DPOTrainer(
            base, args=args, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer, peft_config=config
        )
    names = MEASURES[: int(contestant[-1])]
    data = Preferences(groups=tuple(groups), objectives=MEASURES, source="bench")
    conditioning = ConditioningConfig(names)
    return HyperDPOTrainer(
        model, HyperDPOConfig(out, **shared), data, None, tokenizer, conditioning=conditioning, objectives=names
    )


def targets(base: Any) -> dict[str, Any]:
    """The same layers for everybody: PEFT's choice for the type of model."""
    return LORA if base.config.model_type == "llama" else {**LORA, "target_modules": None, "fan_in_fan_out": True}


def seconds_of(contestant: str, model: str, pairs: Pairs, groups: list[PreferenceGroup]) -> float:
    """Seconds of everything from raw pairs to a trained adapter, the base's scores included."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        started = clock()
        training(contestant, model, pairs, groups, out).train()
        return clock() - started


def alone(contestant: str, model: str, source: Path) -> None:
    """In a process of its own: peak memory in MiB above what imports and data take."""
    saved = json.loads(source.read_text())
    groups = [
        PreferenceGroup(prompt=g["prompt"], completions=g["completions"], labels=g["labels"]) for g in saved["groups"]
    ]
    import peft
    import trl  # noqa: F401

    del peft
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = _status("VmRSS")
    seconds_of(contestant, model, saved["pairs"], groups)
    print(f"peak {(_status('VmHWM') - before) / 1024:.1f}")


def _status(name: str) -> int:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def generation(model: str, rounds: int, rows: int = 32, tokens: int = 64) -> None:
    """Seconds per token of a batch, greedy, no row ends early."""
    from peft import LoraConfig, get_peft_model

    plain_base, wide_base, base, other = (AutoModelForCausalLM.from_pretrained(model) for _ in range(4))
    lora = targets(plain_base)
    plain = get_peft_model(plain_base, LoraConfig(task_type="CAUSAL_LM", **lora)).eval()
    own = ConditionedLM.create(base, ConditioningConfig(("a", "b"))).eval()
    prompted = ConditioningConfig(("a", "b"), prompt_tokens=8, gate_hidden=64)
    both = ConditionedLM.create(other, prompted).eval()
    rank = own.conditioning.rank
    wide = get_peft_model(wide_base, LoraConfig(task_type="CAUSAL_LM", **{**lora, "r": rank})).eval()
    ids = torch.randint(5, plain_base.config.vocab_size, (rows, 24), generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {
        "max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0,
        "attention_mask": torch.ones_like(ids),
    }  # fmt: skip
    weights = torch.rand(rows, 1, generator=torch.Generator().manual_seed(1))
    weights = torch.cat((weights, 1 - weights), 1)
    calls = {
        "plain LoRA (PEFT)": lambda: plain.generate(input_ids=ids, **settings),
        f"plain LoRA of rank {rank} (PEFT)": lambda: wide.generate(input_ids=ids, **settings),
        "one w": lambda: own.generate(ids, weights=weights[0], **settings),
        "virtual tokens and a network of gates": lambda: both.generate(ids, weights=weights, **settings),
        "weights of each row, c = 1": lambda: own.generate(ids, weights=weights, **settings),
        "weights of each row, c = 2": lambda: own.generate(ids, weights=weights, scale=2.0, **settings),
    }
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds + 1):
        for name, call in calls.items():
            started = clock()
            call()
            least[name] = min(least[name], clock() - started)
    first = least["plain LoRA (PEFT)"]
    print(f"generation, {rows} rows, {tokens} tokens")
    for name, seconds in least.items():
        print(f"  {name:38} {1000 * seconds / tokens:7.2f} ms per token {seconds / first:6.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--generation", action="store_true")
    parser.add_argument("--gpt2", action="store_true")
    parser.add_argument("--alone", nargs=2, metavar=("CONTESTANT", "FILE"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.alone:
        alone(options.alone[0], options.model, Path(options.alone[1]))
        return
    with tempfile.TemporaryDirectory() as place:
        if options.gpt2:
            from transformers import GPT2Config, GPT2LMHeadModel

            GPT2LMHeadModel(GPT2Config()).save_pretrained(place)
            generation(place, options.rounds, rows=8, tokens=32)
            return
        if options.model is None:
            from hyperdpo.stories.language_model import train_demo_lm

            options.model = str(train_demo_lm(Path(place) / "lm", progress=False))
        if options.generation:
            generation(options.model, options.rounds)
            return
        pairs, groups = pairs_of(options.model, options.pairs)
        source = Path(place) / "pairs.json"
        plain = [{"prompt": g.prompt, "completions": list(g.completions), "labels": dict(g.labels)} for g in groups]
        source.write_text(json.dumps({"pairs": pairs, "groups": plain}))
        least = dict.fromkeys(CONTESTANTS, float("inf"))
        for _ in range(options.rounds):
            for name in CONTESTANTS:
                least[name] = min(least[name], seconds_of(name, options.model, pairs, groups))
        first, peaks = least[CONTESTANTS[0]], {}
        for name in CONTESTANTS:
            arguments = ["--model", options.model, "--alone", name, str(source)]
            done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
            peaks[name] = float(done.stdout.rsplit("peak", 1)[1])
        print(f"training, {len(pairs)} pairs, batches of {BATCH}, {EPOCHS} epoch")
        for name, seconds in least.items():
            memory = f"{peaks[name]:6.0f} MiB {peaks[name] / peaks[CONTESTANTS[0]]:5.2f} x"
            print(f"  {name:28} {seconds:7.2f} s {seconds / first:6.2f} x   {memory}")
        generation(options.model, options.rounds)


if __name__ == "__main__":
    main()

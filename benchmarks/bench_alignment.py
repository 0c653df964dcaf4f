"""One HyperDPO training against one of TRL's DPOTrainer, and generation with per-row weights against plain LoRA.

python benchmarks/bench_alignment.py [--model MODEL] [--pairs 256] [--rounds 3]
python benchmarks/bench_alignment.py --generation [--model MODEL]   # generation only
python benchmarks/bench_alignment.py --shape gpt2 --bf16   # random weights in that shape; or --shape 7b, for a GPU

Every figure is a ratio within one run: contestants take turns, and the least of each one's seconds counts (of CPU time
where there is no GPU: all runs in one thread, and other processes then count less). All are in float32, or with --bf16
in bf16, the base's weights too. Peak memory is that of a process of its own for each contestant: the GPU's, or on a CPU
what is above imports and data. MODEL is a local causal LM such as stories260k; a GPT-2-shaped one of the same size is
trained on the spot if it is left out. It writes the pairs, and its tokenizer is that of a --shape.
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
#: Of a Llama of seven billion parameters; GPT-2's own defaults are those of the small one.
SEVEN_BILLION = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
SHAPES = ("gpt2", "7b")
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


def shaped(shape: str, tokenizer: str, place: Path, bf16: bool) -> str:
    """A model of that shape with random weights, beside a tokenizer that is there already."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = GPT2LMHeadModel(GPT2Config()) if shape == "gpt2" else LlamaForCausalLM(LlamaConfig(**SEVEN_BILLION))
    model.to(torch.bfloat16 if bf16 else torch.float32).save_pretrained(place)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(place)
    return str(place)


def loaded(model: str, bf16: bool) -> Any:
    """A base in the precision of all contestants."""
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if bf16 else torch.float32)


def training(contestant: str, model: str, pairs: Pairs, groups: list[PreferenceGroup], out: str, bf16: bool) -> Any:
    """A trainer that has not begun."""
    shared: dict[str, Any] = {
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": EPOCHS,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
        "bf16": bf16,  # TRL's default is True, which a CPU without bfloat16 instructions only emulates
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
        base = loaded(model, bf16)
        config = LoraConfig(task_type="CAUSAL_LM", **targets(base))
        return DPOTrainer(
            base, args=args, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer, peft_config=config
        )
    names = MEASURES[: int(contestant[-1])]
    data = Preferences(groups=tuple(groups), objectives=MEASURES, source="bench")
    conditioning = ConditioningConfig(names)
    args = HyperDPOConfig(out, **shared)
    base = loaded(model, bf16)
    return HyperDPOTrainer(base, args, data, None, tokenizer, conditioning=conditioning, objectives=names)


def targets(base: Any) -> dict[str, Any]:
    """The same layers for everybody: PEFT's choice for the type of model."""
    return LORA if base.config.model_type == "llama" else {**LORA, "target_modules": None, "fan_in_fan_out": True}


def seconds_of(contestant: str, model: str, pairs: Pairs, groups: list[PreferenceGroup], bf16: bool) -> float:
    """Seconds of everything from raw pairs to a trained adapter, the base's scores included."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        started = clock()
        training(contestant, model, pairs, groups, out, bf16).train()
        return clock() - started


def alone(contestant: str, model: str, source: Path, bf16: bool) -> None:
    """In a process of its own: peak memory in MiB, of the GPU, or above what imports and data take."""
    saved = json.loads(source.read_text())
    groups = [
        PreferenceGroup(prompt=g["prompt"], completions=g["completions"], labels=g["labels"]) for g in saved["groups"]
    ]
    import peft
    import trl  # noqa: F401

    del peft
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = _status("VmRSS")
    seconds_of(contestant, model, saved["pairs"], groups, bf16)
    gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() / 2**20 if gpu else (_status("VmHWM") - before) / 1024
    print(f"peak {peak:.1f}")


def _status(name: str) -> int:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def generation(model: str, rounds: int, bf16: bool, rows: int = 32, tokens: int = 64) -> None:
    """Seconds per token of a batch, greedy, no row ends early."""
    from peft import LoraConfig, get_peft_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain_base, wide_base, base, other = (loaded(model, bf16).to(device) for _ in range(4))
    lora = targets(plain_base)
    plain = get_peft_model(plain_base, LoraConfig(task_type="CAUSAL_LM", **lora)).eval()
    own = ConditionedLM.create(base, ConditioningConfig(("a", "b"))).eval()
    prompted = ConditioningConfig(("a", "b"), prompt_tokens=8, gate_hidden=64)
    both = ConditionedLM.create(other, prompted).eval()
    rank = own.conditioning.rank
    wide = get_peft_model(wide_base, LoraConfig(task_type="CAUSAL_LM", **{**lora, "r": rank})).eval()
    ids = torch.randint(5, plain_base.config.vocab_size, (rows, 24), generator=torch.Generator().manual_seed(0))
    ids = ids.to(device)
    settings: dict[str, Any] = {
        "max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0,
        "attention_mask": torch.ones_like(ids),
    }  # fmt: skip
    weights = torch.rand(rows, 1, generator=torch.Generator().manual_seed(1))
    weights = torch.cat((weights, 1 - weights), 1).to(device)
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
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--alone", nargs=2, metavar=("CONTESTANT", "FILE"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.alone:
        alone(options.alone[0], options.model, Path(options.alone[1]), options.bf16)
        return
    with tempfile.TemporaryDirectory() as place:
        if options.model is None:
            from hyperdpo.stories.language_model import train_demo_lm

            options.model = str(train_demo_lm(Path(place) / "lm", progress=False))
        writer, sizes = options.model, {}
        if options.shape:
            options.model = shaped(options.shape, writer, Path(place) / "shaped", options.bf16)
            sizes = {"rows": 8, "tokens": 32}
        if options.generation:
            generation(options.model, options.rounds, options.bf16, **sizes)
            return
        pairs, groups = pairs_of(writer, options.pairs)
        source = Path(place) / "pairs.json"
        plain = [{"prompt": g.prompt, "completions": list(g.completions), "labels": dict(g.labels)} for g in groups]
        source.write_text(json.dumps({"pairs": pairs, "groups": plain}))
        least = dict.fromkeys(CONTESTANTS, float("inf"))
        for _ in range(options.rounds):
            for name in CONTESTANTS:
                least[name] = min(least[name], seconds_of(name, options.model, pairs, groups, options.bf16))
        first, peaks = least[CONTESTANTS[0]], {}
        for name in CONTESTANTS:
            arguments = ["--model", options.model, "--alone", name, str(source), *(["--bf16"] * options.bf16)]
            done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
            peaks[name] = float(done.stdout.rsplit("peak", 1)[1])
        print(f"training, {len(pairs)} pairs, batches of {BATCH}, {EPOCHS} epoch")
        for name, seconds in least.items():
            memory = f"{peaks[name]:6.0f} MiB {peaks[name] / peaks[CONTESTANTS[0]]:5.2f} x"
            print(f"  {name:28} {seconds:7.2f} s {seconds / first:6.2f} x   {memory}")
        generation(options.model, options.rounds, options.bf16, **sizes)


if __name__ == "__main__":
    main()

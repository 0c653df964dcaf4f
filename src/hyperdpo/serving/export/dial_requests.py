"""What to send to each engine so that it serves a dial at weights w and scale c: the templates in ``dial.json``.

Every example stands at the middle of the simplex, scale 1.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperdpo.alignment.data.cells import Prompt
from hyperdpo.core.point import even_weights
from hyperdpo.serving.export.recorded import TOKENS

#: What to ask where no prompt is recorded.
SOME_PROMPT = "Once upon a time"
#: What llama.cpp does with scales that a request leaves out.
LLAMA_CPP_NOTES = [
    "Send a scale for every adapter in every request: those that are left out keep the server's own, which is 1 unless "
    "the server was started with another. An empty list changes nothing.",
    "Requests with different scales are not computed in one batch.",
    "The model has to be the run's base as GGUF (convert_hf_to_gguf.py); f32 for equal log-probabilities.",
]
#: The values that vLLM takes for --max-lora-rank, by its documentation (``MaxLoRARanks``, version 0.14).
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
#: What vLLM's documentation says of a base from a GGUF file.
VLLM_GGUF_NOTE = (
    "The base is a GGUF file. By vLLM's documentation that needs the package vllm-gguf-plugin and a tokenizer beside "
    "it, and is experimental; whether LoRA works with it is not known here. A directory that save_pretrained wrote of "
    "this base is a plain checkpoint instead."
)


def requests_of(
    format: str,
    base: str,
    names: Sequence[str],
    paths: Sequence[str],
    prompt: Prompt,
    *,
    rank: int,
    from_gguf: bool = False,
) -> dict[str, Any]:
    """A template for each engine that serves this format; each has ``tried``, whether it was compared with the run.

    Args:
        format: ``vertices`` or ``gguf``.
        base: the base model's name.
        names: of the objectives.
        paths: of the adapters, beside ``dial.json``.
        prompt: what to ask.
        rank: of the adapters.
        from_gguf: whether ``base`` is the path of a GGUF file.
    """
    weights = [1 / len(names)] * len(names)
    own = {
        "tried": True,
        "start": "hyperdpo serve RUN",
        **_question(prompt, {"model": "RUN", "max_tokens": TOKENS, "temperature": 0}),
        "weights_at": ["weights", "scale"],
    }
    own["body"] |= {"weights": dict(zip(names, weights, strict=True)), "scale": 1}
    if format == "gguf":
        return {"llama.cpp": _llama_cpp(paths, weights, prompt), "hyperdpo": own}
    return {
        "peft": _peft(base, paths, weights, from_gguf),
        "hyperdpo": own,
        "vllm": _vllm(base, len(names), rank, prompt, from_gguf),
    }


def _question(prompt: Prompt, body: dict[str, Any]) -> dict[str, Any]:
    """Route and body of OpenAI's API: a completion of a text, or an answer in a conversation."""
    if isinstance(prompt, str):
        return {"method": "POST", "path": "/v1/completions", "body": {**body, "prompt": prompt}}
    return {"method": "POST", "path": "/v1/chat/completions", "body": {**body, "messages": prompt}}


def _llama_cpp(paths: Sequence[str], weights: Sequence[float], prompt: Prompt) -> dict[str, Any]:
    found = {
        "tried": True,
        "start": f"llama-server -m BASE.gguf --lora {','.join(paths)} --lora-init-without-apply",
        **_question(prompt, {"max_tokens": TOKENS, "temperature": 0, "cache_prompt": False}),
        "weights_at": ["lora"],
        "notes": LLAMA_CPP_NOTES,
    }
    found["body"]["lora"] = [{"id": j, "scale": weight} for j, weight in enumerate(weights)]
    return found


def _peft(base: str, paths: Sequence[str], weights: Sequence[float], from_gguf: bool) -> dict[str, Any]:
    where = json.dumps(base or "BASE")
    if from_gguf:
        file = Path(base)
        where = f"{json.dumps(str(file.parent))}, gguf_file={json.dumps(file.name)}"
    lines = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({where})",
        f"model = PeftModel.from_pretrained(base, {json.dumps(paths[0])}, adapter_name={json.dumps(paths[0])})",
        *(f"model.load_adapter({json.dumps(path)}, adapter_name={json.dumps(path)})" for path in paths[1:]),
        f'model.add_weighted_adapter({json.dumps(list(paths))}, {list(weights)}, "point", combination_type="cat")',
        'model.set_adapter("point")',
    ]
    return {"tried": True, "python": lines, "weights_at": ["add_weighted_adapter"]}


def _vllm(base: str, objectives: int, rank: int, prompt: Prompt, from_gguf: bool) -> dict[str, Any]:
    point = ",".join(f"{w:g}" for w in even_weights(objectives))
    largest = next((one for one in VLLM_RANKS if one >= rank), rank)
    tokenizer = " --tokenizer middle" if from_gguf else ""
    return {
        "tried": False,
        "prepare": f"hyperdpo export RUN --format peft --weights {point} --out middle",
        "start": f"vllm serve {shlex.quote(base or 'BASE')}{tokenizer} --enable-lora --max-lora-rank {largest} "
        "--lora-modules middle=middle",
        **_question(prompt, {"model": "middle", "max_tokens": TOKENS, "temperature": 0}),
        "weights_at": ["model"],
        "notes": [
            "Not tried. One LoRA per request: each point of the dial that is served is an adapter of its own, and a "
            "request names it as its model.",
            *([VLLM_GGUF_NOTE] if from_gguf else []),
        ],
    }

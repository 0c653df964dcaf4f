"""An exported adapter: stock PEFT has the logits of the run, without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from exported_models import PARITY, WEIGHTS, alone, difference, leaning_base, logits, tokenizer
from helpers import is_one_line, read
from tiny_models import tiny_model

from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.errors import InputError
from hyperdpo.serving.export.language_model import METADATA, export_lm

SHAPES = [(kind, tied) for kind in ("gpt2", "llama", "qwen2") for tied in (True, False)]

#: Loads adapters with virtual tokens by nothing but their directories.
ALONE = """
import numpy as np, torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
out, text, *paths = sys.argv[1:]
found = {}
for number, path in enumerate(paths):
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoPeftModelForCausalLM.from_pretrained(path).eval()
    inputs = tokenizer(text, return_tensors="pt")
    torch.manual_seed(0)
    found[f"ids{number}"] = inputs["input_ids"][0]
    found[f"logits{number}"] = model(**inputs).logits[0].detach()
    settings = {"max_new_tokens": 50, "top_k": 0, "eos_token_id": None, "pad_token_id": 0}
    found[f"greedy{number}"] = model.generate(**inputs, do_sample=False, **settings)[0]
    found[f"drawn{number}"] = model.generate(
        **inputs, do_sample=True, temperature=2.0, num_return_sequences=8, **settings
    )
np.savez(out, **found)
"""

#: Puts adapters on a base, in pairs.
ON_A_BASE = """
import numpy as np, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
out, *paths = sys.argv[1:]
found = {}
for number, (base, path) in enumerate(zip(paths[::2], paths[1::2])):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), path).eval()
    found[f"logits{number}"] = model(torch.tensor([[5, 17, 33]])).logits[0].detach()
np.savez(out, **found)
"""


def exported(place: Path, base: Any, **config: Any) -> ConditionedLM:
    """The model; its base is in ``place/base`` and the adapter in ``place/out``."""
    base.save_pretrained(place / "base")
    base.config.name_or_path = str(place / "base")
    model = tiny_model(base=base, **config)
    export_lm(model, tokenizer("bos"), WEIGHTS, place / "out", "peft")
    return model


def test_peft_alone_has_the_logits_of_lora_with_virtual_tokens_and_never_writes_them(tmp_path):
    names = [f"{kind}-{tied}" for kind, tied in SHAPES]
    models = [
        exported(tmp_path / name, leaning_base(kind, tied=tied))
        for name, (kind, tied) in zip(names, SHAPES, strict=True)
    ]
    found = alone(tmp_path, ALONE, "w5 w17 w33", *(tmp_path / name / "out" for name in names))
    for number, model in enumerate(models):
        assert found[f"ids{number}"].tolist() == [50, 51, 52, 1, 5, 17, 33]
        made = found[f"logits{number}"]
        assert difference(made[3:, :50], logits(model, [1, 5, 17, 33])) < PARITY
        assert made[2:, 50:].max() < made[2:, :50].min(-1).min()
        assert found[f"greedy{number}"][3:].max() < 50
        assert found[f"drawn{number}"].shape == (8, 57)
        assert found[f"drawn{number}"][:, 3:].max() < 50


def test_peft_alone_has_the_logits_of_lora_and_of_prompt_tuning(tmp_path):
    parts = [(kind, part) for kind in ("gpt2", "llama") for part in ("prompt_tokens", "lora_rank")]
    models = [
        exported(tmp_path / f"{kind}-{part}", leaning_base(kind, tied=kind == "gpt2"), **{part: 0})
        for kind, part in parts
    ]
    places = [tmp_path / f"{kind}-{part}" / name for kind, part in parts for name in ("base", "out")]
    found = alone(tmp_path, ON_A_BASE, *places)
    for number, model in enumerate(models):
        assert difference(found[f"logits{number}"][-3:], logits(model, [5, 17, 33])) < PARITY


def test_the_adapter_holds_rows_and_not_the_vocabulary(tmp_path):
    from safetensors.torch import load_file

    exported(tmp_path, leaning_base("llama", tied=True))
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if "lora" not in name}
    assert shapes == {
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": (3, 16),
        "base_model.model.lm_head.token_adapter.trainable_tokens_delta": (4, 16),
    }
    written = read(tmp_path / "out" / METADATA)
    assert written["virtual_token_ids"] == [50, 51, 52]
    assert written["virtual_token_margin"] > 10
    assert read(tmp_path / "out" / "generation_config.json")["suppress_tokens"] == [50, 51, 52]


def test_a_base_without_the_rows_is_no_silent_mistake(tmp_path):
    from peft import PeftModel

    exported(tmp_path, leaning_base("llama", tied=False))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with pytest.raises(IndexError, match="index 50 is out of bounds"):
        PeftModel.from_pretrained(base, tmp_path / "out")


def test_a_base_with_rows_to_spare_is_taken_as_it_is(tmp_path):
    from peft import PeftModel

    model = exported(tmp_path, leaning_base("qwen2", tied=True, vocab_size=60))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    with torch.no_grad():
        found = loaded(torch.tensor([[50, 51, 52, 5, 17]])).logits[0, 3:].numpy()
    others = [i for i in range(60) if i not in (50, 51, 52)]
    assert difference(found[:, others], logits(model, [5, 17])[:, others]) < PARITY


@pytest.mark.parametrize("vocabulary", [50, 60])
@pytest.mark.parametrize("tied", [True, False])
def test_the_model_is_as_it_was_before(tmp_path, tied, vocabulary):
    base = leaning_base("llama", tied=tied, vocab_size=vocabulary)
    model = tiny_model(base=base)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_lm(model, tokenizer(), WEIGHTS, tmp_path / "out", "peft")
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert model.config.vocab_size == vocabulary


def test_a_head_with_a_bias_is_refused(tmp_path):
    base = leaning_base("llama", tied=False)
    base.lm_head.bias = torch.nn.Parameter(torch.zeros(50))
    with pytest.raises(InputError) as error:
        export_lm(tiny_model(base=base), tokenizer(), WEIGHTS, tmp_path / "out", "peft")
    assert is_one_line(error.value, "bias", "--format merged")
    assert not list(tmp_path.iterdir())

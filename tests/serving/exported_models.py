"""What tests of exported language models share: a tokenizer, models whose hidden states lean, and a foreign process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from helpers import subprocess_environment
from tiny_models import VOCABULARY, tiny_base

from hyperdpo.alignment.model import ConditionedLM

WEIGHTS = [0.3, 0.7]

#: Of logits in single precision, as a part of the largest (at least 1).
PARITY = 1e-5


def tokenizer(kind: str = "none", **settings: Any) -> Any:
    """Words w3 to w49 with the ids of the tiny models; ``bos``: a post-processor puts <s> before a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, VOCABULARY)}}
    made = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if kind == "bos":
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    if kind == "sequence":
        made.post_processor = processors.Sequence([processors.ByteLevel(), processors.ByteLevel()])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special, **settings)


def leaning_base(kind: str, *, tied: bool, **settings: Any) -> Any:
    """A random base whose hidden states lie on one side of a plane, as those of trained models do.

    The bias of GPT-2's last norm does it, or all embeddings have a part in common.
    """
    if kind == "gpt2":
        settings["n_positions"] = 128
    base = tiny_base(kind, tie_word_embeddings=tied, **settings)
    with torch.no_grad():
        if kind == "gpt2":
            base.transformer.ln_f.bias.copy_(torch.linspace(-1, 2, 16))
        else:
            words = base.get_input_embeddings().weight
            words.add_(3 * words.std() * torch.sign(torch.arange(16) % 3 - 0.5))
    return base


def logits(model: ConditionedLM, ids: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.as_tensor(ids)[None], weights=WEIGHTS).logits[0].numpy()


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest, as a part of the largest logit (at least 1)."""
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))


def alone(tmp_path: Path, program: str, *arguments: object) -> dict[str, np.ndarray]:
    """The arrays that a program leaves in its first argument, in a process without this package."""
    script, out = tmp_path / "alone.py", tmp_path / "out.npz"
    script.write_text('import sys\nsys.modules["hyperdpo"] = None\n' + program)
    environment = subprocess_environment(HF_HUB_OFFLINE="1")
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-P", str(script), str(out), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return dict(np.load(out))

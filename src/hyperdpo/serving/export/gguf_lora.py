"""LoRA adapters as GGUF files, which llama.cpp loads and counts as often as a request says.

Names and shapes are those of llama.cpp's own converter: ``blk.0.attn_q.weight.lora_a`` (r, in) and ``.lora_b``
(out, r). In GGUF the rows of q and k of Llama come in another order, and with them those of B.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperdpo._version import __version__
from hyperdpo.alignment.conditioned_lora import ADAPTER, lora_layers, weight_change
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.errors import InputError
from hyperdpo.extras import require
from hyperdpo.serving.export.vertices import adapter_names

#: Types of transformers models -> architectures of llama.cpp. Each was compared with llama.cpp.
ARCHITECTURES = {"gpt2": "gpt2", "llama": "llama", "qwen2": "qwen2"}
#: Architectures whose q and k have their rows in pairs of the rotation, and the modules.
PAIRED = {"llama": ("q_proj", "k_proj")}
#: How far an adapter that is read back may be from the run's, as a part of the largest change of a weight.
TOLERANCE = 1e-5


def write_gguf(model: ConditionedLM, out: Path) -> list[Path]:
    """Write one file per objective into a directory, and read them again.

    Args:
        model: with a portable adapter.

    Raises:
        InputError: the package ``gguf`` is missing, or the model is of a type that was not compared with llama.cpp, or
            has adapters at layers that it does not know.
    """
    require("gguf")
    import gguf

    architecture = _architecture(model)
    layers = lora_layers(model.base)
    names = _gguf_names(model, architecture)
    vertices = torch.eye(len(model.conditioning.objectives), device=model.device)
    with torch.no_grad():
        gates = model.condition(vertices, len(vertices)).gates  # (L, m, r)
    assert gates is not None  # the adapter is portable
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for j, (objective, name) in enumerate(
        zip(model.conditioning.objectives, adapter_names(model.conditioning.objectives), strict=True)
    ):
        path = out / f"{name}.gguf"
        writer = gguf.GGUFWriter(str(path), architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_name(f"{objective} (hyperdpo {__version__})")
        first = next(iter(layers.values()))
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(first.scaling[ADAPTER] * model.conditioning.rank))
        for number, (layer, module) in enumerate(layers.items()):
            down = module.lora_A[ADAPTER].weight.detach().float()
            up = module.lora_B[ADAPTER].weight.detach().float() * gates[number, j].float()
            writer.add_tensor(f"{names[layer]}.weight.lora_a", _array(down))
            writer.add_tensor(f"{names[layer]}.weight.lora_b", paired(_array(up), _heads(model, architecture, layer)))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    _check(model, architecture, names, paths)
    return paths


def paired(rows: np.ndarray, heads: int | None, *, back: bool = False) -> np.ndarray:
    """Rows (out, ...) of q or k, of each head in the order 0, d/2, 1, d/2 + 1, ...; None heads: as they are.

    transformers rotates halves of a head (i with i + d/2), llama.cpp neighbours (2 i with 2 i + 1).

    Args:
        back: from llama.cpp's order to that of transformers.
    """
    if heads is None:
        return rows
    size = len(rows) // heads
    shape = (heads, size // 2, 2) if back else (heads, 2, size // 2)
    return np.ascontiguousarray(rows.reshape(*shape, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))


def _architecture(model: ConditionedLM) -> str:
    kind = str(getattr(model.config, "model_type", ""))
    if kind not in ARCHITECTURES:
        raise InputError(
            f"--format gguf: a model of type {kind!r}; expected one of {', '.join(ARCHITECTURES)}, whose adapters were "
            "compared with llama.cpp (try --format vertices, and llama.cpp's convert_lora_to_gguf.py)"
        )
    return ARCHITECTURES[kind]


def _gguf_names(model: ConditionedLM, architecture: str) -> dict[str, str]:
    """Names of the layers with LoRA -> their names in GGUF."""
    import gguf

    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    known = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    found = {}
    for layer in model.lora_names:
        name = known.get_name(layer)
        if name is None:
            raise InputError(f"--format gguf: {layer}: llama.cpp knows no such layer of {architecture}")
        found[layer] = str(name)
    return found


def _heads(model: ConditionedLM, architecture: str, layer: str) -> int | None:
    """Heads of a layer whose rows are in pairs; None for other layers."""
    kind = layer.rpartition(".")[2]
    if kind not in PAIRED.get(architecture, ()):
        return None
    config: Any = model.config
    heads = config.num_attention_heads if kind == "q_proj" else config.num_key_value_heads
    return int(heads)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.cpu().numpy().astype(np.float32))


@torch.no_grad()
def _check(model: ConditionedLM, architecture: str, names: dict[str, str], paths: Sequence[Path]) -> None:
    """Raise unless the files' sum at random weights is the run's change of the weights."""
    import gguf

    weights = np.random.default_rng(0).dirichlet(np.ones(len(paths)))
    gates = model.condition(weights, 1).gates
    assert gates is not None
    readers = [gguf.GGUFReader(str(path)) for path in paths]
    tensors = [{tensor.name: tensor.data for tensor in reader.tensors} for reader in readers]
    for number, (layer, module) in enumerate(lora_layers(model.base).items()):
        wanted = weight_change(module, gates[number, 0])
        there = _array(wanted.T if getattr(module, "fan_in_fan_out", False) else wanted)  # (out, in)
        total = np.zeros_like(there)
        for weight, reader, found in zip(weights, readers, tensors, strict=True):
            down, up = (found[f"{names[layer]}.weight.lora_{which}"] for which in "ab")
            alpha: Any = reader.fields[gguf.Keys.Adapter.LORA_ALPHA].contents()
            total += weight * alpha / len(down) * (paired(up, _heads(model, architecture, layer), back=True) @ down)
        difference = float(np.abs(total - there).max() / max(float(np.abs(there).max()), 1e-12))
        if not difference <= TOLERANCE:
            raise InputError(
                f"--format gguf: {layer}: the files' sum differs from the run's adapter by {difference:.2g} of the "
                f"largest; expected at most {TOLERANCE:g}; nothing was written (try --format vertices)"
            )

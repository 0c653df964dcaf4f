"""A random Llama with a tokenizer and a chat template as one GGUF file, written by the package ``gguf``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import tiny_base

#: Tokens of the vocabulary: three special ones, the 256 bytes and one merge.
TOKENS = 260
TEMPLATE = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)


def tiny_llama(**settings: Any) -> Any:
    """The model before it is quantised; rows of 32 numbers, which Q8_0 packs."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": TOKENS, "max_position_embeddings": 128}
    return tiny_base(**{**sizes, "tie_word_embeddings": True, "eos_token_id": 2, **settings})


def writing_llama() -> Any:
    """A model that writes letters, spaces and ends only, at random, so that its bytes are texts."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    model = tiny_llama(tie_word_embeddings=False, initializer_range=0.1)
    tokens = {
        2: 0.7,
        **{3 + i: 0.5 for i, byte in enumerate(bytes_to_unicode()) if chr(byte).isascii() and chr(byte).isalpha()},
    }
    tokens[3 + list(bytes_to_unicode()).index(ord(" "))] = 1.0
    with torch.no_grad():  # one coordinate is large in every hidden state, and no layer changes it
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0
        model.model.embed_tokens.weight[:, 0] = 8
        model.lm_head.weight[:, 0] = -4
        for token, value in tokens.items():
            model.lm_head.weight[token, 0] = value
    return model


def write_gguf(path: Path, model: Any = None, *, quantisation: str = "Q8_0", architecture: str = "llama") -> Any:
    """The model of a file that is written to ``path``; ``quantisation``: of all matrices, ``F32`` or ``Q8_0``."""
    import gguf

    model = tiny_llama() if model is None else model
    config, kind = model.config, gguf.GGMLQuantizationType[quantisation]
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(int(gguf.LlamaFileType["ALL_F32" if quantisation == "F32" else f"MOSTLY_{quantisation}"]))
    _add_tokenizer(writer)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    for i in range(config.num_hidden_layers):
        layer, block = f"model.layers.{i}", f"blk.{i}"
        names |= {f"{layer}.self_attn.{one}_proj": f"{block}.attn_{one}" for one in "qkv"}
        names |= {f"{layer}.self_attn.o_proj": f"{block}.attn_output", f"{layer}.input_layernorm": f"{block}.attn_norm"}
        names |= {f"{layer}.mlp.{one}_proj": f"{block}.ffn_{one}" for one in ("gate", "up", "down")}
        names[f"{layer}.post_attention_layernorm"] = f"{block}.ffn_norm"
    if not config.tie_word_embeddings:
        names["lm_head"] = "output"
    weights = model.state_dict()
    for name, stored in names.items():
        values = weights[f"{name}.weight"].numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
            name.rpartition(".")[2]
        )
        values = values if heads is None else _permuted(values, heads)
        if values.ndim == 1 or quantisation == "F32":
            writer.add_tensor(f"{stored}.weight", np.ascontiguousarray(values, dtype=np.float32))
        else:
            writer.add_tensor(f"{stored}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head in llama.cpp's order: its rotation turns neighbours, that of transformers two halves."""
    return values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def _add_tokenizer(writer: Any) -> None:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = ["<unk>", "<|start|>", "<|end|>", *bytes_to_unicode().values(), "he"]
    assert len(tokens) == TOKENS
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * 257])
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)


def largest_difference(first: Any, second: Any) -> float:
    """Of the logits of two models on a text."""
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        return float((first(ids).logits - second(ids).logits).abs().max())

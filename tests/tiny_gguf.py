"""Tiny random models as GGUF files, written by the package ``gguf``, and llama.cpp's server on them."""

from __future__ import annotations

import json
import urllib.request
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


def write_gguf(
    path: Path, model: Any = None, *, quantisation: str = "Q8_0", architecture: str | None = None, words: bool = False
) -> Any:
    """A transformers Llama, Qwen2 or GPT-2 in a file that is written to ``path``, named as llama.cpp's converter does.

    Args:
        quantisation: of all matrices, ``F32`` or ``Q8_0``.
        architecture: that the file names; None: the model's own.
        words: a vocabulary of words, whose prompts are given as ids; else the tokenizer of bytes and a chat template.

    Returns:
        The model.
    """
    import gguf

    model = tiny_llama() if model is None else model
    config, kind = model.config, gguf.GGMLQuantizationType[quantisation]
    type_of = config.model_type
    writer = gguf.GGUFWriter(str(path), architecture or type_of)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_file_type(int(gguf.LlamaFileType["ALL_F32" if quantisation == "F32" else f"MOSTLY_{quantisation}"]))
    if type_of == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
        writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    if words:
        _add_words(writer, config.vocab_size)
    else:
        writer.add_vocab_size(config.vocab_size)
        _add_tokenizer(writer)
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == type_of)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if type_of == "gpt2" and values.ndim == 2 and ".h." in name:
            values = values.T  # Conv1D
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if type_of == "llama" and part in name:
                values = _permuted(values, getattr(config, heads))
        stem, _, end = name.rpartition(".")
        stored = f"{names.get_name(stem)}.{end}"
        if values.ndim == 1 or quantisation == "F32":
            writer.add_tensor(stored, np.ascontiguousarray(values))
        else:
            writer.add_tensor(stored, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head in llama.cpp's order: its rotation turns neighbours, that of transformers two halves."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


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


def _add_words(writer: Any, count: int) -> None:
    """A vocabulary of <pad>, <s>, </s> and words; prompts are given as ids."""
    import gguf

    tokens = ["<pad>", "<s>", "</s>", *(f"\u2581w{i}" for i in range(3, count))]
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (count - 3)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * count)
    writer.add_token_types(kinds)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def largest_difference(first: Any, second: Any) -> float:
    """Of the logits of two models on a text."""
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        return float((first(ids).logits - second(ids).logits).abs().max())


class LlamaServer:
    """llama.cpp's own server in this process; adapters count ``scale`` times until a request says otherwise."""

    def __init__(self, base: Path, adapters: list[Path], *, scale: float = 0.0, context: int = 128, parallel: int = 1):
        import xllamacpp

        self.base, self.adapters = base, adapters
        params = xllamacpp.CommonParams()
        params.model.path = str(base)
        params.n_ctx, params.n_parallel, params.port = context * parallel, parallel, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.warmup, params.fit_params, params.verbosity = False, False, 0
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), scale) for path in adapters]
        self._server = xllamacpp.Server(params)
        self.address = self._server.listening_address

    def post(self, route: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.address + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read())

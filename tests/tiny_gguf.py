"""A tiny random model as GGUF, in float32, and llama.cpp's server on it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np


def write_base(model: Any, path: Path) -> Path:
    """Write a transformers Llama, Qwen2 or GPT-2 with a vocabulary of words, as llama.cpp's converter names things."""
    import gguf

    config, kind = model.config, model.config.model_type
    writer = gguf.GGUFWriter(str(path), kind)
    writer.add_context_length(128)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if kind == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
        writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    _add_words(writer, config.vocab_size)
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if kind == "gpt2" and values.ndim == 2 and ".h." in name:
            values = values.T  # Conv1D
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if kind == "llama" and part in name:
                n = getattr(config, heads)
                # Rows 0 and d/2 of a head come first, as in llama.cpp's LlamaModel.permute.
                values = (
                    values.reshape(n, 2, len(values) // n // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
                )
        stem, _, end = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{end}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


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

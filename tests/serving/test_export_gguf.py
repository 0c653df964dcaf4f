"""A portable run as GGUF adapters: llama.cpp says what the run says, at weights that every request brings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_models import tokenizer
from helpers import is_one_line
from tiny_gguf import LlamaServer, write_gguf
from tiny_models import randomise, tiny_base, tiny_model
from toy_preferences import rows

from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.sampling import BROKEN
from hyperdpo.checksums import file_digest
from hyperdpo.errors import InputError
from hyperdpo.serving.export import gguf_lora
from hyperdpo.serving.export.dial import DialSource, export_dial, read_dial
from hyperdpo.serving.export.gguf_lora import paired
from hyperdpo.serving.export.recorded import agreement

pytest.importorskip("gguf")

PAGE = (Path(__file__).parents[2] / "docs" / "dial.md").read_text()
PROMPTS = ("w5 w6 w7", "w9 w4", "w30 w31 w32 w33 w34")
#: llama.cpp takes GELU from a table of half precision; the other activations are computed.
CLOSE = {"llama": 1e-4, "qwen2": 1e-4, "gpt2": 2e-3}


def source_of(model: ConditionedLM) -> DialSource:
    return DialSource(model, tokenizer("bos"), ({"name": "a"}, {"name": "b"}), None, PROMPTS)


def portable(kind: str, **settings: Any) -> ConditionedLM:
    sizes: dict[str, Any] = {"n_positions": 128} if kind == "gpt2" else {}
    return tiny_model(base=tiny_base(kind, **sizes), prompt_tokens=0, gate_hidden=0, **settings)


def asked(server: Any, ids: list[int], lora: Any, tokens: int = 24) -> tuple[list[int], list[float]]:
    """Greedy tokens and their log-probabilities."""
    body = {"prompt": ids, "n_predict": tokens, "temperature": 0, "return_tokens": True, "n_probs": 1}
    found = server.post("/completion", {**body, "cache_prompt": False, **({} if lora is None else {"lora": lora})})
    return found["tokens"], [one["logprob"] for one in found["completion_probabilities"]]


def scales(weights: list[float]) -> list[dict[str, float]]:
    return [{"id": j, "scale": weight} for j, weight in enumerate(weights)]


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def served(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, dict[str, Any], Any]:
    """The type of model, a llama.cpp server with the adapters at 0, ``dial.json``, and the model."""
    pytest.importorskip("xllamacpp")

    kind = request.param
    place = tmp_path_factory.mktemp(kind)
    modules = {"target_modules": "all-linear"} if kind != "gpt2" else {"target_modules": ("c_attn", "c_fc", "c_proj")}
    model = portable(kind, **modules)
    base = place / "base.gguf"
    sizes = {"n_positions": 128} if kind == "gpt2" else {}
    write_gguf(base, tiny_base(kind, **sizes), quantisation="F32", words=True)
    dial = export_dial(source_of(model), place / "dial", "gguf").dial
    server = LlamaServer(base, [place / "dial" / one["path"] for one in dial["adapters"]])
    return kind, server, dial, model


def test_llama_cpp_writes_the_runs_tokens_with_weights_of_each_request(served) -> None:
    kind, server, dial, _ = served
    recorded, ties = dial["recorded"], 0
    assert len({tuple(one["ids"]) for one in recorded["answers"] if one["prompt"] == 0}) > 1
    assert recorded["tolerance"] == (5e-3 if kind == "gpt2" else 1e-3)
    assert len(recorded["answers"]) == 5 * len(PROMPTS)
    for answer in recorded["answers"]:
        ids, logprobs = asked(server, recorded["prompts"][answer["prompt"]]["ids"], scales(answer["weights"]))
        found = agreement(answer, ids, logprobs)
        assert found.place is None or found.tied, answer["weights"]
        assert found.difference < CLOSE[kind]
        ties += found.place is not None
    assert ties <= 2  # a random model is seldom undecided


def test_llama_cpp_counts_adapters_divided_by_the_scale(served) -> None:
    """scale_j = w_j / c: the logits of the run with its gates divided by c."""
    import torch

    from hyperdpo.alignment.conditioned_lora import use_gates

    kind, server, dial, model = served
    ids = dial["recorded"]["prompts"][0]["ids"]
    gates = model.condition([0.3, 0.7], 1).gates
    assert gates is not None
    with torch.no_grad(), use_gates(gates / 2):
        wanted = model.base(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    (token,), (logprob,) = asked(server, ids, scales([0.15, 0.35]), tokens=1)
    assert token == int(wanted.argmax())
    assert logprob == pytest.approx(float(wanted.max()), abs=CLOSE[kind])


@pytest.mark.parametrize("served", ["llama"], indirect=True)
def test_a_request_without_scales_keeps_those_of_the_server(served) -> None:
    """What the notes in ``dial.json`` warn of: neither no list nor an empty one sets adapters to 0."""

    _, server, dial, _ = served
    ids = dial["recorded"]["prompts"][0]["ids"]
    assert asked(server, ids, None) == asked(server, ids, []) == asked(server, ids, scales([0, 0]))
    started = LlamaServer(server.base, server.adapters, scale=1.0)
    together = asked(started, ids, scales([1, 1]))
    assert asked(started, ids, None) == asked(started, ids, []) == together
    assert together != asked(started, ids, scales([0, 0]))


def test_the_requests_of_the_dial_and_of_the_page_are_answered(served) -> None:
    _, server, dial, _ = served
    ask, recorded = dial["requests"]["llama.cpp"], dial["recorded"]
    (wanted,) = [one for one in recorded["answers"] if one["prompt"] == 0 and one["weights"] == [0.5, 0.5]]
    # The tiny vocabulary holds whole words, which llama.cpp does not find in a text.
    found = server.post(ask["path"], {**ask["body"], "prompt": recorded["prompts"][0]["ids"]})
    assert found["choices"][0]["text"].split() == wanted["text"].split()
    (shown,) = re.findall(r"^curl \S+ .*? -d '(.*?)'$", PAGE, re.MULTILINE | re.DOTALL)
    ids = recorded["prompts"][1]["ids"]
    assert asked(server, ids, json.loads(shown)["lora"]) == asked(server, ids, scales([0.3, 0.7]))


def test_rows_of_a_head_are_put_in_pairs_and_back() -> None:
    rows = np.arange(8.0)[:, None] * np.ones((1, 3))
    assert paired(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert np.array_equal(paired(paired(rows, 2), 2, back=True), rows)
    assert paired(rows, None) is rows


def test_files_that_are_not_the_run_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gguf_lora, "paired", lambda rows, heads, back=False: rows if back else paired(rows, heads))
    with pytest.raises(InputError) as error:
        export_dial(source_of(portable("llama")), tmp_path / "dial", "gguf")
    assert is_one_line(error.value, "--format gguf", "q_proj", "nothing was written")
    assert not list(tmp_path.iterdir())


def test_a_type_of_model_that_was_not_compared_is_refused(tmp_path) -> None:
    with pytest.raises(InputError) as error:
        export_dial(source_of(portable("qwen3")), tmp_path / "dial", "gguf")
    assert is_one_line(error.value, "--format gguf", "'qwen3'", "llama", "--format vertices")
    assert not list(tmp_path.iterdir())


def test_without_the_package_gguf_the_command_says_how_to_install_it(
    command, portable_run, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("hyperdpo.extras.is_installed", lambda module: module != "gguf")
    done = command("export", portable_run, "--out", tmp_path / "dial", "--format", "gguf")
    assert done.refused("gguf is not installed", "hyperdpo[gguf]")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_files_for_llama_cpp(command, portable_run, tmp_path) -> None:
    done = command("export", portable_run, "--out", tmp_path / "dial", "--format", "gguf")
    assert done.code == 0, done.err
    assert "0-low.gguf (low), 1-high.gguf (high)" in done.out
    names = {path.name for path in (tmp_path / "dial").iterdir()}
    assert names == {"0-low.gguf", "1-high.gguf", "dial.json", "hyperdpo_export.json", "tokenizer"}


def test_a_conversation_is_answered_through_the_chat_template_of_a_run_on_a_gguf_file(command, tmp_path) -> None:
    pytest.importorskip("xllamacpp")

    write_gguf(tmp_path / "base.gguf", quantisation="F32")
    turns = [{**row, "prompt": [{"role": "user", "content": row["prompt"][:4]}]} for row in rows(8)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turns))
    fit = ("align", "fit", tmp_path / "data.jsonl", "--model", tmp_path / "base.gguf", "--out", tmp_path / "run")
    short = ("--cpu", "--epochs", "1", "--set", "training.per_device_train_batch_size=8")
    assert command(*fit, "--portable", *short).code == 0
    run = AlignRun.load(tmp_path / "run")
    randomise(run.model)
    run.save(tmp_path / "run")
    assert command("export", tmp_path / "run", "--out", tmp_path / "dial", "--format", "gguf").code == 0
    dial = read_dial(tmp_path / "dial")
    assert dial["base"]["files"] == {"base.gguf": file_digest(tmp_path / "base.gguf")}
    paths = [tmp_path / "dial" / one["path"] for one in dial["adapters"]]
    server = LlamaServer(tmp_path / "base.gguf", paths, context=256)
    ask = dial["requests"]["llama.cpp"]
    assert ask["path"] == "/v1/chat/completions"
    wanted = [one["text"] for one in dial["recorded"]["answers"] if one["prompt"] == 0]
    assert len(set(wanted)) > 1
    for answer in dial["recorded"]["answers"][:5]:
        found = server.post(ask["path"], {**ask["body"], "lora": scales(answer["weights"])})
        # llama.cpp holds back the last bytes where they are no whole character.
        assert found["choices"][0]["message"]["content"].rstrip(BROKEN) == answer["text"].rstrip(BROKEN)

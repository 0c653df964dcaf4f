"""GGUF files as base models: what is read, what a run says of it, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import is_one_line, read
from tiny_gguf import TEMPLATE, largest_difference, tiny_llama, write_gguf

from hyperdpo.alignment.bases import load_base, model_type_of, tokenizer_of
from hyperdpo.alignment.data.groups import PreferenceGroup, Preferences
from hyperdpo.alignment.data.preferences import write_preferences
from hyperdpo.alignment.gguf_models import described_origin, gguf_file, origin_of, origin_of_file, read_header
from hyperdpo.alignment.run import AlignRun
from hyperdpo.cli import main
from hyperdpo.errors import InputError

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

TINY_FIT = [
    *("--set=training.max_steps=2", "--set=conditioning.prompt_tokens=2", "--set=conditioning.prompt_hidden=4"),
    *("--set=conditioning.gate_hidden=2", "--set=conditioning.lora_rank=2", "--cpu"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a quantised model, and preferences of conversations."""
    out = tmp_path_factory.mktemp("gguf")
    write_gguf(out / "tiny.Q8_0.gguf")
    groups = tuple(
        PreferenceGroup(
            [{"role": "user", "content": f"hello {i}"}],
            (f"he {i}", f"oh no {i}", "yes"),
            {"a": (0.0, i % 3, 1.0), "b": (1.0, 2.0, i % 2)},
        )
        for i in range(10)
    )
    write_preferences(Preferences(groups, ("a", "b"), "made"), out / "data.jsonl")
    return out


def test_the_weights_are_those_of_the_file(tmp_path: Path) -> None:
    """In float32 to the last digits; q and k are permuted in the file, which a wrong order would show."""
    written = write_gguf(tmp_path / "tiny.gguf", quantisation="F32")
    found = load_base(str(tmp_path / "tiny.gguf")).eval()
    assert largest_difference(found, written) < 1e-5
    assert origin_of(found) == {"file": "tiny.gguf", "quantisation": "F32", "dequantised": False}
    assert described_origin(origin_of(found)) == "read from tiny.gguf (F32)"


def test_a_quantised_file_is_read_dequantised_and_says_so(place: Path) -> None:
    path = place / "tiny.Q8_0.gguf"
    found = load_base(str(path)).eval()
    assert found.dtype == torch.float32
    assert origin_of(found) == {"file": path.name, "quantisation": "Q8_0", "dequantised": True}
    assert described_origin(origin_of(found)) == "dequantised from tiny.Q8_0.gguf (Q8_0)"
    # The independent value: the package's own dequantisation of one matrix.
    stored = {one.name: one for one in gguf.GGUFReader(path).tensors}["blk.1.ffn_up.weight"]
    wanted = gguf.quants.dequantize(stored.data, stored.tensor_type)
    assert np.array_equal(found.model.layers[1].mlp.up_proj.weight.detach().numpy(), wanted)
    assert 0 < largest_difference(found, tiny_llama()) < 0.5
    assert model_type_of(path) == "llama"


def test_reading_shows_a_bar_only_where_transformers_shows_its_own(place: Path, capsys: pytest.CaptureFixture) -> None:
    switch = transformers.utils.logging
    before = switch.is_progress_bar_enabled()
    try:
        for change, shown in ((switch.disable_progress_bar, False), (switch.enable_progress_bar, True)):
            change()
            load_base(str(place / "tiny.Q8_0.gguf"))
            assert ("de-quantizing" in capsys.readouterr().err) == shown
    finally:
        (switch.enable_progress_bar if before else switch.disable_progress_bar)()


def test_a_saved_base_is_plain_and_still_says_so(place: Path, tmp_path: Path) -> None:
    found = load_base(str(place / "tiny.Q8_0.gguf"))
    found.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["gguf_origin"]["dequantised"] is True
    again = load_base(str(tmp_path))
    assert largest_difference(found.eval(), again.eval()) == 0
    assert origin_of(again) == origin_of(found)


def test_tokenizer_and_chat_template_come_from_the_file(place: Path) -> None:
    for named in (str(place / "tiny.Q8_0.gguf"), {"gguf_file": str(place / "tiny.Q8_0.gguf")}):
        tokenizer = tokenizer_of(named)
        assert tokenizer.chat_template == TEMPLATE
        assert tokenizer("<|start|>he")["input_ids"] == [1, 259]
    assert tokenizer_of(load_base(str(place / "tiny.Q8_0.gguf"))).eos_token == "<|end|>"


def test_the_other_ways_to_name_a_file(place: Path) -> None:
    file = place / "tiny.Q8_0.gguf"
    assert gguf_file({"directory": str(place), "gguf_file": file.name}) == gguf_file(file) == file
    assert gguf_file(str(place)) is None
    assert gguf_file("org/name") is None


def test_a_run_on_a_file_is_fitted_measured_exported_and_answers(place: Path, tmp_path: Path, capsys) -> None:
    base, run = place / "tiny.Q8_0.gguf", tmp_path / "run"
    (tmp_path / "settings.yaml").write_text(f"model: {{gguf_file: {json.dumps(str(base))}}}\n")
    fit = ["align", "fit", str(place / "data.jsonl"), "--config", str(tmp_path / "settings.yaml"), "--out", str(run)]
    assert main([*fit, *TINY_FIT]) == 0
    assert "base dequantised from tiny.Q8_0.gguf (Q8_0)" in capsys.readouterr().out
    said = read(run / "run.json")["settings"]
    assert said["gguf_origin"] == {"file": base.name, "quantisation": "Q8_0", "dequantised": True}
    assert said["base_model"] == str(base)
    assert main(["align", "front", str(run), str(place / "data.jsonl"), "--points", "2", "--cpu"]) == 0
    assert "dequantised from tiny.Q8_0.gguf" in " ".join(capsys.readouterr().out.split())
    ask = ["align", "generate", str(run), "--weights", ".5,.5", "--prompt", "he", "--max-new-tokens", "4", "--cpu"]
    assert main(ask) == 0
    merged = tmp_path / "merged"
    assert main(["export", str(run), "--out", str(merged), "--weights", ".5,.5"]) == 0
    assert read(merged / "hyperdpo_export.json")["gguf_origin"]["dequantised"] is True
    assert read(merged / "config.json")["gguf_origin"]["quantisation"] == "Q8_0"
    assert "quantization_config" not in read(merged / "config.json")
    ids, loaded = torch.arange(3, 13)[None], AlignRun.load(run).model
    plain, _ = loaded.merge([0.5, 0.5])
    assert type(plain).__name__ == "LlamaForCausalLM"
    assert loaded(ids, weights=[0.5, 0.5]).logits.shape == (1, 10, 260)


def test_every_table_and_export_of_a_run_on_a_file_says_so(place: Path, tmp_path: Path, capsys) -> None:
    base, run, note = place / "tiny.Q8_0.gguf", tmp_path / "run", "; base dequantised from tiny.Q8_0.gguf (Q8_0)"
    data, origin = str(place / "data.jsonl"), {"file": base.name, "quantisation": "Q8_0", "dequantised": True}

    def said(*arguments: object) -> str:
        assert main([str(one) for one in arguments]) == 0
        return " ".join(capsys.readouterr().out.split())

    fit = ("--model", base, "--out", run, "--cpu", "--set", "training.max_steps=1")
    assert note in said("align", "fit", data, *fit)
    point = ("--minimize", "a", "--points", 2, "--split", "all", "--cpu", "--out", tmp_path / "point.json")
    assert f"all prompts: 10{note}" in said("choose", run, data, *point)
    assert read(tmp_path / "point.json")["gguf_origin"] == origin
    (tmp_path / "prompts.txt").write_text("he\noh\nyes\n")
    rounds = (
        "--rounds",
        0,
        "--out",
        tmp_path / "rounds",
        "--max-new-tokens",
        2,
        "--points",
        2,
        "--samples",
        1,
        "--cpu",
    )
    scorers = ("--scorer", "a=toy_scorers:low", "--scorer", "b=toy_scorers:high")
    table = said("align", "improve", run, "--prompts-file", tmp_path / "prompts.txt", *scorers, *rounds)
    assert f"texts on held-out prompts{note}" in table
    assert read(tmp_path / "rounds" / "rounds.json")["gguf_origin"] == origin
    for format in ("vertices", "gguf"):
        said("export", run, "--out", tmp_path / format, "--format", format, "--prompt", "he")
        assert read(tmp_path / format / "dial.json")["base"]["gguf_origin"] == origin
        assert read(tmp_path / format / "hyperdpo_export.json")["gguf_origin"] == origin


def test_fit_without_a_base_says_how_to_name_one(place: Path, tmp_path: Path, capsys) -> None:
    assert main(["align", "fit", str(place / "data.jsonl"), "--out", str(tmp_path / "run")]) == 2
    assert "no base model; expected --model" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 3, 10, 200, 3000, -1])
def test_a_truncated_file_is_refused(place: Path, tmp_path: Path, kept: int) -> None:
    whole = (place / "tiny.Q8_0.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:kept])
    with pytest.raises(InputError) as error:
        load_base(str(path))
    word = "truncated" if len(whole[:kept]) > 3 else "not a GGUF file"
    assert is_one_line(error.value, str(path), word), str(error.value)


def test_files_that_are_no_base_are_refused(place: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "text.gguf").write_text("weights " * 100)
    write_gguf(tmp_path / "other.gguf", architecture="hyperllama")
    (tmp_path / "old.gguf").write_bytes(b"GGUF" + (1).to_bytes(4, "little") + bytes(100))
    cases = {
        str(tmp_path / "text.gguf"): ["not a GGUF file"],
        str(tmp_path / "other.gguf"): ["'hyperllama'", "llama"],
        str(tmp_path / "old.gguf"): ["version 1"],
        str(tmp_path / "absent.gguf"): ["no such file"],
    }
    for name, words in cases.items():
        for how in (load_base, tokenizer_of):
            with pytest.raises(InputError) as error:
                how(name)
            assert is_one_line(error.value, name, *words), str(error.value)
    with pytest.raises(InputError, match="gguf_file: PATH"):
        load_base({"gguf": "x"})
    monkeypatch.setattr("hyperdpo.extras.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"gguf is not installed; run: pip install 'hyperdpo\[gguf\]'"):
        load_base(str(place / "tiny.Q8_0.gguf"))


def test_a_header_is_read_as_the_package_reads_it(place: Path) -> None:
    path = place / "tiny.Q8_0.gguf"
    header, theirs = read_header(path), gguf.GGUFReader(path)
    assert header.start == theirs.data_offset
    assert header.values["llama.embedding_length"] == 32
    assert {name: (shape, kind) for name, (shape, kind, _) in header.tensors.items()} == {
        one.name: (tuple(map(int, one.shape)), int(one.tensor_type)) for one in theirs.tensors
    }


REAL = Path(os.environ.get("HYPERDPO_REAL_MODEL") or Path(__file__).parents[2] / ".cache" / "smollm2")


@pytest.mark.slow
def test_the_real_model_answers() -> None:
    """SmolLM2-135M-Instruct, where it is in place."""
    files = sorted(REAL.glob("*.gguf")) if REAL.is_dir() else []
    if not files:
        pytest.skip(f"{REAL}: no GGUF file; run benchmarks/real_model.py, or set HYPERDPO_REAL_MODEL")
    assert origin_of_file(files[0])["quantisation"] == "Q4_1"
    place = REAL / "SmolLM2-135M-Instruct-dequantised"
    base = str(place if place.is_dir() else files[0])
    model, tokenizer = load_base(base), tokenizer_of(base)
    assert model.num_parameters() == 134_515_008
    assert origin_of(model)["dequantised"] is True
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    found = model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "The capital of France is Paris." in tokenizer.decode(found[0])

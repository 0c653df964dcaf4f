"""A portable run as plain LoRA adapters: stock PEFT has the run's logits at any w; and what ``dial.json`` says."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_models import alone
from helpers import is_one_line, read
from tiny_gguf import write_gguf
from tiny_models import randomise

from hyperdpo.alignment.bases import load_base, tokenizer_of
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.run import AlignRun
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.serving.export import dial as module
from hyperdpo.serving.export.dial import DialSource, export_dial, load_dial_source, read_dial
from hyperdpo.serving.export.dial_requests import requests_of
from hyperdpo.serving.export.language_model import Difference
from hyperdpo.serving.export.recorded import agreement, scale_divergences
from hyperdpo.serving.export.vertices import adapter_names, weighted_model

POINTS = [[1.0, 0.0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.0, 1.0], [0.37, 0.63]]
IDS = [5, 17, 33, 9]
#: Weights of the template's point and of the first point of :data:`ALONE`.
MIXED = {"template": [0.5, 0.5], "logits0": [0.3, 0.7]}

PAGE = (Path(__file__).parents[2] / "docs" / "dial.md").read_text()

#: Loads adapters as ``dial.json`` says for PEFT, in the dial's directory, and has logits at weightings of its own.
ALONE = """
import json, os
import numpy as np, torch
out, dial, ids, points = sys.argv[1:]
os.chdir(dial)
lines = json.load(open("dial.json"))["requests"]["peft"]["python"]
exec("\\n".join(lines))
ids, found = torch.tensor([json.loads(ids)]), {}
with torch.no_grad():
    found["template"] = model(ids).logits[0]
    for number, weights in enumerate(json.loads(points)):
        model.add_weighted_adapter(["0-low", "1-high"], weights, f"w{number}", combination_type="cat")
        model.set_adapter(f"w{number}")
        found[f"logits{number}"] = model.eval()(ids).logits[0]
np.savez(out, **found)
"""


#: The block of docs/dial.md on PEFT, beside the dial's directory.
PAGE_ALONE = """
import json, os
import numpy as np, torch
out, place, ids, block = sys.argv[1:]
os.chdir(place)
exec(block)
with torch.no_grad():
    np.savez(out, logits=model.eval()(torch.tensor([json.loads(ids)])).logits[0])
"""


@pytest.fixture(scope="module")
def gguf_dial(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConditionedLM, Path]:
    """A portable model whose base is a GGUF file, and its dial."""
    pytest.importorskip("gguf")
    place = tmp_path_factory.mktemp("gguf")
    file = str(place / "t.Q8_0.gguf")
    write_gguf(Path(file))
    model = ConditionedLM.create(load_base(file), ConditioningConfig.portable(("low", "high")))
    randomise(model)
    source = DialSource(model, tokenizer_of(file), ({"name": "low"}, {"name": "high"}), None, ("he",))
    export_dial(source, place / "dial", "vertices")
    return model, place / "dial"


@pytest.fixture(scope="module")
def run(portable_run: Path) -> AlignRun:
    run = AlignRun.load(portable_run)
    run.model.eval()
    return run


@pytest.fixture(scope="module")
def dial(portable_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dial") / "dial"
    export_dial(load_dial_source(portable_run), out, "vertices")
    return out


def logits(run: AlignRun, weights: Any, ids: Any = IDS) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = run.model(torch.tensor([ids]), weights=weights).logits[0].numpy()
        return found


def test_stock_peft_has_the_runs_logits_at_any_weights_without_this_package(run, dial, tmp_path) -> None:
    found = alone(tmp_path, ALONE, dial, json.dumps(IDS), json.dumps(POINTS))
    spread = np.abs(logits(run, POINTS[0]) - logits(run, POINTS[4])).max()
    assert spread > 0.1
    for number, weights in enumerate(POINTS):
        assert np.abs(found[f"logits{number}"] - logits(run, weights)).max() < 1e-4
    assert np.abs(found["template"] - logits(run, [0.5, 0.5])).max() < 1e-4


def test_the_template_loads_a_base_from_a_gguf_file(gguf_dial, tmp_path) -> None:
    model, dial = gguf_dial
    found = alone(tmp_path, ALONE, dial, json.dumps(IDS), json.dumps([[0.3, 0.7]]))
    wanted = {name: model(torch.tensor([IDS]), weights=w).logits[0].detach().numpy() for name, w in MIXED.items()}
    assert np.abs(wanted["template"] - wanted["logits0"]).max() > 1e-2
    for name, values in wanted.items():
        assert np.abs(found[name] - values).max() < 1e-4


@pytest.mark.parametrize("base", ["directory", "gguf"])
def test_the_page_loads_either_kind_of_base(request, run, dial, tmp_path, base) -> None:
    model, place = request.getfixturevalue("gguf_dial") if base == "gguf" else (run.model, dial)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.partition("\n## PEFT\n")[2].partition("\n## ")[0], re.DOTALL)
    found = alone(tmp_path, PAGE_ALONE, place.parent, json.dumps(IDS), block)["logits"]
    with torch.no_grad():
        wanted = model(torch.tensor([IDS]), weights=[0.3, 0.7]).logits[0].numpy()
    assert np.abs(found - wanted).max() < 1e-4


def test_the_template_of_vllm_has_a_request_and_the_rank_and_is_untried(dial, gguf_dial) -> None:
    found = read_dial(dial)
    asked, rank = found["requests"]["vllm"], found["adapters"][0]["rank"]
    assert asked["tried"] is False
    assert (asked["method"], asked["path"], asked["weights_at"]) == ("POST", "/v1/completions", ["model"])
    assert asked["body"] == {"model": "middle", "max_tokens": 24, "temperature": 0, "prompt": asked["body"]["prompt"]}
    assert "--weights 0.5,0.5 --out middle" in asked["prepare"]
    assert rank == 16
    assert "--max-lora-rank 16 --lora-modules middle=middle" in asked["start"]
    assert "gguf" not in json.dumps(asked).lower()
    from_gguf = read_dial(gguf_dial[1])["requests"]["vllm"]
    assert f"{gguf_dial[1].parent / 't.Q8_0.gguf'} --tokenizer middle --enable-lora" in from_gguf["start"]
    assert "not known" in from_gguf["notes"][1]
    three = requests_of("vertices", "a b", ["a", "b", "c"], ["0-a", "1-b", "2-c"], "x", rank=24)["vllm"]
    assert "--weights 0.3333,0.3333,0.3334" in three["prepare"]
    assert three["start"].startswith("vllm serve 'a b' --enable-lora --max-lora-rank 32 ")


def test_the_dial_says_what_it_was_made_of(run, dial, portable_run) -> None:
    found = read_dial(dial)
    assert [one["name"] for one in found["objectives"]] == ["low", "high"]
    assert [(o["direction"], o["beta"]) for o in found["objectives"]] == [(o.direction, o.beta) for o in run.objectives]
    assert found["front"] == read(portable_run / "metrics.json")["test_front"]
    assert [(one["objective"], one["path"], one["rank"]) for one in found["adapters"]] == [
        ("low", "0-low", run.model.conditioning.rank),
        ("high", "1-high", run.model.conditioning.rank),
    ]
    for adapter in found["adapters"]:
        files = {path.name: sha256(path) for path in (dial / adapter["path"]).iterdir() if path.is_file()}
        assert adapter["files"] == files
        assert "adapter_model.safetensors" in files
    weights = portable_run.parent / "model" / "model.safetensors"
    assert found["base"]["files"] == {"model.safetensors": sha256(weights)}
    assert (dial / "tokenizer" / "tokenizer.json").is_file()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_recorded_answers_are_the_runs_greedy_ones_with_their_log_probabilities(run, dial) -> None:
    recorded = read_dial(dial)["recorded"]
    assert [one["prompt"] for one in recorded["prompts"]] == run.data["prompts"]
    assert len(recorded["answers"]) == 5 * len(recorded["prompts"]) > 0
    grid = weight_grid(2, 5).tolist()
    for answer in recorded["answers"]:
        assert answer["weights"] in grid
        start = recorded["prompts"][answer["prompt"]]
        (text,) = run.generate([start["prompt"]], answer["weights"], max_new_tokens=24, do_sample=False)
        assert answer["text"] == text
        assert len(answer["ids"]) == 24 or answer["ids"][-1] == 2
        whole = logits(run, answer["weights"], start["ids"] + answer["ids"])[len(start["ids"]) - 1 : -1]
        logps = whole - np.log(np.exp(whole).sum(-1, keepdims=True))
        order = np.sort(logps, -1)
        np.testing.assert_allclose(answer["logprobs"], order[:, -1], atol=2e-5)
        np.testing.assert_allclose(answer["second"], order[:, -2], atol=2e-5)
        assert answer["ids"] == whole.argmax(-1).tolist()


def test_divergences_of_scales_are_those_of_peft_models(run, dial) -> None:
    """(14) token by token from the base and PEFT's model at w; and PEFT's model with the adapters counted w / c."""
    recorded = read_dial(dial)["recorded"]
    answer = next(one for one in recorded["answers"] if one["weights"] == [0.25, 0.75])
    (start,) = [recorded["prompts"][answer["prompt"]]["ids"]]
    places = [dial / name for name in ("0-low", "1-high")]

    def logps(weights: list[float]) -> torch.Tensor:
        with torch.no_grad():
            found = weighted_model(run.model, places, weights)(torch.tensor([start + answer["ids"]])).logits
        return found[0, len(start) - 1 : -1].double().log_softmax(-1)

    one_answer = {**recorded, "answers": [answer]}
    base, own = logps([0.0, 0.0]), logps([0.25, 0.75])
    for found, scale in zip(scale_divergences(run.model, one_answer), (0.5, 2.0, 4.0), strict=True):
        mixed = ((1 - 1 / scale) * base + own / scale).log_softmax(-1)
        plain = logps([0.25 / scale, 0.75 / scale])
        wanted = [(mixed.exp() * (mixed - one)).sum(-1) for one in (plain, base, own)]
        assert found["scale"] == scale
        assert found["mean"] == pytest.approx(float(wanted[0].mean()), rel=1e-3, abs=1e-7)
        assert found["largest"] == pytest.approx(float(wanted[0].max()), rel=1e-3, abs=1e-7)
        assert found["base"] == pytest.approx(float(wanted[1].mean()), rel=1e-3)
        assert found["unscaled"] == pytest.approx(float(wanted[2].mean()), rel=1e-3)


def test_the_command_records_prompts_and_scores(command, portable_run, tmp_path) -> None:
    (tmp_path / "more.txt").write_text("w7\n")
    options = ("--format", "vertices", "--prompt", "w5 w6", "--scorer", "test_export_vertices:lengths")
    options += ("--prompts-file", tmp_path / "more.txt")
    done = command("export", portable_run, "--out", tmp_path / "dial", *options)
    assert done.code == 0, done.err
    assert "0-low (low), 1-high (high)" in done.out
    assert "10 answers" in done.out
    difference = read(tmp_path / "dial" / "hyperdpo_export.json")["logit_difference"]
    shown = f"within {difference['absolute']:.2g} of the run's on random texts ({difference['relative']:.2g} of the"
    assert shown in done.out
    assert 0 < difference["relative"] <= difference["absolute"] < 1e-4
    found = read_dial(tmp_path / "dial")
    assert found["recorded"]["prompts"] == [{"prompt": "w5 w6", "ids": [5, 6]}, {"prompt": "w7", "ids": [7]}]
    assert found["scores"]["scorer"] == "test_export_vertices:lengths"
    first, second = found["recorded"]["answers"][:5], found["recorded"]["answers"][5:]
    for one, other, means in zip(first, second, found["scores"]["means"], strict=True):
        assert one["weights"] == other["weights"] == means["weights"]
        assert (means["low"], means["high"]) == ((len(one["text"]) + len(other["text"])) / 2, (5 + 2) / 2)
    assert found["requests"]["hyperdpo"]["body"]["prompt"] == "w5 w6"
    assert command("export", portable_run, "--out", tmp_path / "dial", *options).refused("holds an export")
    assert command("export", portable_run, "--out", tmp_path / "dial", *options, "--overwrite").code == 0


def lengths(prompts: list[str], texts: list[str]) -> np.ndarray:
    return np.array([[len(text), len(prompt)] for prompt, text in zip(prompts, texts, strict=True)])


def test_without_a_run_there_are_no_answers_and_a_note_says_so(command, portable_run, tmp_path) -> None:
    shutil.copytree(portable_run, tmp_path / "adapter")
    (tmp_path / "adapter" / "run.json").unlink()
    done = command("export", tmp_path / "adapter", "--out", tmp_path / "dial", "--format", "vertices")
    assert done.code == 0
    assert "no answers are recorded" in done.err
    found = read_dial(tmp_path / "dial")
    assert (found["recorded"], found["scores"], found["front"], found["scale"]["kl"]) == (None, None, None, None)
    assert found["objectives"] == [{"name": "low"}, {"name": "high"}]


@pytest.mark.parametrize("format", ["vertices", "gguf"])
def test_a_run_that_is_not_portable_is_refused_with_what_to_do(command, adapter, tmp_path, format) -> None:
    done = command("export", adapter, "--out", tmp_path / "dial", "--format", format)
    assert done.refused(f"--format {format}", "conditioning.prompt_tokens=3", "align fit --portable", "peft")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "vertices", "--weights", ".3,.7"], ("--weights", "--format peft")),
        (["--format", "merged", "--weights", ".3,.7", "--prompt", "w5"], ("--prompt", "vertices or gguf")),
        (["--format", "peft", "--weights", ".3,.7", "--scorer", "a:b"], ("--scorer", "vertices or gguf")),
        (["--format", "vertices", "--scorer", "no_such_module:f"], ("no_such_module",)),
        (["--format", "vertices", "--prompt", ""], ("prompt 1", "no tokens")),
    ],
)
def test_options_that_do_not_fit_are_refused_and_nothing_is_written(
    command, portable_run, tmp_path, options, words
) -> None:
    assert command("export", portable_run, "--out", tmp_path / "dial", *options).refused(*words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("one", "word"), [(Difference(0.5, 2.0), "0.5"), (Difference(np.nan, np.nan), "nan")])
def test_adapters_that_are_not_the_run_are_not_written(portable_run, tmp_path, monkeypatch, one, word) -> None:
    """Though only the last weighting shows it."""
    monkeypatch.setattr(module, "compared", lambda _, __, w, ___: (one if w == [0, 1] else Difference(1e-7, 1e-7), 0.0))
    with pytest.raises(InputError) as error:
        export_dial(load_dial_source(portable_run), tmp_path / "dial", "vertices")
    assert is_one_line(error.value, "--format vertices", word, "nothing was written")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ('{"kind": "align"}', "no dial"),
        ('{"kind": "dial", "format_version": 99}', "format_version is 99"),
    ],
)
def test_another_file_is_no_dial(tmp_path, content, words) -> None:
    (tmp_path / "dial.json").write_text(content)
    with pytest.raises(InputError) as error:
        read_dial(tmp_path)
    assert is_one_line(error.value, "dial.json", words)


def test_a_flipped_bit_in_a_dial_is_noticed(dial, tmp_path) -> None:
    content = bytearray((dial / "dial.json").read_bytes())
    place = content.index(b'"logprobs"') + 40
    content[place] = ord("7") if content[place] != ord("7") else ord("8")
    (tmp_path / "dial.json").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_dial(tmp_path)
    assert is_one_line(error.value, "dial.json")


def test_names_of_adapters_are_names_of_files_and_of_peft() -> None:
    long = "x" * 100
    names = adapter_names(("helpful", "a.b/c d", "ü", long))
    assert names == ["0-helpful", "1-a-b-c-d", "2-objective", "3-" + "x" * 60]


def test_an_answer_that_differs_where_two_tokens_tie_agrees_up_to_there() -> None:
    answer = {"ids": [5, 6, 7, 2], "logprobs": [-0.1, -0.70000, -0.2, -0.3], "second": [-3.0, -0.70005, -2.0, -2.0]}
    assert agreement(answer, [5, 6, 7, 2], [-0.1, -0.7, -0.2, -0.31]) == (None, False, pytest.approx(0.01))
    assert agreement(answer, [5, 6, 7])[:2] == (None, False)  # without the end token
    assert agreement(answer, [5, 9, 7, 2], [-0.1, -9, -0.2, -0.3]) == (1, True, pytest.approx(0.0))
    assert agreement(answer, [9, 6, 7, 2])[:2] == (0, False)
    assert agreement(answer, [5, 6])[:2] == (2, False)
    assert agreement(answer, [5, 6, 7, 2, 8])[:2] == (4, False)


def test_a_text_is_asked_as_the_run_was_trained(portable_run) -> None:
    source = load_dial_source(portable_run)
    assert source.asked(["w5"]) == ("w5",)
    assert source.asked([]) == source.prompts != ()
    source.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    turns = replace(source, speaks_in_turns=True)
    assert turns.asked(["w5"]) == ([{"role": "user", "content": "w5"}],)
    assert source.asked(["w5"]) == ("w5",)  # a run on plain texts, whose tokenizer has a template


def test_a_conversation_is_asked_through_the_route_of_chats() -> None:
    turns = [{"role": "user", "content": "w5"}]
    for format, engine in (("gguf", "llama.cpp"), ("vertices", "hyperdpo")):
        found = requests_of(format, "base", ["a", "b"], ["0-a", "1-b"], turns, rank=16)[engine]
        assert (found["path"], found["body"]["messages"]) == ("/v1/chat/completions", turns)
        assert "prompt" not in found["body"]

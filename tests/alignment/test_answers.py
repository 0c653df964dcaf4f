"""Answers that a model samples itself, and the preference sets that they make."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Killed, is_one_line, read
from tiny_gguf import write_gguf, writing_llama
from tiny_models import randomise, tiny_base, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from toy_preferences import words_tokenizer

from hyperdpo.alignment.answer_sets import asked, conversations, partial_of, read_prompts
from hyperdpo.alignment.answers import Answer, Sampling, decoded, drawn, sample_answers
from hyperdpo.alignment.bases import load_base, tokenizer_of
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.sampling import computing_in
from hyperdpo.cli import main
from hyperdpo.errors import InputError

PROMPTS = ["w3 w4", "w5", "w6 w7 w8 w9 w10", "w11 w12", "w13 w14 w15"]
HOW = Sampling(answers=3, max_new_tokens=6, batch_size=6)


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_base()


@pytest.fixture(scope="module")
def words() -> Any:
    return words_tokenizer()


def texts(found: list[tuple[Answer, ...]]) -> list[list[str]]:
    return [[one.text for one in answers] for answers in found]


def test_answers_do_not_depend_on_the_batch_nor_on_other_prompts(base: Any, words: Any) -> None:
    """Each prompt alone, all at once in another order, and in small padded batches."""
    found = texts(sample_answers(base, words, PROMPTS, HOW))
    assert texts(sample_answers(base, words, PROMPTS[::-1], Sampling(3, 6, batch_size=100)))[::-1] == found
    for prompt, own in zip(PROMPTS, found, strict=True):
        assert texts(sample_answers(base, words, [prompt], Sampling(3, 6, batch_size=1))) == [own]
    assert texts(sample_answers(base, words, PROMPTS, Sampling(3, 6, seed=1))) != found
    assert len({text for own in found for text in own}) == 15


def test_the_first_answers_stay_where_more_are_wanted(base: Any, words: Any) -> None:
    more = texts(sample_answers(base, words, PROMPTS, Sampling(5, 6)))
    assert [own[:3] for own in more] == texts(sample_answers(base, words, PROMPTS, HOW))


def test_the_caller_s_generator_and_mode_stay(base: Any, words: Any) -> None:
    model, before = base.train(), torch.get_rng_state()
    sample_answers(model, words, PROMPTS[:1], HOW)
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    model.eval()


def test_tokens_follow_the_model_s_distribution() -> None:
    """The first token of 4,000 rows against the softmax of the logits, at two temperatures; and drawn by its number."""
    model, prompt = tiny_base(), [3, 4, 5]
    numbers = np.random.default_rng(0).random((4000, 1))
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1]
    for temperature in (1.0, 0.5):
        found = [row[0] for row in decoded(model, [prompt], [0] * 4000, numbers, set(), 0, temperature)]
        shares = np.bincount(found, minlength=50) / 4000
        wanted = (logits / temperature).softmax(-1).numpy()
        # Four standard deviations of a share; 100 of them are looked at.
        assert (np.abs(shares - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 4000) + 1e-3).all()
    probabilities = torch.tensor([[0.2, 0.5, 0.3]] * 4).log()
    assert drawn(probabilities, torch.tensor([0.0, 0.19, 0.21, 0.9999999])).tolist() == [0, 0, 1, 2]


def test_decoding_continues_padded_prompts_as_the_model_alone_does(base: Any) -> None:
    """Every written token is the one that its number hits in the distribution of the whole text, computed anew."""
    prompts, owner = [[3, 4, 5, 6, 7], [8], [9, 10]], [0, 0, 1, 2, 2]
    numbers = np.random.default_rng(1).random((5, 9))
    for row, written in enumerate(decoded(base, prompts, owner, numbers, {2, 11, 12, 13}, 0)):
        ids = list(prompts[owner[row]])
        for step, token in enumerate(written):
            with torch.no_grad():
                logits = base(torch.tensor([ids])).logits[:, -1]
            assert int(drawn(logits, torch.tensor(numbers[row, step : step + 1]))) == token
            ids.append(token)
        assert not {2, 11, 12, 13} & set(written[:-1])
        assert len(written) == 9 or written[-1] in {2, 11, 12, 13}


def test_rows_at_weights_of_their_own(words: Any) -> None:
    """A conditioned model answers each row at its own weights, as it does alone."""
    model = tiny_model(trained=True)
    randomise(model)
    w = np.random.default_rng(0).dirichlet([1, 1], (2, 3))
    found = texts(sample_answers(model, words, PROMPTS[:2], HOW, weights=w))
    again = [texts(sample_answers(model, words, [p], HOW, weights=w[i : i + 1]))[0] for i, p in enumerate(PROMPTS[:2])]
    assert found == again
    other = texts(sample_answers(model, words, PROMPTS[:2], HOW, weights=w[:, :, ::-1].copy()))
    assert other != found
    ids, number = [3, 4], np.array([[0.37]])
    for row in w[0]:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), weights=row).logits[:, -1]
        assert decoded(model, [ids], [0], number, set(), 0, weights=row[None]) == [
            drawn(logits, torch.tensor([0.37])).tolist()
        ]
    with pytest.raises(InputError, match=r"weights of shape \(1, 3, 2\); expected \(2, 3, m\)"):
        sample_answers(model, words, PROMPTS[:2], HOW, weights=w[:1])


class OneWord(torch.nn.Module):
    """A base that writes one token only, however it is asked."""

    def __init__(self, base: Any, token: int):
        super().__init__()
        self.base, self.token = base, token
        self.config, self.generation_config, self.device = base.config, base.generation_config, base.device

    def forward(self, **inputs: Any) -> Any:
        out = self.base(**inputs)
        out.logits = torch.full_like(out.logits, -100.0)
        out.logits[..., self.token] = 100.0
        return out


def test_doubles_are_sampled_again_so_often_and_then_missing(base: Any, words: Any) -> None:
    found = sample_answers(OneWord(base, 7), words, PROMPTS[:2], HOW)
    assert [[(one.text, one.truncated, one.place) for one in own] for own in found] == [
        [(" w7 w7 w7 w7 w7", True, 0)]
    ] * 2
    kept = sample_answers(OneWord(base, 7), words, PROMPTS[:1], Sampling(3, 6, selected=False))
    assert len({one.text for one in kept[0]}) == 1
    assert len(kept[0]) == 3
    assert sample_answers(OneWord(base, 2), words, PROMPTS[:1], HOW) == [()]  # ends at once: no text


def test_an_answer_at_the_limit_is_truncated_and_ends_with_a_whole_word(base: Any, words: Any) -> None:
    for answers in sample_answers(base, words, PROMPTS, Sampling(4, 8)):
        for one in answers:
            # The last word may go on, or the last token ends the text.
            assert len(one.text.split()) == one.tokens - 1
            assert one.tokens == 8 or not one.truncated
    assert {one.truncated for answers in sample_answers(base, words, PROMPTS, Sampling(4, 8)) for one in answers} == {
        True,
        False,
    }


@pytest.mark.parametrize(
    ("settings", "words_"),
    [
        ({"answers": 0}, "answers is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_numbers_out_of_range_are_refused(settings: dict[str, Any], words_: str) -> None:
    with pytest.raises(InputError) as error:
        Sampling(**settings)
    assert is_one_line(error.value, words_)


# --- files


def test_prompts_are_read_from_texts_and_tables(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n two\none\n")
    assert read_prompts(tmp_path / "a.txt") == ["one", " two"]
    rows = [
        {"prompt": "one", "source": "s"},
        {"prompt": [{"role": "user", "content": "two"}]},
        {"prompt": "three", "system": "Be brief."},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_prompts(tmp_path / "a.jsonl") == ["one", [{"role": "user", "content": "two"}], "Be brief.\n\nthree"]
    (tmp_path / "b.jsonl").write_text('{"question": "x"}\n{"question": ""}\n')
    with pytest.raises(InputError) as error:
        read_prompts(tmp_path / "b.jsonl")
    assert is_one_line(error.value, "b.jsonl:2", "empty")
    (tmp_path / "c.txt").write_text("\n")
    with pytest.raises(InputError, match="no prompts"):
        read_prompts(tmp_path / "c.txt")


def test_texts_become_conversations_where_there_is_a_chat_template(words: Any, tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "own"}, {"role": "user", "content": "b"}]
    assert conversations(["a", chat], words, "S") == ["S\n\na", chat]
    write_gguf(tmp_path / "m.gguf")
    found = conversations(["a", chat], tokenizer_of(str(tmp_path / "m.gguf")), "S")
    assert found == [[{"role": "system", "content": "S"}, {"role": "user", "content": "a"}], chat]
    assert [asked(one) for one in found] == ["a", "b"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    write_gguf(out / "chat.gguf", writing_llama())
    (out / "prompts.txt").write_text("hello\nwhat is it\nwrite a poem\nhe he\na b c\n")
    return out


def command(place: Path, out: Path, *more: str) -> list[str]:
    sizes = ["--responses", "3", "--max-new-tokens", "12", "--batch-size", "6", "--cpu"]
    scorers = ["--scorer", "length", "--scorer", "shout=test_answers:shout"]
    return [
        *("align", "sample", str(place / "chat.gguf"), "--prompts-file", str(place / "prompts.txt")),
        *("--out", str(out), *sizes, *scorers, *more),
    ]


def shout(prompts: list[str], found: list[str]) -> list[float]:
    """A scorer of a user's own: it sees the question, not the chat template."""
    assert set(prompts) <= {"hello", "what is it", "write a poem", "he he", "a b c"}
    return [sum(one.isupper() for one in text) for text in found]


def test_a_set_is_sampled_scored_and_fitted(place: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "answers.jsonl"
    assert main(command(place, out, "--system", "Be kind.")) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "5 prompts, 15 answers of chat.gguf, dequantised from chat.gguf (Q8_0); " in said
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    cut = sum(sum(row["truncated"]) for row in rows)
    assert f"{cut} cut at 12 tokens" in said
    for row in rows:
        assert [one["role"] for one in row["prompt"]] == ["system", "user"]
        assert len(set(row["completions"])) == 3
        assert row["labels"]["shout"] == [sum(c.isupper() for c in text) for text in row["completions"]]
    about = read(out.with_name(out.name + ".about.json"))
    assert about["gguf_origin"]["dequantised"] is True
    assert about["sampling"]["max_new_tokens"] == 12
    assert about["counts"]["truncated"] == cut
    assert not partial_of(out).exists()
    with warnings.catch_warnings():  # nothing about a column that is not used
        warnings.simplefilter("error")
        preferences = read_preferences(out)
    assert preferences.objectives == ("length", "shout")
    # The answers that were scored are those that the model gives through its own chat template.
    model, tokenizer = load_base(str(place / "chat.gguf")), tokenizer_of(str(place / "chat.gguf"))
    own = sample_answers(model, tokenizer, [rows[1]["prompt"]], Sampling(3, 12))
    assert [one.text for one in own[0]] == rows[1]["completions"]
    fit = ["align", "fit", str(out), "--model", str(place / "chat.gguf"), "--out", str(tmp_path / "run"), "--cpu"]
    assert (
        main([*fit, "--set=training.max_steps=1", "--set=conditioning.prompt_tokens=2", "--objectives", "length"]) == 0
    )


def test_a_command_that_is_stopped_anywhere_gives_the_same_file(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Stopped after every batch in turn, and in the scoring, then started again; the batches are not sampled twice."""
    from hyperdpo.alignment import answer_sets, answers

    whole, out = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    assert main(command(place, whole)) == 0
    sampled: list[int] = []
    allowed = 0
    real = answers._Batch.sampled

    def stopping(self: Any) -> Any:
        if len(sampled) == allowed:
            raise Killed
        sampled.append(len(self.prompts))
        return real(self)

    monkeypatch.setattr(answers._Batch, "sampled", stopping)
    for number in (0, 1, 2):
        allowed = number
        with pytest.raises(Killed):
            main(command(place, out))
        assert not out.exists()
    with monkeypatch.context() as inside:
        allowed = 3
        inside.setattr(answer_sets, "scores_of", lambda *a: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            main(command(place, out))
    assert sampled == [2, 2, 1]
    other = command(place, out, "--temperature", "0.5")
    assert main(other) == 2
    assert "sampled with another temperature" in capsys.readouterr().err
    assert main(command(place, out)) == 0
    assert sampled == [2, 2, 1]
    assert out.read_bytes() == whole.read_bytes()
    assert not partial_of(out).exists()
    assert main(command(place, out)) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_half_precision_is_asked_for_recorded_and_not_mixed_with_the_model_s_own(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from hyperdpo.alignment import answers

    dtypes: list[torch.dtype] = []
    real = answers._Batch.sampled

    def sampled(self: Any) -> Any:
        dtypes.append(torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1)).dtype)
        return real(self)

    monkeypatch.setattr(answers._Batch, "sampled", sampled)
    for out, options, dtype in (("a", [], torch.float32), ("b", ["--precision", "bf16"], torch.bfloat16)):
        assert main(command(place, tmp_path / f"{out}.jsonl", *options)) == 0
        assert set(dtypes) == {dtype}
        assert read(tmp_path / f"{out}.jsonl.about.json")["precision"] == (options or [0, "no"])[1]
        dtypes.clear()
    with monkeypatch.context() as inside:
        inside.setattr(answers, "new_texts", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            main(command(place, tmp_path / "c.jsonl"))
    assert main(command(place, tmp_path / "c.jsonl", "--precision", "bf16")) == 2
    assert "sampled with another precision" in capsys.readouterr().err


class Casts(TorchDispatchMode):
    """Counts the casts of each of a model's parameters."""

    def __init__(self, model: Any):
        super().__init__()
        self.counts = {one.data_ptr(): 0 for one in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.counts:
            self.counts[args[0].data_ptr()] += 1
        return func(*args, **(kwargs or {}))

    @property
    def most(self) -> int:
        return max(self.counts.values())


def test_in_half_precision_a_frozen_weight_is_cast_once_and_frozen_again(base: Any, words: Any) -> None:
    for one in base.parameters():
        one.requires_grad_(False)
    with computing_in("bf16", base), Casts(base) as casts:
        assert not torch.is_grad_enabled()
        found = texts(sample_answers(base, words, PROMPTS, HOW))
    assert casts.most == 1
    assert not any(one.requires_grad for one in base.parameters())
    assert torch.is_grad_enabled()
    with torch.autocast("cpu", dtype=torch.bfloat16), Casts(base) as casts:
        assert found == texts(sample_answers(base, words, PROMPTS, HOW))
    assert casts.most > 1
    with computing_in("no", base):
        assert not next(base.parameters()).requires_grad


def test_other_scorers_without_sampling_again(place: Path, tmp_path: Path, capsys: Any) -> None:
    out, more = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    assert main(command(place, out)) == 0
    assert main(["align", "score", str(out), "--scorer", "brevity", "--out", str(more)]) == 0
    assert "5 prompts, 15 answers: brevity" in capsys.readouterr().out
    for before, after in zip(*([json.loads(x) for x in p.read_text().splitlines()] for p in (out, more)), strict=True):
        assert after["labels"] == {"brevity": [-x for x in before["labels"]["length"]]}
        assert {k: v for k, v in after.items() if k != "labels"} == {k: v for k, v in before.items() if k != "labels"}


@pytest.mark.parametrize(
    ("more", "words_"),
    [
        (["--responses", "1"], ["--responses is 1"]),
        (["--offset", "9"], ["5 prompts, none from --offset 9 on"]),
        (["--scorer", "nothing"], ["'nothing'", "sentiment"]),
        (["--scorer", "length"], ["'length' twice"]),
        (["--max-new-tokens", "1000"], ["prompt 1", "at most 128 together"]),
        (["--out", "a.txt"], ["a.txt", "ends in .jsonl"]),
    ],
)
def test_mistakes_get_one_line(place: Path, tmp_path: Path, more: list[str], words_: list[str], capsys: Any) -> None:
    assert main(command(place, tmp_path / "a.jsonl", *more)) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words_), said
    assert "Traceback" not in said
    assert not (tmp_path / "a.jsonl").exists()

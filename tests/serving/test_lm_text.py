"""Growing text: whole characters, all spaces, nothing of a stop string; the same as decoding at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hyperdpo.serving.server.lm_text import GrowingText, whole_text

TEXT = "Once upon a time, naïve 🙂 tails — 物語は始まる。\n\n  The end"


@pytest.fixture(scope="module", params=["gpt2-tokenizer", "stories260k"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    import transformers

    root = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = root.parent / "models" / request.param
    if not path.exists():
        pytest.skip(f"{path} is absent; HYPERDPO_DATA names another place (models/ lies beside it)")
    kind = transformers.GPT2TokenizerFast if request.param.startswith("gpt2") else transformers.AutoTokenizer
    return kind.from_pretrained(path)


def grown(tokenizer: Any, ids: list[int], context: tuple[int, ...] = (), stops: tuple[str, ...] = ()) -> list[str]:
    growing = GrowingText(tokenizer, context, stops)
    pieces = []
    for token in ids:
        pieces.append(growing.push(token))
        if growing.stopped:
            return pieces
    return [*pieces, growing.finish()]


def test_pieces_are_whole_characters_and_make_up_the_text(tokenizer: Any) -> None:
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    pieces = grown(tokenizer, ids)
    assert "".join(pieces) == whole_text(tokenizer, (), ids) == tokenizer.decode(ids)
    assert "\ufffd" not in "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 10


def test_a_continuation_keeps_its_first_space(tokenizer: Any) -> None:
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    whole = tokenizer.decode(ids)
    for cut in range(1, len(ids)):
        before = tokenizer.decode(ids[:cut])
        if before.endswith("\ufffd"):
            continue
        after = grown(tokenizer, ids[cut:], tuple(ids[:cut]))
        assert before + "".join(after) == before + whole_text(tokenizer, ids[:cut], ids[cut:]) == whole


@pytest.mark.parametrize("stop", ["upon a t", "🙂", "。\n\n", "time, n", "end", "O"])
def test_a_stop_string_ends_the_text_wherever_tokens_are_cut(tokenizer: Any, stop: str) -> None:
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    whole = tokenizer.decode(ids)
    assert "".join(grown(tokenizer, ids, (), ("zzz", stop))) == whole[: whole.index(stop)]


def test_what_only_began_like_a_stop_string_is_given_out_at_the_end(tokenizer: Any) -> None:
    ids = tokenizer("one two thr", add_special_tokens=False)["input_ids"]
    assert "".join(grown(tokenizer, ids, (), ("three", "two three"))) == tokenizer.decode(ids)

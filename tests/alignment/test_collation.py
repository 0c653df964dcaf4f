"""Token ids as TRL makes them, and batches in which every response is a row."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import is_one_line

from hyperdpo.alignment.collation import Collator, TokenGroup, padding_token, token_batches, tokenize_groups
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.alignment.tokenization import CHUNK_GROUPS
from hyperdpo.errors import InputError

transformers = pytest.importorskip("transformers")

SHARED = Path(os.environ.get("HYPERDPO_DATA") or Path(__file__).parents[3] / "shared" / "data")
STORIES = SHARED.parent / "models" / "stories260k"

#: A conversation as ChatML has it, without a token for the beginning.
CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
#: Like templates of reasoning models: the prompt alone ends with something that the whole conversation lacks.
THINKING = CHATML.replace("<|assistant|>{%", "<|assistant|>(thinks){%")

#: One token each.
WORDS = " a b c d e f g h"

TEXTS = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green, I think."},
    {"prompt": "Say hello: ", "chosen": "hello", "rejected": "good bye<|end|>"},
    {"prompt": "An is", "chosen": "land in the sea", "rejected": " it"},  # tokens merge over the border
    {"prompt": "Ünï", "chosen": "cödé 🙂", "rejected": "<|end|>"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Byte-level BPE trained on a few words, so that there are merges; ``<|end|>`` ends a sequence, nothing pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<s>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        [f"{WORDS} x y z. The sky is blue. An island in the sea. hello, good bye, I think it is green"] * 3, trainer
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>")


@pytest.fixture
def changed(tokenizer):
    """The tokenizer with other attributes, for one test."""

    def change(**attributes: Any) -> Any:
        import copy

        other = copy.deepcopy(tokenizer)
        for name, value in attributes.items():
            setattr(other, name, value)
        return other

    return change


def tokenized(data: Preferences, tokenizer: Any, **options: Any) -> list[TokenGroup]:
    objectives = fit_objectives(data, default_objectives(data))
    return tokenize_groups(data, to_targets(data, objectives), tokenizer, **options)


def row(prompt: Any, completions: list[str], **labels: list[float]) -> dict[str, Any]:
    return {"prompt": prompt, "completions": completions, "labels": labels or {"a": list(range(len(completions)))}}


def refused(data: Preferences, tokenizer: Any, *words: str, **options: Any) -> None:
    with pytest.raises(InputError) as error:
        tokenized(data, tokenizer, **options)
    assert is_one_line(error.value, *words), str(error.value)


# Equality with TRL ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trl_ids(tmp_path_factory) -> Any:
    """What TRL's DPOTrainer makes of pairs: (prompt, chosen, rejected) ids per row."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")

    def prepare(rows: list[dict[str, Any]], tokenizer: Any) -> list[tuple[list[int], list[int], list[int]]]:
        config = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1)
        trainer = trl.DPOTrainer(
            model=transformers.GPT2LMHeadModel(config),
            ref_model=transformers.GPT2LMHeadModel(config),
            args=trl.DPOConfig(
                output_dir=str(tmp_path_factory.mktemp("trl")), report_to=[], use_cpu=True, bf16=False, max_length=None
            ),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        return [(r["prompt_ids"], r["chosen_ids"], r["rejected_ids"]) for r in trainer.train_dataset]

    return prepare


def ours(rows: list[dict[str, Any]], tokenizer: Any) -> list[tuple[list[int], list[int], list[int]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return [(g.prompt_ids, *g.completion_ids) for g in tokenized(read_preferences(rows), tokenizer)]


def chat(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def test_pairs_of_texts_have_trls_tokens(trl_ids, changed):
    found = ours(TEXTS, changed())
    assert found == trl_ids(TEXTS, changed())
    end = changed().eos_token_id
    assert all(chosen[-1] == rejected[-1] == end for _, chosen, rejected in found)
    assert found[3][2] == [end], "an end that is there is not added again"


def test_pairs_without_a_prompt_column_have_trls_tokens(trl_ids, changed):
    rows = [
        {"chosen": "The sky is blue.", "rejected": "The sky is green"},
        {"chosen": "hello: I think", "rejected": "hello: it is"},
    ]
    assert ours(rows, changed()) == trl_ids(rows, changed())


@pytest.mark.parametrize("template", [CHATML, THINKING], ids=["chatml", "thinking"])
def test_conversations_have_trls_tokens(trl_ids, changed, template):
    rows = [chat(*(r[k].replace("<|end|>", "!") for k in ("prompt", "chosen", "rejected"))) for r in TEXTS]
    assert ours(rows, changed(chat_template=template)) == trl_ids(rows, changed(chat_template=template))


def test_a_tokenizer_that_begins_and_pads_has_trls_tokens_on_real_pairs(trl_ids):
    """The beginning-of-sequence token of stories260k, on every two responses of the real data."""
    path = SHARED / "preferences" / "sfhot.jsonl"
    for needed in (path, STORIES):
        if not needed.exists():
            pytest.skip(f"{needed} is absent; HYPERDPO_DATA names another place")
    tokenizer = transformers.AutoTokenizer.from_pretrained(STORIES)
    groups = read_preferences(path).groups[:60]
    rows = [{"prompt": g.prompt, "chosen": g.completions[0], "rejected": g.completions[1]} for g in groups]
    found = ours(rows, tokenizer)
    assert found == trl_ids(rows, tokenizer)
    assert all(prompt[0] == tokenizer.bos_token_id for prompt, _, _ in found)


# Groups ---------------------------------------------------------------------------------------------------------------


def test_prompt_and_response_together_are_the_text_and_its_end(tokenizer):
    data = read_preferences([row("The sky is", [" blue", " green", " it"]), row("I think", [" hello", " An island"])])
    found = tokenized(data, tokenizer)
    for group, tokens in zip(data.groups, found, strict=True):
        assert len(tokens.completion_ids) == len(group.completions)
        for text, ids in zip(group.completions, tokens.completion_ids, strict=True):
            assert tokenizer.decode(tokens.prompt_ids + ids) == f"{group.prompt}{text}<|end|>"
    assert [group.index for group in found] == [0, 1]


def test_many_groups_are_tokenised_as_one_is(tokenizer):
    rows = [row(f"The sky {i}", [f" is {k}" for k in range(2 + i % 3)]) for i in range(CHUNK_GROUPS + 3)]
    whole = tokenized(read_preferences(rows), tokenizer)
    assert len(whole) == len(rows)
    for i in (0, CHUNK_GROUPS - 1, CHUNK_GROUPS, CHUNK_GROUPS + 2):
        (alone,) = tokenized(read_preferences([rows[i]]), tokenizer)
        assert (whole[i].prompt_ids, whole[i].completion_ids) == (alone.prompt_ids, alone.completion_ids)


def test_merged_borders_are_told_once_and_shared_by_the_group(tokenizer):
    data = read_preferences(
        [row("An is", ["land", " it", " blue"]), row("An is", ["land", " it"]), row("I", [" a", " b"])]
    )
    with pytest.warns(UserWarning, match=r"rows: .* in 2 of 3 groups \(first: rows: row 1\)") as told:
        found = tokenized(data, tokenizer)
    assert len(told) == 1
    assert tokenizer.decode(found[0].prompt_ids) == "An"
    assert tokenizer.decode(found[0].completion_ids[1]) == " is it<|end|>"


def test_texts_and_conversations_may_be_mixed(changed):
    tokenizer = changed(chat_template=CHATML)
    data = read_preferences([row("I", [" a", " b"]), row([{"role": "user", "content": "I"}], ["a", "b"])])
    found = tokenized(data, tokenizer)
    assert tokenizer.decode(found[0].completion_ids[1]) == " b<|end|>"
    assert tokenizer.decode(found[1].prompt_ids) == "<|user|>I<|end|><|assistant|>"
    assert tokenizer.decode(found[1].completion_ids[1]) == "b<|end|>"


def test_settings_reach_the_chat_template(changed):
    tokenizer = changed(chat_template="{{ tone }}" + CHATML)
    data = read_preferences([row([{"role": "user", "content": "I"}], ["a", "b"])])
    (found,) = tokenized(data, tokenizer, chat_template_kwargs={"tone": "blue "})
    assert tokenizer.decode(found.prompt_ids).startswith("blue <|user|>")


def test_the_end_pads_where_nothing_else_does(tokenizer, changed):
    assert padding_token(tokenizer) == tokenizer.eos_token_id
    assert padding_token(changed(pad_token="<s>")) == 1
    assert tokenizer.pad_token is None, "the user's tokenizer is left as it is"
    with pytest.raises(InputError) as error:
        padding_token(changed(eos_token=None))
    assert is_one_line(error.value, "neither a pad token nor an end-of-sequence token", "tokenizer.pad_token =")


def test_a_tokenizer_that_does_not_suit_is_refused(changed):
    texts = read_preferences([row("I", [" a", " b"])])
    refused(texts, changed(eos_token=None), "pad token", "tokenizer.pad_token =")
    refused(texts, changed(eos_token=None, pad_token="<s>"), "no end-of-sequence token", "tokenizer.eos_token =")
    conversation = read_preferences([row("I", [" a", " b"]), row([{"role": "user", "content": "I"}], ["a", "b"])])
    refused(conversation, changed(), "rows: row 2", "no chat template")
    with pytest.raises(InputError, match="0 targets for 1 groups"):
        tokenize_groups(texts, [], changed())


# Lengths --------------------------------------------------------------------------------------------------------------


def test_what_is_too_long_is_refused_with_its_row(tokenizer, changed):
    data = read_preferences([row("I", [" a", " b"]), row("I", [" a", WORDS])])
    refused(data, tokenizer, "rows: row 2", "prompt and response 2 have 1 + 9 tokens", "at most 9", max_length=9)
    refused(data, changed(model_max_length=9), "row 2", "at most 9")
    assert len(tokenized(data, tokenizer, max_length=10)) == 2
    assert len(tokenized(data, changed(model_max_length=9), max_length=10)) == 2, "a limit asked for comes first"
    data = read_preferences([row("I" + WORDS, [" a", " b"])])
    refused(data, tokenizer, "row 1", "prompt has 9 tokens", "at most 8", max_prompt_length=8)
    refused(data, tokenizer, "max_length is 1;", max_length=1)
    refused(data, tokenizer, "max_prompt_length is 0;", max_prompt_length=0)


@pytest.mark.parametrize(
    ("limits", "prompt", "responses"),
    [
        ({"max_length": 100}, "I a b c d e f g h", [" x<|end|>", " x y z<|end|>"]),
        ({"max_length": 8}, " e f g h", [" x<|end|>", " x y z<|end|>"]),  # what the longest response leaves free
        ({"max_length": 4}, " g h", [" x<|end|>", " x y"]),  # half
        ({"max_length": 5, "max_prompt_length": 1}, " h", [" x<|end|>", " x y z<|end|>"]),
        ({"max_length": 5, "max_prompt_length": 3}, " f g h", [" x<|end|>", " x y"]),
        ({"max_length": 6, "max_prompt_length": 4}, " e f g h", [" x<|end|>", " x y"]),
        ({"max_prompt_length": 2}, " g h", [" x<|end|>", " x y z<|end|>"]),
    ],
)
def test_truncation_keeps_the_prompts_end_and_the_responses_start(tokenizer, limits, prompt, responses):
    data = read_preferences([row("I" + WORDS, [" x", " x y z"])])
    (found,) = tokenized(data, tokenizer, truncate=True, **limits)
    assert tokenizer.decode(found.prompt_ids) == prompt
    assert [tokenizer.decode(ids) for ids in found.completion_ids] == responses
    assert found.length <= limits.get("max_length", 99)


def test_groups_whose_responses_are_cut_to_the_same_tokens_are_left_out_and_counted(tokenizer):
    data = read_preferences([row("I", [" x y", " x z"]), row("I", [" x", " y"]), row("I", [" a b", " a c", " d"])])
    with pytest.warns(UserWarning, match=r"left out 1 of 3 groups: .* same tokens once they are cut to 2 tokens"):
        found = tokenized(data, tokenizer, truncate=True, max_length=2)
    assert [group.index for group in found] == [1, 2]
    refused(data.select([0]), tokenizer, "no group remains", "1 of 1", "row 1", truncate=True, max_length=2)


def test_groups_that_are_too_long_can_be_left_out(tokenizer):
    data = read_preferences([row("I", [" a", " b"]), row("I", [" a", WORDS])])
    with pytest.warns(UserWarning, match=r"left out 1 of 2 groups: .* more than 9 tokens \(first: rows: row 2\)"):
        assert len(tokenized(data, tokenizer, max_length=9, skip_invalid=True)) == 1


def test_truncation_keeps_the_beginning_of_the_sequence(changed):
    tokenizer = changed(bos_token="<s>")
    data = read_preferences([row("<s>I" + WORDS, [" x", " y"])])
    (found,) = tokenized(data, tokenizer, truncate=True, max_prompt_length=3)
    assert tokenizer.decode(found.prompt_ids) == "<s> g h"


# Collator -------------------------------------------------------------------------------------------------------------


def group(prompt: int, *lengths: int, index: int = 0, logps: bool = False) -> TokenGroup:
    """Prompt of 1s, responses of 2s, 3s, ...; one objective that says nothing, and one that says everything."""
    n = len(lengths)
    return TokenGroup(
        prompt_ids=[1] * prompt,
        completion_ids=[[2 + k] * length for k, length in enumerate(lengths)],
        targets=np.stack([np.zeros(n), np.full(n, 1 / n)]).astype(np.float32),
        signal=np.array([False, True]),
        index=index,
        reference_logps=-np.arange(1, n + 1, dtype=np.float32) if logps else None,
    )


def test_a_batch_is_written_out():
    batch = Collator(pad_token_id=9)([group(2, 1, 2, index=5, logps=True), group(1, 1, 1, 2, index=3, logps=True)])
    expected = {
        "input_ids": [[1, 1, 2, 9], [1, 1, 3, 3], [1, 2, 9, 9], [1, 3, 9, 9], [1, 4, 4, 9]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]],
        "completion_mask": [[0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]],
        "rows": [[0, 1, 0], [2, 3, 4]],
        "mask": [[True, True, False], [True, True, True]],
        "targets": [[[0, 0, 0], [0.5, 0.5, 0]], [[0, 0, 0], [1 / 3, 1 / 3, 1 / 3]]],
        "signal": [[False, True], [False, True]],
        "index": [5, 3],
        "reference_logps": [[-1, -2, 0], [-1, -2, -3]],
    }
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(batch[name], torch.tensor(values), check_dtype=False)


def test_rows_and_mask_take_row_values_to_groups():
    batch = Collator(0)([group(1, 1, 1), group(1, 1, 1, 1), group(1, 1, 1)])
    values = torch.arange(7.0)
    assert torch.equal(values[batch["rows"]][batch["mask"]], values)


def test_reference_logps_need_all_groups():
    assert "reference_logps" not in Collator(0)([group(1, 1, 1, logps=True), group(1, 1, 1)])


def test_a_pair_collates_as_trl_has_it(trl_ids, changed):
    """The same rows, in another order: TRL puts all that are chosen before all that are rejected."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        groups = tokenized(read_preferences(TEXTS), changed())
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    theirs = DataCollatorForPreference(pad_token_id=7)(
        [dict(zip(names, ids, strict=True)) for ids in trl_ids(TEXTS, changed())]
    )
    batch = Collator(7)(groups)
    for name in ("input_ids", "attention_mask", "completion_mask"):
        torch.testing.assert_close(batch[name][batch["rows"].T.flatten()], theirs[name])


# Batches --------------------------------------------------------------------------------------------------------------


def test_batches_hold_every_group_once_within_their_tokens():
    draw = np.random.default_rng(0)
    lengths, sizes = draw.integers(5, 100, 1001), draw.integers(2, 6, 1001)
    batches = token_batches(lengths, sizes, 500)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(1001))
    padded = [lengths[batch].max() * sizes[batch].sum() for batch in batches]
    assert max(padded) <= 500
    assert sum(padded) < 1.15 * (lengths * sizes).sum(), "groups of similar lengths need little padding"


def test_the_longest_come_first_and_one_above_the_budget_is_a_batch_of_its_own():
    found = token_batches([4, 100, 3, 2], [1, 2, 1, 1], 8)
    assert [batch.tolist() for batch in found] == [[1], [0, 2], [3]]
    assert token_batches([], [], 8) == []

"""One beginning, no end after a prompt, one end after a response, whatever a tokenizer adds of its own accord."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from toy_preferences import words_tokenizer

from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.alignment.special_tokens import answered_ids, beginning, prompt_ids
from hyperdpo.alignment.tokenization import tokenize_groups
from hyperdpo.errors import InputError

BOS, EOS = 1, 2
CHAT = "{% for m in messages %}w9 {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}w8{% endif %}"
WITH_BOS = "{{ bos_token }} " + CHAT
WITH_EOS = CHAT.replace(" {% endfor %}", " {% if m['role'] == 'assistant' %}</s> {% endif %}{% endfor %}")
ALWAYS_EOS = CHAT + " {{ eos_token }}"


def tokenizer(before: str = "", after: str = "", template: str | None = None) -> Any:
    """A tokenizer that puts tokens around every text."""
    from tokenizers import processors

    made = copy.deepcopy(words_tokenizer())
    if before or after:
        single = " ".join(filter(None, [before, "$A", after]))
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=f"{single} $B", special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    made.chat_template = template
    return made


#: What tokenizers put before and after a text of their own accord.
ADDING = [("", ""), ("<s>", ""), ("<s>", "</s>"), ("<s> <s>", "</s>"), ("", "</s>")]


@pytest.mark.parametrize(
    "text", ["w3 w4", "<s> w3 w4", "<s> <s> w3 w4", " \n<s>\n <s>w3 w4", "w3 w4 </s>", "<s> w3 w4</s> </s>\n"]
)
@pytest.mark.parametrize(("before", "after"), ADDING)
def test_a_text_has_one_beginning_and_no_end(before, after, text):
    made = tokenizer(before, after)
    begins = "<s>" in before or "<s>" in text
    assert prompt_ids(made, [text]) == [[BOS, 3, 4] if begins else [3, 4]]
    assert (made.bos_token_id in beginning(made)) == ("<s>" in before)


@pytest.mark.parametrize("response", [" w5", " w5 </s>", " w5</s></s>", "<s> w5 </s>\n", " <s> <s> w5\n</s> </s>"])
@pytest.mark.parametrize("prompt", ["w3 w4", "<s> w3 w4", " <s>w3 w4", "w3 w4 </s>"])
@pytest.mark.parametrize(("before", "after"), ADDING)
def test_a_response_ends_once(before, after, prompt, response):
    begins = "<s>" in before or "<s>" in prompt
    (found,) = answered_ids(tokenizer(before, after), [prompt], [response])
    assert found == [*([BOS] if begins else []), 3, 4, 5, EOS]


@pytest.mark.parametrize("template", [CHAT, WITH_BOS, WITH_EOS, ALWAYS_EOS, WITH_BOS + "{{ eos_token }}"])
@pytest.mark.parametrize(("before", "after"), ADDING)
def test_a_conversation_has_one_beginning_and_its_answer_one_end(before, after, template):
    made = tokenizer(before, after, template)
    begin = [BOS] if "<s>" in before or "bos" in template else []
    prompt = [{"role": "user", "content": "w3"}]
    assert prompt_ids(made, [prompt]) == [[*begin, 9, 3, 8]]
    for response in ("w5", "w5</s>"):
        assert answered_ids(made, [prompt], [response]) == [[*begin, 9, 3, 9, 5, EOS]]


def test_a_template_that_closes_the_users_turn_with_an_end_keeps_it():
    made = tokenizer(template="{% for m in messages %}{{ m['content'] }} {{ eos_token }} {% endfor %}")
    prompt = [{"role": "user", "content": "w3"}]
    assert prompt_ids(made, [prompt]) == [[3, EOS]]
    assert answered_ids(made, [prompt], ["w5"]) == [[3, EOS, 5, EOS]]


def test_another_special_token_may_end_a_turn():
    made = tokenizer(template="{% for m in messages %}{{ m['content'] }} <|turn|>\n{% endfor %}")
    made.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    turn = made.convert_tokens_to_ids("<|turn|>")
    found = answered_ids(made, [[{"role": "user", "content": "w3"}]], ["w5"])
    assert found == [[3, turn, 5, turn]]


def test_groups_have_these_tokens():
    rows = [{"prompt": "<s> w3 w4", "completions": [" w5</s>", " w6"], "labels": {"a": [1, 0]}}]
    data = read_preferences(rows)
    targets = to_targets(data, fit_objectives(data, default_objectives(data)))
    (group,) = tokenize_groups(data, targets, tokenizer("<s>", "</s>"))
    assert (group.prompt_ids, group.completion_ids) == ([BOS, 3, 4], [[5, EOS], [6, EOS]])


def test_a_conversation_that_the_template_refuses_is_named_and_can_be_left_out():
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + CHAT
    made = tokenizer("<s>", template=refusing)
    turns = [{"role": "user", "content": "w3"}]
    system = [{"role": "system", "content": "w4"}, *turns]
    rows = [{"prompt": one, "completions": ["w5", "w6"], "labels": {"a": [1, 0]}} for one in (turns, system, turns)]
    data = read_preferences(rows)
    targets = to_targets(data, fit_objectives(data, default_objectives(data)))
    with pytest.raises(InputError, match=r"rows: row 2: the chat template refuses .*No system role"):
        tokenize_groups(data, targets, made)
    with pytest.warns(UserWarning, match=r"left out 1 of 3 groups: .*No system role.* \(first: rows: row 2\)"):
        found = tokenize_groups(data, targets, made, skip_invalid=True)
    assert [group.index for group in found] == [0, 2]


def keeping_spaces(before: str = "") -> Any:
    """A tokenizer to which a space is a token, as to most that are in use."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", " ", "Once", "upon"]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    if before:
        made.backend_tokenizer.post_processor = tokenizer(before).backend_tokenizer.post_processor
    return made


@pytest.mark.parametrize("before", ["", "<s>"])
@pytest.mark.parametrize("text", ["<s>Once", " <s>Once", "  <s>  <s>Once", "<s> <s>Once</s> "])
def test_white_space_before_a_beginning_makes_no_second_one(before, text):
    made = keeping_spaces(before)
    assert prompt_ids(made, [text]) == [[BOS, 4]]
    assert answered_ids(made, [text], [" upon"]) == [[BOS, 4, 3, 5, EOS]]
    made.chat_template = " {{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert prompt_ids(made, [[{"role": "user", "content": "Once"}]]) == [[BOS, 4]]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    ("response", "token"), [("w5 </s> w6", "</s>"), ("w5</s>\nw6 </s>", "</s>"), ("w5 <s> w6", "<s>")]
)
def test_a_response_with_a_beginning_or_an_end_in_the_middle_is_refused_with_its_row(chat, response, token):
    made = tokenizer("<s>", template=CHAT)
    prompt = [{"role": "user", "content": "w3"}] if chat else "w3 </s> <s> w4"
    rows = [{"prompt": prompt, "completions": [" w7", one], "labels": {"a": [1, 0]}} for one in (" w5", response)]
    data = read_preferences(rows)
    targets = to_targets(data, fit_objectives(data, default_objectives(data)))
    with pytest.raises(InputError, match=f"rows: row 2: a response has '{token}', .* in the middle") as error:
        tokenize_groups(data, targets, made)
    assert "\n" not in str(error.value)
    with pytest.warns(UserWarning, match=f"left out 1 of 2 groups: a response with '{token}' in the middle"):
        (group,) = tokenize_groups(data, targets, made, skip_invalid=True)
    if not chat:
        assert group.prompt_ids == [BOS, 3, EOS, BOS, 4], "turns of a prompt keep theirs"


def test_what_only_looks_like_an_end_is_text():
    made = words_tokenizer()
    made.eos_token = "w9"  # part of other words, and a token of its own
    assert answered_ids(made, ["w3"], ["w5 w90"])[0][-1] == 9
    with pytest.raises(InputError, match="'w9'"):
        answered_ids(made, ["w3"], ["w5 w9 w6"])

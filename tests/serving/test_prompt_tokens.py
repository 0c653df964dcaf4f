"""Prompts of the server and of exports have the tokens that training gave them."""

from __future__ import annotations

from typing import Any

import pytest
from exported_models import WEIGHTS, tokenizer
from helpers import is_one_line
from tiny_models import tiny_model
from transformers import AutoTokenizer

from hyperdpo.alignment.special_tokens import prompt_ids
from hyperdpo.errors import InputError
from hyperdpo.serving.export.language_model import export_lm
from hyperdpo.serving.export.tokens import prompting, virtual_tokens
from hyperdpo.serving.server.lm_source import LanguageModel

BOS, EOS = 1, 2
TEMPLATE = "{% for turn in messages %}{{ turn['content'] }} {% endfor %}w9"


def adding(single: str, template: str | None = None) -> Any:
    """A tokenizer with a post-processor of its own."""
    from tokenizers import processors

    made = tokenizer("none")
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    made.chat_template = template
    return made


@pytest.mark.parametrize("single", ["$A </s>", "<s> $A </s>", "<s> <s> $A", "<s> $A"])
@pytest.mark.parametrize("template", [TEMPLATE, "{{ bos_token }} " + TEMPLATE])
def test_the_server_and_an_export_read_prompts_as_training_does(tmp_path, single, template):
    made = adding(single, template)
    served = LanguageModel.of("m", tiny_model(), made)
    turns = [{"role": "user", "content": "w5"}]
    start = [BOS] if "<s>" in single else []
    assert served.text("w5") == [*start, 5]
    assert served.text("<s> w5 </s>") == [BOS, 5]
    chat = [BOS, 5, 9] if start or "bos" in template else [5, 9]
    assert served.chat(turns) == chat
    model = tiny_model(prompt_tokens=0, prompt_conditioned=False)
    export_lm(model, made, WEIGHTS, tmp_path / "out")
    alone = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert alone("w5")["input_ids"] == [*start, 5]
    found = alone.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert found == chat
    assert made("w5")["input_ids"] != [5], "the tokenizer given is left as it is"


def test_virtual_tokens_stand_before_the_one_beginning():
    made, _, ids = virtual_tokens(prompting(adding("<s> <s> $A </s>", TEMPLATE)), 2)
    assert made("w5")["input_ids"] == [*ids, BOS, 5]
    text = made.apply_chat_template([{"role": "user", "content": "w5"}], tokenize=False)
    assert made(text, add_special_tokens=False)["input_ids"] == [*ids, BOS, 5, 9]


def test_a_tokenizer_that_adds_nothing_wrong_is_exported_as_it_is():
    for made in (tokenizer("none"), tokenizer("bos"), None):
        assert prompting(made) is made


def test_a_conversation_that_the_template_refuses_is_told_to_the_client():
    served = LanguageModel.of("m", tiny_model(), adding("$A", "{{ raise_exception('no roles') }}"))
    with pytest.raises(InputError) as error:
        served.chat([{"role": "user", "content": "w5"}])
    assert is_one_line(error.value, "messages", "the chat template refuses", "no roles")
    assert prompt_ids(served.tokenizer, ["w5"]) == [[5]]

"""A question is the same question in whatever template it was written, and another one stays another one."""

from __future__ import annotations

import itertools

import pytest

from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.questions import normal, question_of

ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. "
)

#: ``{}`` is the question.
TEMPLATES = {
    "hh": "\n\nHuman: {}\n\nAssistant:",
    "one line": "Human: {} Assistant:",
    "hh, later": "\n\nHuman: {}\n\nAssistant: It is.\n\nHuman: And then?\n\nAssistant:",
    "first turn unnamed": "{}\n\nAssistant: It is.\n\nHuman: And then?\n\nAssistant:",
    "pku": "BEGINNING OF CONVERSATION: USER: {} ASSISTANT:",
    "pku, later": "BEGINNING OF CONVERSATION: USER: {} ASSISTANT: It is. USER: And then? ASSISTANT:",
    "vicuna": VICUNA + "USER: {} ASSISTANT:",
    "vicuna, later": VICUNA + "USER: {} ASSISTANT: It is.</s>USER: And then? ASSISTANT:",
    "vicuna, lines": VICUNA + "\n\nUSER: {}\nASSISTANT:",
    "vicuna, begun": VICUNA + "USER: {} ASSISTANT: Sure",
    "orca": "### System:\nBe nice.\n\n### User:\n{}\n\n### Assistant:\n",
    "guanaco": "### Human: {}### Assistant:",
    "system": "System: Be nice.\n\nUser: {}\n\nAssistant:",
    "system, one line": "SYSTEM: Be nice. USER: {} ASSISTANT:",
    "lower": "user: {}\nassistant:",
    "openchat 3.5": "GPT4 Correct User: {}<|end_of_turn|>GPT4 Correct Assistant:",
    "openchat": "<s>GPT4 User: {}<|end_of_turn|>GPT4 Assistant: It is.<|end_of_turn|>GPT4 User: And?<|end_of_turn|>"
    "GPT4 Assistant:",
    "redpajama": "<human>: {}\n<bot>:",
    "question": "Question: {}\n\nAnswer:",
    "question, one line": "Question: {} Answer:",
    "q": "Q: {}\nA:",
    "examples": "Question: Is it so?\nAnswer: Yes.\n\nQuestion: {}\nAnswer:",
    "alpaca": ALPACA + "### Instruction:\n{}\n\n### Response:\n",
    "alpaca, bare": "### Instruction:\n{}\n\n### Response:",
    "alpaca, no input": ALPACA + "### Instruction:\n{}\n\n### Input:\n\n\n### Response:",
    "llama 2": "<s>[INST] {} [/INST]",
    "llama 2, system": "<s>[INST] <<SYS>>\nBe nice.\n<</SYS>>\n\n{} [/INST]",
    "llama 2, later": "<s>[INST] <<SYS>>\nBe nice.\n<</SYS>>\n\n{} [/INST] It is. </s><s>[INST] And then? [/INST]",
    "mistral": "<s>[SYSTEM_PROMPT]Be nice.[/SYSTEM_PROMPT][INST]{}[/INST]",
    "chatml": "<|im_start|>system\nBe nice.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "chatml, later": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\nIt is.<|im_end|>\n<|im_start|>user\nAnd?"
    "<|im_end|>\n",
    "llama 3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe nice.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama 4": "<|header_start|>user<|header_end|>\n\n{}<|eot|><|header_start|>assistant<|header_end|>",
    "gemma": "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "zephyr": "<|system|>\nBe nice.</s>\n<|user|>\n{}</s>\n<|assistant|>\n",
    "phi": "<|user|>\n{}<|end|>\n<|assistant|>\n",
    "open assistant": "<|prompter|>{}<|endoftext|><|assistant|>",
    "deepseek": "<\uff5cbegin\u2581of\u2581sentence\uff5c>Be nice.<\uff5cUser\uff5c>{}<\uff5cAssistant\uff5c>",
    "command": "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "granite": "<|start_of_role|>user<|end_of_role|>{}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    "nemotron": "<extra_id_0>System\nBe nice.\n<extra_id_1>User\n{}\n<extra_id_1>Assistant\n",
    "helpsteer 2": "{}<extra_id_1>Assistant\nIt is.<extra_id_1>User\nAnd then?",
}  # fmt: skip

#: Some of them have the words and signs that templates are made of.
QUESTIONS = [
    "Why is the sky blue?",
    "Why is the sky red?",
    "  Sum\tthese:\n\n1\n2 ",
    "What does user: root mean?",
    "What does user: admin mean?",
    "What is wrong here?\nuser: root\npassword: x",
    "In a chat with User: and Bot names, who asks?",
    "In a chat with User: and Bot names, who replies?",
    "Is the assistant: field needed?",
    "Is the assistant: field optional?",
    "Which question: first or second?",
    "Is an answer: needed",
    "What does <|user|> stand for?",
    "What does <|assistant|> stand for?",
    "What do [INST] and [/INST] mark?",
    "What is </s> in a vocabulary?",
    "What is <s> in a vocabulary?",
    "Write a function f(x) -> y: it returns x[0] > 1",
    "# Heading\nIs this C#?",
    "AI: hype or not?",
]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_question_in_a_template_is_the_plain_question(template):
    for question in QUESTIONS:
        assert question_of(template.replace("{}", question)) == question_of(question), question
        assert question_of([{"role": "user", "content": template.replace("{}", question)}]) == question_of(question)


@pytest.mark.parametrize("template", ["{}", *TEMPLATES.values()], ids=["plain", *TEMPLATES])
def test_different_questions_in_a_template_are_different(template):
    keys = [question_of(template.replace("{}", question)) for question in QUESTIONS]
    assert len(set(keys)) == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_plain_question_keeps_its_text(question):
    assert question_of(question) == normal(question)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Passage: It rains. Question: Why? Answer:", "Passage: It snows. Question: Why? Answer:"),
        ("Context: It rains.\nQuestion: Why?\nAnswer:", "Context: It snows.\nQuestion: Why?\nAnswer:"),
        ("Does C# Human: work?", "Does F# Human: work?"),
        ("Explain <|im_start|>user and more", "Explain <|im_start|>user or more"),
        ("Write user: a", "Write user: b"),
    ],
)
def test_what_stands_before_a_name_is_part_of_a_question(first, second):
    assert question_of(first) == normal(first)
    assert question_of(second) == normal(second)


@pytest.mark.parametrize(
    "text",
    [
        ALPACA + "### Instruction:\nAdd these.\n\n### Input:\n1 and 2\n\n### Response:\n",
        "### Instruction:\nAdd these.\n### Input:\n1 and 2\n### Response:",
        "Instruction: Add these.\nInput: 1 and 2\nOutput:",
    ],
)
def test_alpacas_instruction_and_input_are_its_two_columns(text):
    rows = [
        {"prompt": text, "chosen": "a", "rejected": "b"},
        {"prompt": "Add these.\n1 and 2", "chosen": "a", "rejected": "b"},
    ]
    columns = read_preferences([{"instruction": "Add these.", "input": "1 and 2", "chosen": "a", "rejected": "b"}])
    assert {group.question for group in (*read_preferences(rows).groups, *columns.groups)} == {"Add these. 1 and 2"}


@pytest.mark.parametrize(
    "name",
    [
        *("hh", "one line", "pku", "vicuna", "openchat 3.5", "alpaca", "guanaco", "question"),
        *("llama 2, system", "chatml", "llama 3", "gemma", "zephyr"),
    ],
)
def test_a_prompt_that_stands_in_the_responses_ends_where_the_answer_begins(name):
    """Both responses go on alike for a while."""
    prompts = [TEMPLATES[name].replace("{}", question) for question in QUESTIONS[:2]]
    rows = [{"chosen": f"{one}It is air.", "rejected": f"{one}It is so."} for one in prompts]
    groups = read_preferences(rows).groups
    assert [group.prompt for group in groups] == prompts
    assert [group.question for group in groups] == QUESTIONS[:2]
    assert groups[0].completions == ("It is air.", "It is so.")


@pytest.mark.parametrize("seed", range(3))
def test_a_question_in_all_templates_is_on_one_side(seed):
    rows = [
        {"prompt": template.replace("{}", f"Is {k} prime?"), "completions": ["x", "y"], "labels": {"a": [1, 0]}}
        for template, k in itertools.product(TEMPLATES.values(), range(10))
    ]
    parts = read_preferences(rows).split((0.5, 0.2, 0.3), seed)
    questions = [{group.question for group in part.groups} for part in parts.values()]
    assert [len(one) for one in questions] == [5, 2, 3]
    assert len(set.union(*questions)) == 10

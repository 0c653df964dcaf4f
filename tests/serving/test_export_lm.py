"""An exported language model: plain transformers or PEFT has the logits of the run, without this package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from exported_models import PARITY, WEIGHTS, alone, difference, logits, tokenizer
from helpers import is_one_line, read
from tiny_models import tiny_base, tiny_model

from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.errors import InputError
from hyperdpo.serving.export import language_model as module
from hyperdpo.serving.export.language_model import METADATA, TRIAL, Difference, export_lm
from hyperdpo.serving.export.rows import add_rows
from hyperdpo.serving.export.tokens import virtual_tokens

TEMPLATE = "{% for turn in messages %}{{ turn['content'] }} {% endfor %}w9"

#: What a user's process does, who never heard of this package.
ALONE = """
import numpy as np, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
out, path, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path).eval()
inputs = tokenizer([text, text + " w4 w4"], return_tensors="pt", padding=True, padding_side="left")
with torch.no_grad():
    logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
    written = model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None)
    drawn = model.generate(**inputs, max_new_tokens=30, do_sample=True, top_k=0, temperature=5.0)
longest = inputs["input_ids"].shape[1]
np.savez(out, logits=logits, ids=tokenizer(text)["input_ids"], written=written[:, longest:], drawn=drawn[:, longest:])
"""


def written(model: ConditionedLM, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return model.generate(ids, mask, weights=WEIGHTS, **settings)[:, ids.shape[1] :].numpy()


@pytest.mark.parametrize(("kind", "tokens"), [("gpt2", "sequence"), ("llama", "bos")])
def test_transformers_alone_has_the_logits_and_texts_of_the_model(tmp_path, kind, tokens):
    model, words = tiny_model(kind), tokenizer(tokens)
    text = "w5 w17 w33"
    ids = words(text)["input_ids"]
    done = export_lm(model, words, WEIGHTS, tmp_path / "out")
    assert done.metadata["virtual_token_ids"] == [50, 51, 52]
    found = alone(tmp_path, ALONE, tmp_path / "out", text)
    assert found["ids"].tolist() == [50, 51, 52, *ids]
    assert difference(found["logits"][3:, :50], logits(model, ids)) < PARITY
    rows = words([text, text + " w4 w4"], return_tensors="pt", padding=True, padding_side="left")
    assert np.array_equal(found["written"], written(model, rows["input_ids"], rows["attention_mask"]))
    assert found["drawn"].max() < 50


def test_a_chat_template_begins_with_the_virtual_tokens(tmp_path):
    words = tokenizer(chat_template=TEMPLATE)
    export_lm(tiny_model(), words, WEIGHTS, tmp_path / "out")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    turns = [{"role": "user", "content": "w7"}]
    assert list(loaded.apply_chat_template(turns, return_dict=False)) == [50, 51, 52, 7, 9]
    assert loaded.decode([50, 51, 52, 7], skip_special_tokens=True).strip() == "w7"


def test_rows_that_no_token_has_are_used_first(tmp_path):
    model, words = tiny_model(base=tiny_base(vocab_size=60, tie_word_embeddings=True)), tokenizer()
    export_lm(model, words, WEIGHTS, tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.get_input_embeddings().weight.shape[0] == 60
    assert loaded.generation_config.suppress_tokens == [50, 51, 52]


def test_a_merged_model_without_virtual_tokens_has_the_vocabulary_of_its_base(tmp_path):
    model = tiny_model(prompt_tokens=0)
    export_lm(model, None, WEIGHTS, tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.config.vocab_size == 50
    with torch.no_grad():
        found = loaded(torch.tensor([[5, 17, 33]])).logits[0].numpy()
    assert difference(found, logits(model, [5, 17, 33])) < PARITY


def refusal(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(InputError) as error:
        export_lm(*arguments, **settings)
    return str(error.value)


@pytest.mark.parametrize("format", ["merged", "peft"])
def test_virtual_tokens_without_a_tokenizer_are_refused(tmp_path, format):
    assert is_one_line(refusal(tiny_model(), None, WEIGHTS, tmp_path / "out", format), "tokenizer")
    assert not list(tmp_path.iterdir())


def test_only_an_earlier_export_is_replaced(tmp_path):
    model = tiny_model(prompt_tokens=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    assert is_one_line(refusal(model, None, WEIGHTS, tmp_path / "mine", overwrite=True), "mine", "new directory")
    export_lm(model, None, WEIGHTS, tmp_path / "out")
    assert is_one_line(refusal(model, None, WEIGHTS, tmp_path / "out"), "--overwrite")
    export_lm(model, None, [1, 0], tmp_path / "out", overwrite=True)
    assert read(tmp_path / "out" / METADATA)["weights"] == [1, 0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]


def test_a_model_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "compared", lambda *_: (Difference(0.5, 2.0), 20.0))
    message = refusal(tiny_model(), tokenizer(), WEIGHTS, tmp_path / "out")
    assert is_one_line(message, "logits differ", "0.5", "nothing was written", "--format peft")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_the_difference_is_recorded_as_it_is_and_as_a_part_of_the_largest_logit(tmp_path, factor):
    """Logits of a head that is scaled: small ones are compared with 1."""
    base = tiny_base(tie_word_embeddings=False)
    with torch.no_grad():
        base.lm_head.weight.mul_(factor)
    model = tiny_model(base=base, prompt_tokens=0)
    export_lm(model, None, WEIGHTS, tmp_path / "out")
    recorded = read(tmp_path / "out" / METADATA)["logit_difference"]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(len(base.get_input_embeddings().weight), TRIAL, generator=generator)
    with torch.no_grad():
        wanted, found = model(texts, weights=WEIGHTS).logits, loaded(texts).logits
    largest = float(wanted.abs().max())
    assert (largest > 1) == (factor > 1)
    assert recorded["absolute"] == pytest.approx(float((found - wanted).abs().max()), rel=1e-6)
    assert recorded["absolute"] > 0
    assert recorded["relative"] == pytest.approx(recorded["absolute"] / max(1, largest), rel=1e-6)


def test_a_margin_that_the_file_does_not_show_is_not_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "add_rows", lambda *given: (add_rows(*given), 40.0)[1])
    written = export_lm(tiny_model(), tokenizer(), WEIGHTS, tmp_path / "out")  # of random weights: there is no margin
    assert written.metadata["virtual_token_margin"] is None
    for shown, kept in ((20.0, 20.0), (50.0, 40.0), (9.0, None)):
        monkeypatch.setattr(module, "compared", lambda *_, shown=shown: (Difference(0.0, 0.0), shown))
        written = export_lm(tiny_model(), tokenizer(), WEIGHTS, tmp_path / "out", overwrite=True)
        assert written.metadata["virtual_token_margin"] == kept


def test_an_unknown_post_processor_is_refused():
    from tokenizers import processors

    words = tokenizer()
    words.backend_tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    with pytest.raises(InputError, match="BertProcessing"):
        virtual_tokens(words, 2)

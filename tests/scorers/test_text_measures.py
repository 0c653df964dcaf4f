"""Measures of a text: their values on small texts, and what holds for all of them."""

from __future__ import annotations

import math

import pytest
from helpers import is_one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperdpo.errors import InputError
from hyperdpo.scorers.text_measures import MEASURES, NEGATIVE_WORDS, POSITIVE_WORDS, measure, measure_texts


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("positive_words", "Tim was HAPPY. He loved the sad dog.", 100 * 2 / 8),
        ("negative_words", "Tim was HAPPY. He loved the sad dog.", 100 * 1 / 8),
        ("short_words", "Tim didn't see the elephant", 100 * 3 / 5),
        ("sentence_length", "One two three. Four!\nFive six", (3 + 1 + 2) / 3),
        ("sentence_length", "One two... three?!", (2 + 1) / 2),
        ("word_length", "a bcd, it's", (1 + 3 + 3) / 3),
        ("distinct_words", "The dog saw the DOG", 100 * 3 / 5),
        ("word_count", "He said 3 times: no-one's here", 6),
    ],
)
def test_values(name, text, expected):
    assert measure(name)(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "inside", "letters"),
    [
        ('He said, "abc." Then', 3, 3 + 6 + 4),
        ('"Abc," said he. "Def"', 6, 6 + 6),
        ("“Abc” def «ghi»", 6, 9),
        ('he said "abc', 3, 6 + 3),  # cut off inside
        ('abc." Then "de', 3 + 2, 3 + 4 + 2),  # begins inside a quotation of its prompt
        (' abc!" she', 3, 6),
        ('"abc\n"def" ghi', 6, 9),  # a mark that never closes
        ("It's 'abc'", 0, 6),
        ("abc", 0, 3),
    ],
)
def test_dialogue_counts_the_letters_inside_quotation_marks(text, inside, letters):
    assert measure("dialogue")(text) == pytest.approx(100 * inside / letters)


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=80) | st.text(alphabet="ab.\" “”\n'!", max_size=40))
def test_every_measure_is_finite_non_negative_and_the_same_twice(text):
    for name, function in MEASURES.items():
        value = function(text)
        assert math.isfinite(value), name
        assert value >= 0, name
        assert function(text) == value, name
        if name in ("positive_words", "negative_words", "short_words", "dialogue", "distinct_words"):
            assert value <= 100, name


@pytest.mark.parametrize("text", ["", "  \n", "12 .. !?", '""'])
def test_a_text_without_words_measures_zero(text):
    assert [function(text) for function in MEASURES.values()] == [0.0] * len(MEASURES)


def test_no_word_is_both_positive_and_negative():
    assert not POSITIVE_WORDS & NEGATIVE_WORDS
    assert all(word == word.lower() for word in POSITIVE_WORDS | NEGATIVE_WORDS)


def test_several_texts_at_once():
    assert measure_texts(["happy", "sad dog"], ["positive_words", "word_count"]) == {
        "positive_words": (100.0, 0.0),
        "word_count": (1.0, 2.0),
    }


def test_unknown_names_are_refused():
    with pytest.raises(InputError) as error:
        measure("rudeness")
    assert is_one_line(error.value, "'rudeness'", "positive_words", "dialogue")
    for names in ([], ["dialogue", "dialogue"]):
        with pytest.raises(InputError) as error:
            measure_texts(["a"], names)
        assert is_one_line(error.value, "different names")

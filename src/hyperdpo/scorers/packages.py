"""Scores that kept packages compute: the feeling of a text, and how plain its words are. They know English only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from hyperdpo.extras import require


def sentiment(text: str) -> float:
    """VADER's compound score, from -1 (all negative) to 1 (all positive); 0 for a text without feeling.

    Negation and emphasis count: "not happy" is negative.
    """
    return float(_vader()(text)["compound"])


#: The least and the largest grade of plain_words.
GRADES = (-5.0, 25.0)


def plain_words(text: str) -> float:
    """Minus the Coleman-Liau index: more for shorter words, and for more sentences per word.

    The index estimates the school grade that a text asks for. As textstat computes it, it is
    0.058 L - 0.296 S - 15.8, with L letters and S sentences per 100 words, and 0 for a text without letters. So a score
    of -8 is a text for the eighth grade, and one letter less in every word raises it by 5.8.

    Grades below -5 and above 25 count as -5 and 25. They mean nothing, and a line of code or a long word without
    spaces may have a grade of hundreds: a few of them would decide what a standard deviation of the score is.
    """
    low, high = GRADES
    return -min(max(float(_coleman_liau()(text)), low), high)


@cache
def _vader() -> Callable[[str], dict[str, float]]:
    require("scorers", "vaderSentiment")
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer: Any = SentimentIntensityAnalyzer()
    found: Callable[[str], dict[str, float]] = analyzer.polarity_scores
    return found


@cache
def _coleman_liau() -> Callable[[str], float]:
    require("scorers", "textstat")
    from textstat import textstat

    found: Callable[[str], float] = textstat.coleman_liau_index
    return found

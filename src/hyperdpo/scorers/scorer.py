"""What a scorer is: a function of prompts and texts, with the names of the objectives that it scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyperdpo.errors import InputError, counted

#: N prompts and N texts -> (N, m) scores, one column per objective; (N,) for one objective. More is better, except for
#: objectives that are minimised.
Scorer = Callable[[Sequence[str], Sequence[str]], np.ndarray]

#: Texts of several kinds, on which a change of a scorer shows.
_PROBES = (
    "A happy cat sat on the mat.",
    "Unfortunately, the aforementioned administrative considerations were extraordinarily disappointing.",
    "for i in range(10):\n    print(i ** 2)",
    "No",
    "I hate rain! But spring is lovely, and the bees return. Is 42 the answer? Perhaps.",
)


@dataclass(frozen=True)
class NamedScorer:
    """A scorer and what it scores.

    Attributes:
        name: as ``--scorer`` has it.
        objectives: the names of its m columns; empty: whatever the columns are named that are asked for.
        score: the function.
    """

    name: str
    objectives: tuple[str, ...]
    score: Scorer


def scores_of(
    scorer: NamedScorer, objectives: Sequence[str], prompts: Sequence[str], texts: Sequence[str]
) -> np.ndarray:
    """(N, m) checked scores, one column per objective.

    Raises:
        InputError: the scorer gives something else.
    """
    try:
        scores = np.asarray(scorer.score(prompts, texts), dtype=np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"scorer {scorer.name}: {error}; expected an array of numbers") from None
    if scores.ndim == 1 and len(objectives) == 1:
        scores = scores[:, None]
    shape = (len(texts), len(objectives))
    if scores.shape != shape or not np.isfinite(scores).all():
        finite = "finite" if np.isfinite(scores).all() else "not finite"
        raise InputError(
            f"scorer {scorer.name}: found an array of shape {scores.shape}, {finite}; expected {shape}, one column "
            f"per objective ({', '.join(objectives)}), and finite numbers"
        )
    return scores


def probed(scorer: NamedScorer, objectives: Sequence[str], prompt: str) -> list[list[float]]:
    """(5, m) scores of a few fixed texts as answers to a prompt: kept scores are found by these and the scorer's name.

    If a scorer of the same name has been changed, these scores usually differ. They are rounded to four digits, and to
    0 far below the column's largest, because another machine's arithmetic may differ in the last ones.

    Args:
        prompt: one of those that are scored: a scorer may look up what it knows of a prompt.

    Raises:
        InputError: as :func:`scores_of`.
    """
    scores = scores_of(scorer, objectives, [prompt] * len(_PROBES), _PROBES)
    scores[np.abs(scores) < 1e-9 * np.abs(scores).max(0)] = 0
    return [[float(f"{score:.4g}") for score in row] for row in scores.tolist()]


def combined(scorers: Sequence[NamedScorer]) -> NamedScorer:
    """One scorer with the columns of several.

    Raises:
        InputError: none, or two that name the same objective.
    """
    names = [name for one in scorers for name in one.objectives]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not scorers or twice:
        what = f"{twice[0]!r} twice" if twice else "none"
        raise InputError(f"--scorer: found {what}; expected one or more scorers with different objectives")

    def score(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        return np.concatenate([scores_of(one, one.objectives, prompts, texts) for one in scorers], 1)

    return NamedScorer(", ".join(one.name for one in scorers), tuple(names), score)


def selected(scorer: NamedScorer, objectives: Sequence[str]) -> NamedScorer:
    """The columns of some objectives, in this order.

    Raises:
        InputError: one that the scorer does not score.
    """
    missing = [name for name in objectives if name not in scorer.objectives]
    if missing:
        raise InputError(
            f"--scorer: {scorer.name} scores {', '.join(scorer.objectives)}, not {missing[0]!r}; expected a scorer for "
            f"each of {counted(len(objectives), 'objective')} ({', '.join(objectives)}), such as {missing[0]}=NAME"
        )
    columns = [scorer.objectives.index(name) for name in objectives]
    if columns == list(range(len(scorer.objectives))):
        return scorer

    def score(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        return scores_of(scorer, scorer.objectives, prompts, texts)[:, columns]

    return NamedScorer(scorer.name, tuple(objectives), score)

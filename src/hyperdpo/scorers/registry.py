"""Scorers by name, as ``--scorer`` takes them.

``NAME`` is one of :data:`SCORERS`, ``package.module:function``, or ``classifiers:PATH,PATH``. ``A,B=NAME`` names the
objectives that it scores.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hyperdpo.errors import InputError, did_you_mean
from hyperdpo.extras import EXTRAS, is_installed, require
from hyperdpo.scorers.packages import plain_words, sentiment
from hyperdpo.scorers.relevance import relevance
from hyperdpo.scorers.scorer import NamedScorer, Scorer, combined, scores_of, selected
from hyperdpo.scorers.text_measures import MEASURES, word_count

__all__ = ["SCORERS", "NamedScorer", "Scorer", "combined", "scorer_named", "scorer_of", "scorers_named", "scores_of"]

_OBJECTIVES = re.compile(r"[^=:/]+(?==)")


def _of_text(measure: Callable[[str], float]) -> Scorer:
    return lambda prompts, texts: np.array([measure(text) for text in texts], dtype=np.float64)


def length(text: str) -> float:
    """Number of words: longer is better."""
    return word_count(text)


def brevity(text: str) -> float:
    """Minus the number of words: shorter is better."""
    return -word_count(text)


#: Every scorer of one objective by its name, which is also the objective's.
SCORERS: Mapping[str, Scorer] = MappingProxyType(
    {
        **{function.__name__: _of_text(function) for function in (sentiment, plain_words)},
        "relevance": relevance,
        **{function.__name__: _of_text(function) for function in (length, brevity)},
        **{name: _of_text(measure) for name, measure in MEASURES.items()},
    }
)
#: The modules that some of them need.
NEEDED = dict(zip(("sentiment", "plain_words", "relevance"), EXTRAS["scorers"], strict=True))


def scorer_named(spec: str, wanted: int | None = None) -> NamedScorer:
    """The scorer of one ``--scorer``.

    A function takes N prompts and N texts and gives (N, m) numbers, or (N,). Its objective is named after it unless
    names are given, ``helpful,harmless=my.module:function``.

    Args:
        wanted: how many objectives a function or classifiers without names score; None: as many as they do.

    Raises:
        InputError: nothing of that name, or its package is not installed.
    """
    named = _OBJECTIVES.match(spec)
    names = tuple(name.strip() for name in named[0].split(",")) if named else ()
    name = spec[named.end() + 1 :] if named else spec
    if not all(names):
        raise InputError(f"--scorer: found {spec!r}; expected names of objectives before =")
    module, colon, function = name.partition(":")
    if name in SCORERS:
        own: tuple[str, ...] = (name,)
        score = SCORERS[name]
        if name in NEEDED:
            require("scorers", NEEDED[name])
    elif not colon or not function:
        expected = f"one of {', '.join(SCORERS)}, package.module:function or classifiers:PATH,PATH"
        raise InputError(f"--scorer: found {spec!r}; expected {expected}{did_you_mean(name, SCORERS)}")
    elif module == "classifiers":
        from hyperdpo.scorers.classifiers import classifiers

        paths = function.split(",")
        wanted = len(names) or wanted or len(paths)
        if len(paths) != wanted:
            raise InputError(f"--scorer: found {len(paths)} classifiers; expected {wanted}, one per objective")
        own, score = tuple(Path(path).name for path in paths), classifiers(paths)
    else:
        try:
            found: Any = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(f"--scorer {name}: {error}; expected a function that can be imported") from None
        own, score = (function,), found
    if names and name in SCORERS and len(names) != 1:
        raise InputError(f"--scorer: found {len(names)} names for {name}; expected one, it scores one objective")
    return NamedScorer(spec, names or own, score)


def scorers_named(specs: Sequence[str]) -> NamedScorer:
    """The scorers of all ``--scorer`` together.

    Raises:
        InputError: as :func:`scorer_named`; none, or two for one objective.
    """
    return combined([scorer_named(spec) for spec in specs])


def scorer_of(specs: Sequence[str], columns: Sequence[str]) -> NamedScorer | None:
    """The scorer of a comparison, with a column for each objective.

    Args:
        specs: of ``--scorer``. None given: scorers of the objectives' own names, if every objective has one whose
            package is installed. A single function or list of classifiers without names scores all objectives.
        columns: the columns of the objectives.

    Returns:
        None if there is none.

    Raises:
        InputError: as :func:`scorers_named`, or an objective that none of them scores.
    """
    if not specs:
        if not all(name in SCORERS and is_installed(NEEDED.get(name, "hyperdpo")) for name in columns):
            return None
        named = selected(scorers_named(list(dict.fromkeys(columns))), columns)
        return replace(named, name="text measures") if all(name in MEASURES for name in columns) else named
    if len(specs) == 1 and ":" in specs[0] and not _OBJECTIVES.match(specs[0]):
        one = scorer_named(specs[0], len(columns))
        return NamedScorer(one.name, tuple(columns), one.score)
    return selected(scorers_named(specs), columns)

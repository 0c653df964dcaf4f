"""Does a running server turn the dial that it claims? Its greedy answers are compared with the recorded ones.

Shapes: N prompts, P weightings, m objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from typing import Any

import numpy as np

from hyperdpo.alignment.answer_sets import asked
from hyperdpo.alignment.bases import tokenizer_of
from hyperdpo.alignment.sampling import BROKEN, new_texts
from hyperdpo.core.correlation import rank_correlation
from hyperdpo.errors import InputError, counted
from hyperdpo.scorers.registry import SCORERS, scorer_of
from hyperdpo.scorers.scorer import NamedScorer, scores_of
from hyperdpo.serving.export.recorded import Agreement, agreement
from hyperdpo.serving.verify.claims import Claims, RecordedAnswer
from hyperdpo.serving.verify.engines import Answer, Engine, Finding

#: Answers to different weights are the same if their log-probabilities differ by no more.
_NOISE = 1e-5
#: A recorded correlation of a score with its weight that is clear: the server's has to have its sign.
CLEAR = 0.5
#: Objectives whose every order is tried; of more, the order is only compared by names of files.
_MOST_ORDERED = 5


@dataclass(frozen=True)
class Row:
    """How the answers at one weighting compare with the recorded ones.

    Attributes:
        equal: prompts whose answer is the recorded one.
        ties: prompts whose answer differs from a place on where the two best tokens were as good as equal.
        different: all other prompts.
        difference: the largest difference of a log-probability; None if the server gives none.
        like: the recorded weightings that the answers agree with.
    """

    weights: tuple[float, ...]
    equal: int
    ties: int
    different: int
    difference: float | None
    like: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Movement:
    """How an objective's mean score goes with its weight.

    Attributes:
        recorded: Spearman's correlation of the recorded means with the weight; None at one fixed point.
        live: the same of the server's answers.
        means: of the server's answers at each weighting.
        right: whether ``live`` has the sign that the objective's direction asks for; None: at one fixed point.
    """

    objective: str
    recorded: float | None
    live: float | None
    means: tuple[float, ...]
    right: bool | None


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        turns: the server turns the dial, or serves the fixed point.
        problems: why not.
        notes: what else is to be known.
    """

    turns: bool
    rows: tuple[Row, ...]
    scores: tuple[Movement, ...]
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """How answers are compared.

    Attributes:
        tie: log-probabilities of the two best tokens that differ by less may be taken either way.
        tolerance: of log-probabilities.
    """

    claims: Claims
    tie: float
    tolerance: float
    _prefixes: dict[int, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, claims: Claims, tie: float | None = None, tolerance: float | None = None) -> Comparison:
        """By the recorded numbers where none are given."""
        recorded = claims.recorded
        return cls(claims, recorded.tie if tie is None else tie, recorded.tolerance if tolerance is None else tolerance)

    def agreement(self, recorded: RecordedAnswer, answer: Answer) -> Agreement:
        """By tokens where the server gives them, else by texts."""
        if answer.ids is not None:
            return agreement(recorded.model_dump(), answer.ids, answer.logprobs, self.tie)
        place = None if _plain(answer.text) == _plain(recorded.text) else self._place(recorded, answer.text)
        tied = place is not None and 0 <= place < len(recorded.ids)
        tied = tied and abs(recorded.logprobs[place or 0] - recorded.second[place or 0]) < self.tie
        pairs = zip(recorded.logprobs[:place], (answer.logprobs or ())[:place], strict=False)
        return Agreement(place, tied, max((abs(a - b) for a, b in pairs), default=0.0))

    def agrees(self, recorded: RecordedAnswer, answer: Answer) -> bool:
        """Whether an answer may be the recorded one."""
        found = self.agreement(recorded, answer)
        return (found.place is None or found.tied) and found.difference <= self.tolerance

    def _place(self, recorded: RecordedAnswer, text: str) -> int:
        """The first token that a text does not begin with; 0 without a tokenizer."""
        if not self.claims.tokenizer.is_dir():
            return 0
        known = self._prefixes.get(id(recorded))
        if known is None:
            ids, start = list(recorded.ids), list(self.claims.recorded.prompts[recorded.prompt].ids)
            rows = [start + ids[:i] for i in range(1, len(ids) + 1)]
            known = new_texts(tokenizer_of(str(self.claims.tokenizer)), [start] * len(rows), rows)
            self._prefixes[id(recorded)] = known
        begun = [_plain(text).startswith(_plain(one)) for one in known]
        return next((place for place, ok in enumerate(begun) if not ok), len(known))


def _plain(text: str) -> str:
    """Without what servers cut differently: spaces around it, and half a character at its end."""
    return text.rstrip(BROKEN).strip()


def scorer_for(claims: Claims, specs: Sequence[str]) -> tuple[NamedScorer | None, Finding | None]:
    """The scorer of the recorded means, and a note if there is none.

    Only scorers of this package are taken by the name in ``dial.json``: a file does not decide which function is run.

    Args:
        specs: of ``--scorer``.

    Raises:
        InputError: of ``--scorer`` only.
    """
    if claims.scorer is None:
        return None, None
    if specs:
        return scorer_of(specs, claims.columns), None
    names = [] if claims.scorer == "text measures" else claims.scorer.split(", ")
    reason = "not one of this package's"
    if all(name.rpartition("=")[2] in SCORERS for name in names):
        try:
            found = scorer_of(names, claims.columns)
        except InputError as error:
            reason = str(error)
        else:
            if found is not None:
                return found, None
    told = f"scores are not compared: they were made with {claims.scorer} ({reason}); name it with --scorer"
    return None, Finding("no-scorer", told)


def verify(
    engine: Engine,
    claims: Claims,
    point: int | None = None,
    *,
    comparison: Comparison | None = None,
    scorer: NamedScorer | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Verification:
    """Ask a server, and compare.

    Args:
        point: the place of the one weighting that the server is said to be set to; None: weights go with each request.
        comparison: how answers are compared; None: as recorded.
        scorer: with a column for each objective; None: scores are not compared.
        progress: is told how many answers there are.

    Raises:
        InputError: the server does not answer, refuses, or gives something else.
    """
    how = comparison or Comparison.of(claims)
    told = engine.findings(claims)
    if any(one.name == "objectives" for one in told):
        return Verification(False, (), (), tuple(told), ())
    if point is not None:  # which adapters make the point, if any do, is the server's own affair
        told = [one for one in told if not one.name.startswith("adapter")]
    columns = list(range(len(claims.weights))) if point is None else [point]
    answers: list[list[Answer]] = []
    for number, prompt in enumerate(claims.recorded.prompts):
        # The weightings of one prompt follow each other: the server has to change w with every request.
        answers.append([])
        for at, p in enumerate(columns):
            weights = claims.weights[p].tolist() if point is None else None
            answers[-1].append(engine.answer(claims, prompt.ids, weights))
            progress(number * len(columns) + at + 1)
    agrees = _agreements(how, answers)
    rows = tuple(_row(how, [row[at] for row in answers], p, agrees[:, at]) for at, p in enumerate(columns))
    moved = () if scorer is None else _movements(claims, scorer, answers, columns)
    problems = _problems(claims, answers, rows, np.asarray(agrees.all(0)), point)
    notes = [one for one in told if not problems or one.name == "adapters-applied"]
    causes = [one for one in told if one not in notes]
    for one in moved:
        if one.right is False:
            text = (
                f"the mean score of {one.objective} does not go with its weight (Spearman {one.live:.2f}; recorded: "
                f"{one.recorded:.2f})"
            )
            clear = claims.signs[claims.names.index(one.objective)] * (one.recorded or 0) >= CLEAR
            (problems if clear else notes).append(Finding("scores", text))
    if any(row.different for row in rows) and answers[0][0].ids is None and not claims.tokenizer.is_dir():
        notes.append(Finding("no-tokenizer", f"{claims.tokenizer} is missing: ties cannot be told from differences"))
    return Verification(not problems, rows, moved, (*causes, *problems), tuple(notes))


def _agreements(how: Comparison, answers: list[list[Answer]]) -> np.ndarray:
    """(N, columns, P) whether an answer may be the recorded one of each weighting."""
    recorded = how.claims.answers
    return np.array(
        [[[how.agrees(one, a) for one in recorded[n]] for a in of_prompt] for n, of_prompt in enumerate(answers)]
    )


def _row(how: Comparison, answers: list[Answer], p: int, agrees: np.ndarray) -> Row:
    """
    Args:
        answers: to the N prompts.
        agrees: (N, P).
    """
    found = [how.agreement(how.claims.answers[n][p], answer) for n, answer in enumerate(answers)]
    ties = sum(one.place is not None for one, ok in zip(found, agrees[:, p], strict=True) if ok)
    good = int(agrees[:, p].sum())
    given = any(answer.logprobs is not None for answer in answers)
    like = tuple(tuple(w) for w in how.claims.weights[agrees.all(0)].tolist())
    difference = max(one.difference for one in found) if given else None
    return Row(tuple(how.claims.weights[p].tolist()), good - ties, ties, len(found) - good, difference, like)


def _problems(
    claims: Claims, answers: list[list[Answer]], rows: Sequence[Row], agrees: np.ndarray, point: int | None
) -> list[Finding]:
    """Why the answers do not show what is claimed; empty if they do.

    Args:
        agrees: (columns, P): the answers at a weighting may be those recorded at each weighting.
    """
    different, asked_for = sum(row.different for row in rows), len(rows) * len(answers)
    own = agrees[range(len(rows)), range(len(rows)) if point is None else [point]]
    if not own.all():
        largest = max((row.difference for row in rows if row.difference is not None), default=None)
        apart = "" if largest is None else f"; log-probabilities differ by up to {largest:.2g}"
        found = [Finding("answers-differ", f"{different} of {counted(asked_for, 'answer')} are not as recorded{apart}")]
        return [*_causes(claims, answers, agrees, point), *found]
    if (agrees.all() if point is not None else agrees.all(0).any()) and len(claims.weights) > 1:
        return [
            Finding(
                "not-shown",
                "the recorded answers are too alike: a server at one fixed point would give them, too; export "
                "again with other prompts (--prompt), or verify an engine that gives log-probabilities",
            )
        ]
    return []


def _causes(claims: Claims, answers: list[list[Answer]], agrees: np.ndarray, point: int | None) -> list[Finding]:
    """What explains answers that are not as recorded."""
    if point is not None:
        others = [shown_weights(w) for w in claims.weights[agrees[0]].tolist()]
        if others:
            told = f"the answers are those recorded at {' and at '.join(others)}"
            return [Finding("another-point", f"{told}, not at {shown_weights(claims.weights[point])}")]
        return []
    if all(_same(row[0], other) for row in answers for other in row[1:]):
        return [
            Finding(
                "weights-ignored",
                "answers are the same whatever weights are sent: the server ignores them, or something before it drops "
                "them; use --weights W,W if it is to serve one fixed point",
            )
        ]
    m = len(claims.names)
    for order in permutations(range(m)) if m <= _MOST_ORDERED else ():
        places = [claims.place_of(w[list(order)]) for w in claims.weights]
        if list(order) != list(range(m)) and all(p is not None and agrees[at, p] for at, p in enumerate(places)):
            # Asked for w, the server is at w[order]: the adapter of objective j is loaded at the place order[j].
            loaded = [claims.adapters[order.index(place)].path for place in range(m)]
            told = f"the answers are those of adapters in the order {', '.join(loaded)}"
            return [Finding("adapter-order", f"{told}; load them in the order of dial.json")]
    return []


def _same(one: Answer, other: Answer) -> bool:
    if (one.ids, one.text) != (other.ids, other.text):
        return False
    pairs = zip(one.logprobs or (), other.logprobs or (), strict=False)
    return all(abs(a - b) <= _NOISE for a, b in pairs)


def _movements(
    claims: Claims, scorer: NamedScorer, answers: list[list[Answer]], columns: Sequence[int]
) -> tuple[Movement, ...]:
    """How each objective's mean score goes with its weight."""
    questions = [asked(prompt) for prompt in claims.prompts]
    live = np.array(
        [
            scores_of(scorer, claims.columns, questions, [row[at].text for row in answers]).mean(0)
            for at in range(len(columns))
        ]
    )
    found = []
    for j, name in enumerate(claims.names):
        means = tuple(live[:, j].tolist())
        if len(columns) == 1 or claims.means is None:
            found.append(Movement(name, None, None, means, None))
            continue
        w = claims.weights[:, j]
        now = rank_correlation(w, live[:, j])
        right = bool(claims.signs[j] * now > 0)
        found.append(Movement(name, rank_correlation(w, claims.means[:, j]), now, means, right))
    return tuple(found)


def shown_weights(weights: Sequence[float] | np.ndarray) -> str:
    return ",".join(f"{x:.4g}" for x in weights)


def report(url: str, engine: Engine, claims: Claims, point: int | None, found: Verification) -> Mapping[str, Any]:
    """What ``--json`` writes."""
    fixed = None if point is None else claims.weights[point].tolist()
    told = {"url": url, "engine": engine.name, "dial": str(claims.path), "objectives": list(claims.names)}
    return {**told, "gguf_origin": claims.base.gguf_origin, "fixed_weights": fixed, **found.to_dict()}

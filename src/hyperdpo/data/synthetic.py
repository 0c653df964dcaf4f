"""Generated ranking data whose attainable front is known: MSLR-format text and an oracle file.

Every document has a hidden vector h. Relevance and the five labels follow from utilities of h that pull in different
directions (:data:`CORRELATIONS`), bent so that no linear model gets all of it. The 131 features are noisy, mostly
monotone views of h on MSLR's many scales. Some describe only the query, and some are pure noise. The oracle holds the
labels' expectations given h: what a perfect model would know.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyperdpo.core.preferences import stream
from hyperdpo.data.groups import RELEVANCE
from hyperdpo.errors import InputError
from hyperdpo.files import check_space, written

if TYPE_CHECKING:
    import pyarrow as pa

NUM_FEATURES = 131
SMALLEST_GROUP, LARGEST_GROUP = 5, 200
HIDDEN = 8
#: Label columns as in MSLR: 132, 133 dense quality scores; 134 to 136 sparse, zero-inflated counts.
DENSE, SPARSE = ("132", "133"), ("134", "135", "136")
ORACLE_COLUMNS = (RELEVANCE, *DENSE, *SPARSE)
#: Columns of :class:`Clicks`: the place at which an item was shown, and the chance that it was looked at there.
POSITION, PROPENSITY = "137", "138"
#: One in so many queries is shown twice, so that documents are seen at several positions.
QUERIES_PER_REPEAT = 5
#: Correlations of the utilities of relevance, 132, 133, 134, 135, 136: the dense pair and the sparse ones conflict, and
#: each objective has a little in common with relevance.
CORRELATIONS = np.array(
    [
        [1.0, 0.3, 0.1, 0.3, 0.2, 0.1],
        [0.3, 1.0, -0.6, 0.1, 0.0, 0.0],
        [0.1, -0.6, 1.0, 0.0, 0.1, 0.1],
        [0.3, 0.1, 0.0, 1.0, -0.7, -0.1],
        [0.2, 0.0, 0.1, -0.7, 1.0, -0.1],
        [0.1, 0.0, 0.1, -0.1, -0.1, 1.0],
    ]
)
#: Grades of relevance are cut at these quantiles of a standard normal utility plus noise.
GRADE_CUTS = (0.2, 0.9, 1.5, 2.1)
RELEVANCE_NOISE, QUALITY_NOISE = 0.5, 12.0
#: Chance that a query is clicked at all.
CLICKED = 0.85
#: Queries that are held in memory while writing.
QUERIES_AT_ONCE = 64


@dataclass(frozen=True)
class SyntheticQuery:
    """Documents of one query."""

    features: np.ndarray
    """(n, 131) float64."""
    labels: np.ndarray
    """(n, 6): relevance, 132 to 136, as observed."""
    expected: np.ndarray
    """(n, 6): their expectations given what a perfect model knows."""
    utility: np.ndarray
    """(n,): the hidden utility that relevance is cut from."""


@dataclass(frozen=True)
class Clicks:
    """A logging ranker's lists: clicks (the sparse labels) happen only where the items are looked at.

    The ranker orders a list by the utility of relevance and some noise, and shows it several times. An item at position
    k is looked at with the chance 1 / k^power. Its clicks are Poisson numbers whose mean is that chance, times what it
    would be if the item were always looked at. This the oracle holds, so clicks divided by the chance are unbiased.
    """

    power: float = 1.0
    """η."""
    noise: float = 0.5
    """Standard deviation of the ranker's noise, where the utility's is about 1."""
    showings: int = 10
    """How often a list is shown."""

    def logged(self, query: SyntheticQuery, rng: np.random.Generator) -> SyntheticQuery:
        """A session of a query, with position and propensity as labels 137 and 138."""
        n, sparse = len(query.labels), [ORACLE_COLUMNS.index(name) for name in SPARSE]
        order = np.argsort(-(query.utility + self.noise * rng.normal(size=n)))
        position = np.empty(n)
        position[order] = np.arange(1, n + 1)
        propensity = position**-self.power
        labels, expected = query.labels.copy(), query.expected.copy()
        expected[:, sparse] *= self.showings
        labels[:, sparse] = rng.poisson(expected[:, sparse] * propensity[:, None])
        labels = np.column_stack([labels, position, np.round(propensity, 6)])
        return replace(query, labels=labels, expected=expected)


class SyntheticWorld:
    """How hidden vectors become utilities and features: drawn once from the seed, shared by all queries."""

    def __init__(self, seed: int):
        rng = stream(seed, 0)
        factor = np.linalg.cholesky(CORRELATIONS)
        rotation = np.linalg.qr(rng.normal(size=(HIDDEN, HIDDEN)))[0]
        self.directions = factor @ rotation[: len(factor)]  # (6, h): unit vectors with those correlations
        self.bends = rotation[len(factor) :]  # hidden directions that no utility is linear in
        self.mixing = rng.normal(size=(HIDDEN, NUM_FEATURES)) / math.sqrt(HIDDEN)
        self.kinds = rng.choice(5, size=NUM_FEATURES, p=(0.3, 0.2, 0.25, 0.15, 0.1))
        self.offsets = rng.normal(size=NUM_FEATURES)

    def query(self, rng: np.random.Generator) -> SyntheticQuery:
        """One query with 5 to 200 documents."""
        n = int(np.clip(round(rng.lognormal(3.9, 0.7)), SMALLEST_GROUP, LARGEST_GROUP))
        hidden = rng.normal(size=(n, HIDDEN)) + 0.5 * rng.normal(size=HIDDEN)
        utilities = hidden @ self.directions.T
        bend = hidden @ self.bends.T
        utilities = utilities + 0.35 * (np.tanh(utilities[:, ::-1]) * bend[:, :1] + 0.5 * (bend[:, 1:] ** 2 - 1))
        labels, expected = _labels(utilities, rng)
        return SyntheticQuery(self._features(hidden, rng), labels, expected, utilities[:, 0])

    def _features(self, hidden: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """131 columns: counts, lengths, ratios, scores that may be negative, and noise."""
        n = len(hidden)
        views = hidden @ self.mixing + 0.3 * rng.normal(size=(n, NUM_FEATURES)) + self.offsets
        query_level = rng.normal(size=NUM_FEATURES)
        views = np.where(self.kinds == 4, query_level + 0.0 * views, views)
        by_kind = (
            np.round(np.exp(np.clip(0.8 * views + 1, -5, 12))),  # counts
            np.round(np.exp(np.clip(1.2 * views + 4, -5, 16)), 3),  # lengths, sums
            np.round(1 / (1 + np.exp(-views)), 6),  # ratios
            np.round(10 * views, 4),  # scores
            np.round(np.exp(np.clip(views, -5, 12)), 3),  # of the query
        )
        return np.choose(self.kinds, by_kind)


def _labels(utilities: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Observed labels and their expectations, (n, 6) each."""
    n = len(utilities)
    labels, expected = np.empty((n, 6)), np.empty((n, 6))
    main = utilities[:, 0]
    cuts = np.array(GRADE_CUTS)
    labels[:, 0] = ((main + RELEVANCE_NOISE * rng.normal(size=n))[:, None] > cuts).sum(1)
    expected[:, 0] = _normal_cdf((main[:, None] - cuts) / RELEVANCE_NOISE).sum(1)
    for j in (1, 2):
        expected[:, j] = 127.5 + 90 * np.tanh(utilities[:, j] / 1.5)
        labels[:, j] = np.clip(np.round(expected[:, j] + QUALITY_NOISE * rng.normal(size=n)), 1, 254)
    for j in (3, 4, 5):
        chance = 1 / (1 + np.exp(-(1.8 * utilities[:, j] - 2.8)))
        rate = np.exp(np.clip(1.0 + 0.8 * utilities[:, j], -5, 5))
        clicked = (rng.random() < CLICKED) & (rng.random(n) < chance)
        labels[:, j] = np.where(clicked, 1 + rng.poisson(rate), 0)
        expected[:, j] = CLICKED * chance * (1 + rate)
    return labels, expected


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def generate(
    out: Path,
    num_queries: int,
    seed: int = 0,
    oracle: Path | None = None,
    progress: Callable[[int], None] | None = None,
    clicks: Clicks | None = None,
) -> int:
    """Write ``num_queries`` queries of MSLR-format text, and the oracle as CSV with the same rows.

    Args:
        clicks: how clicks are biased; some queries are then shown twice, in groups of their own. None: not at all.
        progress: called with the number of queries written so far.

    Returns:
        The number of documents.

    Raises:
        InputError: fewer than one query, or a place that cannot be written to.
    """
    if num_queries < 1:
        raise InputError(f"--queries is {num_queries}; expected at least 1")
    world = SyntheticWorld(seed)
    finals = [out] if oracle is None else [out, oracle]
    if oracle is not None and out.resolve() == oracle.resolve():
        raise InputError(f"--oracle is {oracle}, the data's own name; expected another file")
    for path in finals:
        if path.is_dir():
            raise InputError(f"{path}: cannot be written (is a directory)")
    documents = groups = 0
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(written(path)) for path in reversed(finals)][::-1]
        files = [stack.enter_context(path.open("wb")) for path in temporary]
        if oracle is not None:
            files[1].write(",".join(("qid", *ORACLE_COLUMNS)).encode() + b"\n")
        for start in range(0, num_queries, QUERIES_AT_ONCE):
            numbers = np.arange(start, min(start + QUERIES_AT_ONCE, num_queries))
            queries = [world.query(stream(seed, 1, int(number))) for number in numbers]
            if clicks is not None:
                queries = [
                    clicks.logged(query, stream(seed, 2, int(number), session))
                    for number, query in zip(numbers, queries, strict=True)
                    for session in range(1 + (number % QUERIES_PER_REPEAT == 0))
                ]
            qids = np.repeat(groups + np.arange(len(queries)) + 1, [len(q.labels) for q in queries])
            groups += len(queries)
            labels = np.concatenate([q.labels for q in queries])
            values = np.concatenate([np.concatenate([q.features for q in queries]), labels[:, 1:]], axis=1)
            lines = _letor_lines(labels[:, 0], qids, values)
            if start == 0:
                check_space(out, len(lines) * num_queries // len(numbers), f"{num_queries:,} queries")
            files[0].write(lines)
            if oracle is not None:
                files[1].write(_csv_lines(qids, np.concatenate([q.expected for q in queries])))
            documents += len(qids)
            if progress is not None:
                progress(int(numbers[-1]) + 1)
    return documents


def _letor_lines(relevance: np.ndarray, qids: np.ndarray, values: np.ndarray) -> bytes:
    """``label qid:ID 1:v ...`` lines, put together column by column in Arrow (a Python loop is ten times slower)."""
    numbers = enumerate(values.T, 1)
    return _lines([_texts(relevance), _texts(qids, "qid:"), *(_texts(v, f"{k}:") for k, v in numbers)], " ")


def _csv_lines(qids: np.ndarray, values: np.ndarray) -> bytes:
    return _lines([_texts(qids), *(_texts(np.round(v, 6)) for v in values.T)], ",")


def _texts(values: np.ndarray, prefix: str = "") -> pa.StringArray:
    """Shortest decimal texts; a column of whole numbers without points, as in MSLR."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = bool((values == np.round(values)).all())
    texts = pa.array(values.astype(np.int64) if whole else np.ascontiguousarray(values)).cast(pa.string())
    return pc.binary_join_element_wise(prefix, texts, "") if prefix else texts


def _lines(columns: list[pa.StringArray], separator: str) -> bytes:
    import pyarrow.compute as pc

    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*columns, separator), "\n", "")
    return lines.buffers()[2].to_pybytes()

"""What an experiment is, and the entries that several of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hyperdpo.comparison.entries import MIXTURE, Entry
from hyperdpo.ranking.paper import PAPER
from hyperdpo.validation import merged

#: Positions of the paper's pairs among its objectives I to V, which are those of the preset ``mslr``.
SPARSE_PAIR, DENSE_PAIR = (0, 1), (3, 4)

Chart = Literal["front", "hypervolumes", "relative", "scales", "temperatures", "regret", "sweep"]
#: Weightings on every front, as in the paper; of a tiny instance.
POINTS, SMALL_POINTS = 11, 3
#: One figure per quantity: ``hypervolume``, ``main_mean``, ``main_sd``, ``train_seconds``, ``parameters``.
Figures = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Described:
    """What every table or figure has.

    Attributes:
        name: what ``hyperdpo experiment`` calls it.
        title: headline of the report.
        question: what it is to show.
        paper_says: what the paper reports about it.
        paper: the paper's own figures, by the entry's label.
        vary: what the cases differ in: nothing, the number of ``objectives``, or the number of training ``groups``.
    """

    name: str
    title: str
    question: str
    paper_says: str
    paper: Mapping[str, Figures] = field(default_factory=dict)
    vary: Literal["", "objectives", "groups"] = ""


@dataclass(frozen=True, kw_only=True)
class Experiment(Described):
    """One table or figure of rankers.

    Attributes:
        entries: the rows.
        charts: pictures in the report, in order.
        positions: of the objectives in the preset; None: all. Of another configuration, a pair is its first two.
        values: the cases.
        small_values: the cases of a tiny instance.
        extra_objectives: added to the preset's.
        queries: of generated data.
        generated: settings for generated data, such as other parts of the split.
    """

    entries: tuple[Entry, ...]
    charts: tuple[Chart, ...]
    positions: tuple[int, ...] | None = None
    values: tuple[int, ...] = ()
    small_values: tuple[int, ...] = ()
    extra_objectives: tuple[Mapping[str, Any], ...] = ()
    queries: int = 1000
    generated: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an experiment found, for its JSON and its page.

    Attributes:
        title, paper_says: those of the experiment, with what is special about this run.
        data: which data these are, and whether the paper's are others.
        settings: the configuration.
        cases: one for each comparison.
        trainings: their directory.
    """

    title: str
    paper_says: str
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    cases: Sequence[Mapping[str, Any]]
    trainings: Path


def paper_settings(**settings: Any) -> dict[str, Any]:
    """The paper's settings with some (nested) ones replaced."""
    return merged(PAPER, settings)


#: The paper's HyperDPO: w concatenated to the input of a network of its own, one w per batch.
HYPERDPO_PAPER = Entry("HyperDPO (paper)", "hyperdpo", PAPER)
#: This project's best: heads that learn the targets, weights and temperatures in closed form.
HYPERDPO_MIXTURE = Entry("HyperDPO mixture", "hyperdpo", MIXTURE)
DPO_LS = Entry("DPO-LS", "dpo-ls")
DPO_SOUP = Entry("DPO Soup", "dpo-soup")
MO_DPO = Entry("MO-DPO", "mo-dpo")
#: What ranking teams have today, trained to the main score of the first HyperDPO; left out where lightgbm is missing.
LIGHTGBM_LS = Entry("LightGBM-LS", "lightgbm-ls")
#: Every method of the paper, and the mixture.
ALL_METHODS = (HYPERDPO_PAPER, HYPERDPO_MIXTURE, DPO_LS, DPO_SOUP, MO_DPO)

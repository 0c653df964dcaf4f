"""What an experiment on language models is, and the entries that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from hyperdpo.comparison.entries import ALIGN_VARIANTS, DEFAULT_ADAPTER, Entry, parse_entry
from hyperdpo.experiments.experiment import POINTS, Described, Figures

Chart = Literal["front", "hypervolumes", "texts", "deviations", "spans"]


class Column(NamedTuple):
    """The paper's figures of one model, by the entry's label."""

    model: str
    figures: Mapping[str, Figures]


@dataclass(frozen=True, kw_only=True)
class LanguageExperiment(Described):
    """One table or figure of language models.

    Attributes:
        entries: the rows.
        charts: pictures in the report, in order.
        texts: sample and score texts where a scorer is known.
        columns: the paper's figures, by the architecture of its model (``model_type`` of transformers): a model is
            compared with those of its own.
        source: preferences over ``stories`` that the model writes unasked, or over its ``answers`` to the prompts of a
            file; or ``labels`` of a file. Answers and labels are for a model of the user's own.
        file: read where ``--data`` names none, below the place of data that are not part of the project.
        objectives: names; empty: all.
        points: weightings of each front.
        seeds: repeats where none are asked for.
        settings: of all entries; those of the user come after them.
        least_span: of the first entry, in nats: with a smaller one there is nothing to control.
    """

    entries: tuple[Entry, ...]
    charts: tuple[Chart, ...]
    texts: bool = False
    columns: Mapping[str, Column] = field(default_factory=dict)
    source: Literal["stories", "answers", "labels"] = "stories"
    file: str = ""
    objectives: tuple[str, ...] = ()
    points: int = POINTS
    seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    least_span: float = 0.0


def labelled(label: str, method: str, **training: Any) -> Entry:
    """An entry of that label: a method with its variant, and more settings of the training."""
    entry = parse_entry(method, ALIGN_VARIANTS)
    overrides = dict(entry.overrides)
    if training:
        overrides["training"] = {**overrides.get("training", {}), **training}
    return Entry(label, entry.method, overrides)


#: Hyper Prompt Tuning as the paper prints it.
PAPER_PROMPT = labelled("HyperDPO (paper)", "hyperdpo:paper")
#: The adapter of the paper's methods, its baselines included.
PAPER_ADAPTER: Mapping[str, Any] = {"conditioning": {"prompt_tokens": 8, "lora_rank": 4}}
#: This project's default, whatever the adapter of the others: one plain LoRA per objective, summed with w.
DEFAULT = Entry("HyperDPO", "hyperdpo", DEFAULT_ADAPTER)
PROMPT_ONLY = labelled("HyperDPO, prompt only", "hyperdpo:prompt")
GATE_NETWORK = labelled("HyperDPO, network of gates", "hyperdpo:lora")
BOTH = labelled("HyperDPO, prompt and network of gates", "hyperdpo:both")
DPO_LS = labelled("DPO-LS", "dpo-ls")
DPO_SOUP = labelled("DPO Soup", "dpo-soup")
SAME_RANK_SOUP = labelled("DPO Soup, rank of HyperDPO", "dpo-soup:portable")
MO_DPO = labelled("MO-DPO", "mo-dpo")
LOGIT_MIXING = labelled("logit mixing", "logit-mixing")

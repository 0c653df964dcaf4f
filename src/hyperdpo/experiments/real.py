"""Beyond the paper: a real, instruction-tuned language model, and its own answers to real prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hyperdpo.experiments.language import (
    BOTH,
    DEFAULT,
    DPO_LS,
    DPO_SOUP,
    GATE_NETWORK,
    LOGIT_MIXING,
    MO_DPO,
    PAPER_PROMPT,
    PROMPT_ONLY,
    SAME_RANK_SOUP,
    LanguageExperiment,
)

#: Every scorer of the experiments on a model's own answers: they are sampled and scored once for all of these.
SCORERS = ("sentiment", "plain_words", "relevance", "brevity")
#: Chosen with a SmolLM2-135M-Instruct (dequantised) on an inner split, 200 and 50, of the 250 training prompts; see
#: docs/results.md. Labels are standardised, so that a target temperature of 0.5 makes a standard deviation worth e².
#: One conditioned adapter has as many steps as two models for one w, at two thirds of their rate.
SETTINGS: dict[str, Any] = {
    "objectives": [{"name": name, "target": "softmax", "target_temperature": 0.5} for name in SCORERS],
    "training": {"learning_rate": 1.5e-3, "num_train_epochs": 2},
    "compare": {"sampling_factor": 2.0, "learning_rate_factor": 2 / 3},
    "texts": {"prompts": 60, "samples": 4, "tokens": 48},
}
#: A smaller span of models for one w than this, in nats, leaves nothing to control.
LEAST_SPAN = 0.05
_SHARED: dict[str, Any] = {
    "paper_says": "Not in the paper, whose models have 124 million parameters (GPT-2) and 7 billion (Alpaca).",
    "charts": ("front", "texts", "hypervolumes", "spans", "deviations"),
    "least_span": LEAST_SPAN,
}
_OWN: dict[str, Any] = {
    **_SHARED,
    "settings": SETTINGS,
    "source": "answers",
    "file": "preferences/instructions.jsonl",
    "texts": True,
}
_QUESTION = "Does one conditioned model keep up with one model for each weighting"

EXPERIMENTS = (
    LanguageExperiment(
        name="real",
        title="A real language model: sentiment and plain words of its own answers",
        question=f"{_QUESTION}, in cross-entropy error, in control, and in the texts that it writes?",
        entries=(
            DPO_LS,
            DPO_SOUP,
            DEFAULT,
            replace(SAME_RANK_SOUP, repeats=1),
            GATE_NETWORK,
            replace(BOTH, repeats=1),
            replace(PAPER_PROMPT, repeats=1),
            replace(PROMPT_ONLY, repeats=1),
            replace(MO_DPO, repeats=1),
            LOGIT_MIXING,
        ),
        objectives=("sentiment", "plain_words"),
        points=3,
        seeds=2,
        **_OWN,
    ),
    LanguageExperiment(
        name="real-pair2",
        title="A real language model: relevance and brevity of its own answers",
        question=f"{_QUESTION}, where one objective wants short answers?",
        entries=(DPO_SOUP, DEFAULT),
        objectives=("relevance", "brevity"),
        points=3,
        seeds=1,
        **_OWN,
    ),
    LanguageExperiment(
        name="real-triple",
        title="A real language model: sentiment, plain words and brevity of its own answers",
        question=f"{_QUESTION}, with three objectives?",
        entries=(DPO_SOUP, DEFAULT),
        objectives=("sentiment", "plain_words", "brevity"),
        points=6,
        seeds=1,
        **_OWN,
    ),
    LanguageExperiment(
        name="real-labels",
        title="A real language model: human labels of informativeness and naturalness",
        question="How well does a real model learn what people prefer, at each weighting?",
        entries=(DPO_LS, DPO_SOUP, DEFAULT),
        objectives=("informativeness", "naturalness"),
        points=3,
        seeds=1,
        source="labels",
        file="preferences/sfhot.jsonl",
        settings={name: SETTINGS[name] for name in ("training", "compare")},
        **_SHARED,
    ),
)

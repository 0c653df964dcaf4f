"""Beyond the paper: a model's own stories, scored by measures of the text, so that what w changes can be read."""

from __future__ import annotations

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
    LanguageExperiment,
)

EXPERIMENTS = (
    LanguageExperiment(
        name="stories",
        title="Stories: what w changes in the errors, and in the texts",
        question="How much of the control that separately trained models have does one conditioned model have, in "
        "cross-entropy error and in sampled texts?",
        paper_says="Not in the paper, which shows cross-entropy errors only.",
        entries=(
            DEFAULT,
            GATE_NETWORK,
            BOTH,
            PROMPT_ONLY,
            PAPER_PROMPT,
            DPO_LS,
            DPO_SOUP,
            MO_DPO,
            LOGIT_MIXING,
        ),
        charts=("front", "texts", "hypervolumes", "spans", "deviations"),
        texts=True,
    ),
)

"""Figures 4 and 5: fronts on PKU-SafeRLHF, without and with MO-DPO."""

from __future__ import annotations

from hyperdpo.experiments.language import (
    DEFAULT,
    DPO_LS,
    DPO_SOUP,
    MO_DPO,
    PAPER_ADAPTER,
    PAPER_PROMPT,
    LanguageExperiment,
)

EXPERIMENTS = (
    LanguageExperiment(
        name="figure4",
        title="Figure 4: fronts of HyperDPO, DPO-LS and DPO Soup",
        question="How far do the fronts reach in cross-entropy error, and how far do the models leave the base?",
        paper_says="HyperDPO's front is smooth and below those of DPO-LS and DPO Soup; Soup's may collapse for some "
        "weightings.",
        entries=(PAPER_PROMPT, DEFAULT, DPO_LS, DPO_SOUP),
        charts=("front", "deviations", "spans"),
        settings=PAPER_ADAPTER,
    ),
    LanguageExperiment(
        name="figure5",
        title="Figure 5: the same with MO-DPO",
        question="Where does MO-DPO's front lie?",
        paper_says="MO-DPO's is far behind; the paper could not find competitive settings together with prompt tuning.",
        entries=(PAPER_PROMPT, DEFAULT, DPO_LS, DPO_SOUP, MO_DPO),
        charts=("front", "hypervolumes", "deviations", "spans"),
        settings=PAPER_ADAPTER,
    ),
)

"""Table 2: hypervolume and training time on PKU-SafeRLHF."""

from __future__ import annotations

from hyperdpo.experiments.language import (
    DEFAULT,
    DPO_LS,
    DPO_SOUP,
    PAPER_ADAPTER,
    PAPER_PROMPT,
    Column,
    LanguageExperiment,
)

#: The columns of the table, by the architecture (transformers' ``model_type``) of their model.
COLUMNS = {
    "gpt2": Column(
        "GPT-2",
        {
            "DPO-LS": {"hypervolume": 0.17668, "train_seconds": 15_148.53},
            "DPO Soup": {"hypervolume": 0.18401, "train_seconds": 2755.51},
            "HyperDPO (paper)": {"hypervolume": 0.19424, "train_seconds": 1396.81},
        },
    ),
    "llama": Column(
        "Alpaca-7B",
        {
            "DPO-LS": {"hypervolume": 0.16873, "train_seconds": 94_156.12},
            "DPO Soup": {"hypervolume": 0.14270, "train_seconds": 17_138.74},
            "HyperDPO (paper)": {"hypervolume": 0.16885, "train_seconds": 8520.17},
        },
    ),
}

EXPERIMENTS = (
    LanguageExperiment(
        name="table2",
        title="Table 2: helpful and harmless, hypervolume and training time",
        question="Does one training of Hyper Prompt Tuning reach the hypervolume of eleven trainings?",
        paper_says="PKU-SafeRLHF, GPT-2 and Alpaca-7B: HyperDPO has the largest hypervolume, in a tenth of DPO-LS's "
        "time and half of DPO Soup's. Reference (1.1, 1.1), 11 points, β = 0.1.",
        entries=(PAPER_PROMPT, DEFAULT, DPO_LS, DPO_SOUP),
        charts=("front", "hypervolumes", "deviations", "spans"),
        settings=PAPER_ADAPTER,
        columns=COLUMNS,
    ),
)

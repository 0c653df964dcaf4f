"""Table 2: hypervolume and training time on PKU-SafeRLHF."""

from __future__ import annotations

from hyperdpo.experiments.language import DEFAULT, DPO_LS, DPO_SOUP, PAPER_PROMPT, LanguageExperiment

#: GPT-2's column of the table.
PAPER = {
    "DPO-LS": {"hypervolume": 0.17668, "train_seconds": 15_148.88},
    "DPO Soup": {"hypervolume": 0.18401, "train_seconds": 2755.51},
    "HyperDPO (paper)": {"hypervolume": 0.19424, "train_seconds": 1396.81},
}

EXPERIMENTS = (
    LanguageExperiment(
        name="table2",
        title="Table 2: helpful and harmless, hypervolume and training time",
        question="Does one training of Hyper Prompt Tuning reach the hypervolume of eleven trainings?",
        paper_says="PKU-SafeRLHF, GPT-2: the figures in the table. Alpaca-7B: HyperDPO 0.16885 in 8,520 s, DPO-LS "
        "0.16873 in 94,156 s, DPO Soup 0.14270 in 17,139 s. Reference (1.1, 1.1), 11 points, β = 0.1.",
        entries=(PAPER_PROMPT, DEFAULT, DPO_LS, DPO_SOUP),
        charts=("front", "hypervolumes", "deviations", "spans"),
        paper=PAPER,
    ),
)

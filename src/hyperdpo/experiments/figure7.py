"""Figure 7: the concentration of the Dirichlet distribution that w is drawn from."""

from __future__ import annotations

from hyperdpo.experiments.language import DPO_LS, PAPER_ADAPTER, LanguageExperiment, labelled

ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)

EXPERIMENTS = (
    LanguageExperiment(
        name="figure7",
        title="Figure 7: concentration α of w ~ Dirichlet(α, α)",
        question="Does a smaller α, which draws more w near the vertices, give a wider front?",
        paper_says="A smaller α gives a more comprehensive front, and not necessarily a smaller hypervolume.",
        # The paper's setting draws no vertices, so α alone decides how near them w is. Control is measured by DPO-LS.
        entries=(*(labelled(f"α = {alpha:g}", "hyperdpo:paper", alpha=alpha) for alpha in ALPHAS), DPO_LS),
        charts=("front", "hypervolumes", "spans"),
        settings=PAPER_ADAPTER,
    ),
)

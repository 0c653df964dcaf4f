"""Beyond the paper: what more objectives cost."""

from __future__ import annotations

from hyperdpo.experiments.experiment import ALL_METHODS, LIGHTGBM_LS, Experiment

EXPERIMENTS = (
    Experiment(
        name="objectives",
        title="An honest look: 2, 3, 5 and 8 objectives",
        question="With as many weightings asked for, how do cost and quality grow with the number of objectives? "
        "Hypervolumes of different numbers of objectives cannot be compared: ratios can.",
        paper_says="Traditional methods grow exponentially with the number of objectives, HyperDPO linearly.",
        entries=(*ALL_METHODS, LIGHTGBM_LS),
        charts=("sweep",),
        vary="objectives",
        values=(2, 3, 5, 8),
        small_values=(2, 8),
        # Five label columns are there: three of them once more, with the opposite wish.
        extra_objectives=(
            {"name": "low_quality", "column": "132", "direction": "minimize", "target": "softmax"},
            {"name": "low_quality2", "column": "133", "direction": "minimize", "target": "softmax"},
            {"name": "few_clicks", "column": "134", "direction": "minimize", "target": "softmax"},
        ),
    ),
)

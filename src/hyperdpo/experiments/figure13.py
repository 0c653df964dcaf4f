"""Figure 13: the distribution D(β) that the temperature hypernetwork is trained on."""

from __future__ import annotations

from hyperdpo.experiments.experiment import DENSE_PAIR, Experiment
from hyperdpo.experiments.figure11 import MIXTURE, temperature_entry

#: Narrower than what is asked, the same, and wider. The paper's boxes are in the picture only.
BOXES = ((0.9, 1.1), (0.67, 1.5), (0.5, 2.0), (0.33, 3.0))

EXPERIMENTS = (
    Experiment(
        name="figure13",
        title="Figure 13: the box D(β) of the temperature hypernetwork",
        question="Must training cover more temperatures than will be asked for? All are asked at the same vectors.",
        paper_says="D(β) should cover a larger range than the temperatures of interest.",
        entries=(*(temperature_entry(f"D(β) = Unif([{a:g}, {b:g}]²)", low=a, high=b) for a, b in BOXES), MIXTURE),
        charts=("temperatures", "hypervolumes"),
        positions=DENSE_PAIR,
    ),
)

"""Figure 11: the temperature hypernetwork, asked at several temperature vectors."""

from __future__ import annotations

from typing import Any

from hyperdpo.comparison.entries import Entry
from hyperdpo.experiments.experiment import DENSE_PAIR, HYPERDPO_MIXTURE, Experiment, paper_settings

#: Besides the configured (1, 1). Those that share β_j must meet at w = e_j. The paper's are in the picture only.
TEMPERATURES = ((0.67, 0.67), (0.67, 1.5), (1.5, 0.67), (1.5, 1.5))
LOW, HIGH = 0.67, 1.5
DEPTH = 5
#: The mixture answers at any temperatures, in closed form.
MIXTURE = Entry(
    HYPERDPO_MIXTURE.label,
    "hyperdpo",
    HYPERDPO_MIXTURE.overrides,
    temperatures=TEMPERATURES,
    scales=(),
    dense=False,
)


def temperature_entry(label: str, depth: int = DEPTH, low: float = LOW, high: float = HIGH) -> Entry:
    """A temperature hypernetwork of the paper's augmentation design."""
    settings: dict[str, Any] = paper_settings(
        parametrization="temperature",
        scorer={"layers": depth},
        temperatures={"low": low, "high": high, "parametrization": "augmentation"},
    )
    return Entry(label, "hyperdpo", settings, temperatures=TEMPERATURES, scales=(), dense=False)


EXPERIMENTS = (
    Experiment(
        name="figure11",
        title="Figure 11: temperature hypernetwork",
        question="Does one network answer for every temperature vector β as well as for every w? "
        "Fronts whose vectors share β of an objective must meet where all weight lies on it.",
        paper_says="Depth 5, D(β) = Unif([0.67, 1.5]²): fronts behave as expected, with small gaps where they should "
        "meet.",
        entries=(temperature_entry("temperature hypernetwork"), MIXTURE),
        charts=("temperatures",),
        positions=DENSE_PAIR,
    ),
)

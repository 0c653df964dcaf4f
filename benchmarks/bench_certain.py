"""How often `choose --certain` picks a point whose metric is truly below what was required, by simulation.

    python benchmarks/bench_certain.py [--trials 300]

Groups are drawn from a population in which the mean of every point is known. main falls from its best to its worst as
the weight of the goal rises. A group's main lies between 0 and 1, is skewed near 1 (most lists are perfect there, and a
few lose 0.2 on average), and is noisy in a way of its own at distant points. At 95% confidence, 5% of the picks may be
below. The last column counts those of them that as many other groups (--holdout) say to hold.
"""

from __future__ import annotations

import argparse
import functools

import numpy as np

from hyperdpo.choosing.choice import Choice, Sample, choose_point
from hyperdpo.choosing.requirements import Requirement
from hyperdpo.choosing.search import Effort, Space

#: What is required of main, its true mean at the first and at the last weighting, and the most that a group loses.
CASES = {
    "in the middle of its range": (0.6, 0.75, 0.5, 1.0),
    "near its ceiling": (0.97, 0.995, 0.90, 0.4),
}
GROUPS = (20, 40, 120, 500)
CONFIDENCE, RESAMPLES = 0.95, 500
#: Weightings, 1/40 apart.
WEIGHTINGS = 41


def true_main(case: str, weight: np.ndarray) -> np.ndarray:
    """The mean of main over the population at a weight of the goal."""
    _, best, worst, _ = CASES[case]
    return best + (worst - best) * weight


def sample(case: str, groups: int, rng: np.random.Generator) -> Sample:
    """Groups of the population, measured at any weight.

    A group's main is 1 less a loss, uniform up to the most where it has one, which is so in a share of the groups; at
    weights apart in others.
    """
    first, second, size = rng.random((3, groups))
    most = CASES[case][3]

    def measure(points: np.ndarray) -> np.ndarray:
        weight = points[:, 1, None]
        loss = 1 - true_main(case, weight)
        # Uniform again: the fractional part of a uniform number plus anything independent of it.
        place = np.where(np.mod(second + 4 * weight, 1) < 0.5, first, np.mod(first + second, 1))
        main = 1 - (place < 2 * loss / most) * size * most
        return np.stack([np.broadcast_to(weight, main.shape), main], axis=1)

    counts = np.ones((2, groups))
    return Sample(("goal", "main"), (True, True), counts, measure, 0 * counts, "simulated groups")


def choose(case: str, groups: int, seed: int) -> Choice:
    """The point chosen on some groups, judged on as many others."""
    rng = np.random.default_rng([seed, groups])
    return choose_point(
        sample(case, groups, rng),
        Space((1.0, 1.0), (1.0,)),
        ("other", "goal"),
        [Requirement("main", ">=", CASES[case][0])],
        "goal",
        confidence=CONFIDENCE,
        certain=True,
        holdout=sample(case, groups, rng),
        resamples=RESAMPLES,
        effort=Effort(points=WEIGHTINGS, rounds=0, price_rounds=0),
        seed=seed,
    )


def below(case: str, found: Choice) -> bool:
    """Whether the chosen point is truly below what was required."""
    return bool(true_main(case, np.array(found.weights["goal"])) < CASES[case][0] - 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    trials = parser.parse_args().trials
    print("| main required | groups | picked | truly below | below, and said to hold on held-out groups |")
    print("|---|---:|---:|---:|---:|")
    for case in CASES:
        for groups in GROUPS:
            found = [c for c in map(functools.partial(choose, case, groups), range(trials)) if c.met]
            wrong = [c for c in found if below(case, c)]
            believed = [c for c in wrong if c.requirements[0].holds]
            shares = (f"{len(some) / max(len(found), 1):.1%}" for some in (wrong, believed))
            print(f"| {CASES[case][0]:g}, {case} | {groups} | {len(found)} of {trials} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()

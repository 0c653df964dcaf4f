"""What a training step of a ranker is conditioned on: sampled or fixed weights, and sampled temperatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyperdpo.core.preferences import stream
from hyperdpo.core.sampling import WeightSampler, sample_temperatures
from hyperdpo.ranking.config import TrainingConfig

#: Random streams of a run, told apart by their first key.
WEIGHTS, TEMPERATURES = 2, 4


@dataclass(frozen=True)
class Draw:
    """What a training step is conditioned on."""

    weights: np.ndarray
    """(m,) for the batch, (G, m) for its groups, or (K, G, m) for K weightings of each."""
    temperatures: np.ndarray | None = None
    """Temperatures of the same shape; None: those of the job."""


#: The draw of a batch of G groups in (epoch, step).
Sampler = Callable[[int, int, int], Draw]


def dirichlet_weights(config: TrainingConfig, num_objectives: int, seed: int) -> Sampler:
    """Draws of w as configured; that of a step depends on seed, epoch and step alone."""
    alphas = config.alphas(num_objectives)
    sampler = WeightSampler(alphas, config.weights_per, config.vertex_share, config.stratified, config.draws)
    return lambda epoch, step, groups: Draw(sampler.draw(groups, stream(seed, WEIGHTS, epoch, step)))


def with_temperatures(sampler: Sampler, low: Sequence[float], high: Sequence[float], seed: int) -> Sampler:
    """A sampler whose draws have temperatures of their own: see :func:`~hyperdpo.core.sampling.sample_temperatures`."""

    def sample(epoch: int, step: int, groups: int) -> Draw:
        weights = sampler(epoch, step, groups).weights
        rows = weights.size // len(low)
        temperatures = sample_temperatures(low, high, rows, stream(seed, TEMPERATURES, epoch, step))
        return Draw(weights, temperatures.reshape(weights.shape))

    return sample


def fixed_weights(weights: np.ndarray) -> Sampler:
    """The same (m,) weights in every batch."""
    return lambda epoch, step, groups: Draw(weights)

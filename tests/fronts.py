"""Fronts of a known form, to choose points on."""

from __future__ import annotations

import numpy as np

from hyperdpo.choosing.choice import Sample, choose_point
from hyperdpo.choosing.requirements import parse_requirement
from hyperdpo.choosing.search import Space

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)


def sphere(m, noise=None, *, names=None, sign=1.0, groups=6):
    """A front on the unit sphere: metric j is w_j / |w|, and less by (log c)^2 / 20 at scales other than 1.

    Args:
        noise: (K, G), of the groups; None: all groups alike.
        sign: -1 for errors: less is better.
    """
    noise = np.zeros((m, groups)) if noise is None else noise

    def measure(points):
        w, c = points[:, :m], points[:, m]
        values = w / np.linalg.norm(w, axis=1, keepdims=True) - (np.log(c) ** 2 / 20)[:, None]
        return sign * values[:, :, None] + noise

    names = tuple("abcd"[:m]) if names is None else names
    return Sample(names, (sign > 0,) * m, np.ones_like(noise), measure, noise * 0, "toy groups")


def parabola(noise=None, *, groups=30):
    """With x the second weight: b is x and a is 1 - x^2 at every scale, so the best a with b >= t is 1 - t^2.

    Args:
        noise: (G,) of b; None: all groups alike.
    """
    noise = np.zeros(groups) if noise is None else noise

    def measure(points):
        x = points[:, 1, None]
        return np.stack([1 - x**2 + 0 * noise, x + noise], axis=1)

    counts = np.ones((2, len(noise)))
    return Sample(("a", "b"), (True, True), counts, measure, 0 * counts, "a parabola")


def single(values, counts=None):
    """One point only, and (K, G) values of the metrics a, b, ... there."""
    counts = np.ones_like(values) if counts is None else counts
    names = tuple("abcd"[: len(values)])
    return Sample(
        names, (True,) * len(names), counts, lambda points: np.tile(values * counts, (len(points), 1, 1)), values
    )


#: Of :func:`single`: nothing to choose.
POINT = Space((1.0,), (1.0,))


def chosen(sample, *required, goal="a", **settings):
    space = settings.pop("space", None) or Space((1.0,) * len(sample.names), SCALES)
    return choose_point(
        sample, space, sample.names[: space.m], [parse_requirement(r) for r in required], goal, **settings
    )

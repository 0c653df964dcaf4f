"""MO-DPO: one training per objective, then one per w with the experts' rewards as a margin."""

from __future__ import annotations

import numpy as np

from hyperdpo.methods.jobs import Job, Margin, Recipe, expert


def mo_dpo(weights: np.ndarray) -> list[Recipe]:
    """The m experts, then a model for each of the (P, m) weights, trained with Eq. (18).

    The objective i of Eq. (18) is free; with i = argmax w its factor 1/w_i is at most m. At a vertex there is no margin
    and the model is the expert itself, so it is not trained again.
    """
    m = weights.shape[1]
    experts = tuple(expert(j, m) for j in range(m))

    def job(w: np.ndarray) -> Job:
        i = int(w.argmax())
        return experts[i] if w[i] == 1 else Margin(tuple(map(float, w)), i, experts)

    return [Recipe((job(w),)) for w in weights]

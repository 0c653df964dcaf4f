"""What each method trains: how many models, which, and how they answer."""

from __future__ import annotations

import numpy as np
import pytest

from hyperdpo.comparison.methods import METHODS, Conditioned, Fixed, Margin, Trees, jobs_of, needs_lightgbm
from hyperdpo.core.preferences import weight_grid


@pytest.mark.parametrize("m", [2, 3, 5])
@pytest.mark.parametrize("points", [6, 11])
def test_the_number_of_trainings(m, points):
    """One; one per w; m; m and one per w that is not a vertex, where the model is the expert itself. (The paper's
    MO-DPO has 16 models at 11 weightings of five objectives, the experts twice; ours has 11.)"""
    grid = weight_grid(m, points)
    inside = int((grid.max(1) < 1).sum())
    trainings = {name: len(jobs_of(method(grid))) for name, method in METHODS.items()}
    assert trainings == {
        "hyperdpo": 1,
        "dpo-ls": points,
        "dpo-soup": m,
        "mo-dpo": m + inside,
        "logit-mixing": m,
        "lightgbm-ls": points,
    }


def test_one_model_answers_for_every_w_of_hyperdpo_and_its_own_of_linear_scalarisation():
    grid = weight_grid(2, 3)
    assert jobs_of(METHODS["hyperdpo"](grid)) == [Conditioned()]
    assert [answer.jobs for answer in METHODS["dpo-ls"](grid)] == [
        (Fixed((1.0, 0.0)),),
        (Fixed((0.5, 0.5)),),
        (Fixed((0.0, 1.0)),),
    ]


def test_a_soup_is_the_experts_in_the_shares_of_w():
    (answer,) = METHODS["dpo-soup"](np.array([[0.2, 0.3, 0.5]]))
    assert answer.jobs == (Fixed((1.0, 0.0, 0.0)), Fixed((0.0, 1.0, 0.0)), Fixed((0.0, 0.0, 1.0)))
    assert answer.shares == (0.2, 0.3, 0.5)


def test_mixed_logits_are_those_of_the_experts_in_the_shares_of_w():
    (answer,) = METHODS["logit-mixing"](np.array([[0.2, 0.3, 0.5]]))
    (soup,) = METHODS["dpo-soup"](np.array([[0.2, 0.3, 0.5]]))
    assert (answer.jobs, answer.shares) == (soup.jobs, soup.shares)
    assert (answer.average, soup.average) == ("predictions", "parameters")


def test_mo_dpo_trains_on_the_objective_of_the_largest_weight_after_the_experts():
    grid = np.array([[0.2, 0.8], [1.0, 0.0]])
    inside, vertex = METHODS["mo-dpo"](grid)
    (job,) = inside.jobs
    assert isinstance(job, Margin)
    assert job.objective == 1
    assert vertex.jobs == (Fixed((1.0, 0.0)),)
    assert jobs_of([inside, vertex]) == [Fixed((1.0, 0.0)), Fixed((0.0, 1.0)), job]


def test_lightgbm_trains_trees_for_each_w_and_no_other_method_does():
    grid = weight_grid(2, 3)
    assert jobs_of(METHODS["lightgbm-ls"](grid)) == [Trees((1.0, 0.0)), Trees((0.5, 0.5)), Trees((0.0, 1.0))]
    assert [name for name in METHODS if needs_lightgbm(name)] == ["lightgbm-ls"]

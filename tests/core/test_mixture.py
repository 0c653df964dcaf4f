"""The closed form: nothing that is optimised directly does better."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.optimize import minimize

from hyperdpo.core import mixture
from hyperdpo.core.losses import listnet_dpo_loss, mean_losses, scalarise
from hyperdpo.core.mixture import mixture_scores
from hyperdpo.core.targets import l1_targets, softmax_targets
from hyperdpo.errors import InputError

GRID = torch.tensor([[1.0, 0.0], [0.8, 0.2], [0.5, 0.5], [0.0, 1.0]]).double()
#: Equal temperatures, somewhat different ones, and very different ones.
BETAS = [(0.3, 0.3), (1.0, 1.0), (4.0, 4.0), (0.7, 1.3), (2.0, 0.5), (0.02, 2.0)]
UNEQUAL = BETAS[3:]


def problem(G=3, n=6, seed=0):
    """Dense targets for one objective and l1 targets with zeros for another, on groups of 2 to n items."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(n) < torch.randint(2, n + 1, (G, 1), generator=generator)
    dense, dense_signal = softmax_targets(torch.randn(G, n, generator=generator).double(), mask)
    counts = torch.randint(0, 3, (G, n), generator=generator).double()
    counts[:, 0] = 1
    sparse, sparse_signal = l1_targets(counts, mask)
    base = torch.randn(G, n, generator=generator).double().masked_fill(~mask, 0)
    return torch.stack([dense, sparse], 1), torch.stack([dense_signal, sparse_signal], 1), mask, base


def closed_form(targets, mask, base, weights, betas, signal=None):
    return mixture_scores(targets.log(), mask, base, weights, betas, signal)


def many_objectives(m=4, n=9, seed=0, sharpness=2.0):
    """(log targets (1, m, n), mask, base) of one group without padding, and m different temperatures."""
    rng = np.random.default_rng(seed)
    log_targets = torch.tensor(sharpness * rng.normal(size=(1, m, n))).log_softmax(-1)
    mask, base = torch.ones(1, n, dtype=torch.bool), torch.tensor(rng.normal(size=(1, n)))
    return log_targets, mask, base, torch.tensor(10 ** rng.uniform(-1, 1, size=m))


def loss(scores, base, targets, mask, w, betas):
    """The scalarised loss of each group."""
    return scalarise(listnet_dpo_loss(scores, base, targets, mask, betas), w)


def gradient(distance, log_targets, w, betas):
    """The gradient (n,) of the scalarised loss of one group without padding, written out, over the floored targets."""
    slopes = w * betas
    asked = (slopes[:, None] * log_targets.exp()).sum(0) / slopes.sum()
    asked = asked.clamp_min(1e-9) / asked.clamp_min(1e-9).sum()
    return (slopes[:, None] * (betas[:, None] * distance).softmax(-1)).sum(0) - slopes.sum() * asked


# --- The minimum


@pytest.mark.parametrize("betas", [*BETAS[:5], (0.2, 2.0)])
@pytest.mark.parametrize("seed", range(2))
def test_scores_optimised_directly_reach_the_closed_forms_loss_and_not_less(betas, seed):
    targets, signal, mask, base = problem(seed=seed)
    closed = closed_form(targets, mask, base, GRID, betas, signal).flatten(0, 1)
    w = GRID.repeat_interleave(len(base), 0)
    base, mask, targets = (tensor.repeat(len(GRID), *[1] * (tensor.dim() - 1)) for tensor in (base, mask, targets))
    distance = torch.zeros_like(base, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [distance], lr=1, max_iter=2000, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def step():
        optimiser.zero_grad()
        value = loss(base + distance, base, targets, mask, w, betas).sum()
        value.backward()
        return value

    optimiser.step(step)
    best = loss(base + distance.detach(), base, targets, mask, w, betas)
    reached = loss(closed, base, targets, mask, w, betas)
    torch.testing.assert_close(reached, best, atol=1e-5, rtol=0)
    assert (reached <= best + 1e-6).all()  # the floor costs as much where a target is 0


@pytest.mark.parametrize("seed", range(12))
def test_different_temperatures_agree_with_a_trust_region_method_of_scipy(seed):
    m = 2 + seed % 4
    log_targets, mask, base, betas = many_objectives(m, n=3 + 2 * seed, seed=seed)
    w = torch.distributions.Dirichlet(torch.ones(m, dtype=torch.float64)).sample()
    slopes, asked = (w * betas).numpy(), log_targets[0].exp().numpy()

    def soft(x):
        e = np.exp(betas.numpy()[:, None] * (x - x.max()))
        return e / e.sum(-1, keepdims=True)

    def value(x):
        return -sum(w.numpy() * (asked * np.log(soft(x))).sum(-1)) + 0.5 * x.mean() ** 2

    def hessian(x):
        q, curvatures = soft(x), slopes * betas.numpy()
        return np.diag(curvatures @ q) - (q.T * curvatures) @ q + 1 / len(x) ** 2

    found = minimize(
        value,
        np.zeros(base.shape[1]),
        jac=lambda x: slopes @ (soft(x) - asked) + x.mean() / len(x),
        hess=hessian,
        method="trust-exact",
        options={"gtol": 1e-12, "maxiter": 2000},
    )
    distance = (mixture_scores(log_targets, mask, base, w[None], betas)[0, 0] - base[0]).numpy()
    np.testing.assert_allclose(distance - distance.mean(), found.x - found.x.mean(), atol=1e-6)


@pytest.mark.parametrize("betas", [(2.0, 2.0), *UNEQUAL])
def test_the_closed_form_leaves_no_gradient(betas):
    targets, signal, mask, base = problem()
    for p, w in enumerate(GRID[1:3], 1):
        scores = closed_form(targets, mask, base, GRID, betas, signal)[p].requires_grad_()
        loss(scores, base, targets, mask, w, betas).sum().backward()
        torch.testing.assert_close(scores.grad, torch.zeros_like(scores), atol=1e-8, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(2, 8),
    st.floats(0.1, 1000),
    st.floats(0, 2),
    st.sampled_from([0.0, 1e-12, 1e-6, 0.01, 0.3]),
    st.integers(0, 10**6),
)
def test_no_gradient_is_left_item_by_item_however_extreme_the_problem(n, m, sharpness, decades, rare, seed):
    """Near one-hot targets, temperatures 100:1, hardly any weight on an objective. Each item's gradient is compared
    with its curvature: a small gradient alone says nothing about an item with hardly any mass."""
    log_targets, mask, base, _ = many_objectives(m, n, seed, sharpness)
    rng = np.random.default_rng(seed)
    betas = torch.tensor(10 ** rng.permutation(np.linspace(-decades, 0, m)))
    rest = rng.dirichlet(np.full(m - 1, 0.5))
    w = torch.tensor([rare, *((1 - rare) * rest)])
    distance = mixture_scores(log_targets, mask, base, w[None], betas)[0, 0] - base[0]
    curvature = ((w * betas**2)[:, None] * (betas[:, None] * distance).softmax(-1)).sum(0)
    assert ((gradient(distance, log_targets[0], w, betas) / curvature).abs() <= 1e-8).all()
    assert abs(float(w @ (betas[:, None] * distance).logsumexp(-1))) < 1e-10


@pytest.mark.parametrize("n", [1, 2, 3, 300])
def test_one_hot_targets_that_contradict_each_other_have_finite_scores_in_the_order_of_their_slopes(n):
    m = min(n, 8)
    log_targets = torch.full((1, m, n), -torch.inf, dtype=torch.float64)
    log_targets[0, range(m), range(m)] = 0
    betas = torch.logspace(-2, 0, m, dtype=torch.float64)
    weights = torch.full((1, m), 1 / m, dtype=torch.float64)
    mask, base = torch.ones(1, n, dtype=torch.bool), torch.zeros(1, n, dtype=torch.float64)
    scores = mixture_scores(log_targets, mask, base, weights, betas)[0, 0]
    assert scores.isfinite().all()
    assert (scores[:m].diff() > 0).all()  # the share that is asked for is proportional to w_j β_j
    assert (scores[m:] < scores[:m].min()).all()
    assert gradient(scores, log_targets[0], weights[0], betas).abs().max() < 1e-14


def test_no_step_makes_the_loss_larger(monkeypatch):
    """Step by step from the warm start on. In some of these groups whole Newton steps would diverge."""
    rng = np.random.default_rng(0)
    log_targets = torch.tensor(8 * rng.normal(size=(40, 2, 50))).log_softmax(-1)
    mask, base = torch.ones(40, 50, dtype=torch.bool), torch.zeros(40, 50, dtype=torch.float64)
    weights, betas = torch.tensor(rng.dirichlet([0.5] * 2, size=10)), [1.0, 0.02]
    values = []
    for steps in range(30):
        monkeypatch.setattr(mixture, "MAX_ITERATIONS", steps)
        scores = mixture_scores(log_targets, mask, base, weights, betas)
        values.append(
            torch.stack(
                [loss(s, base, log_targets.exp(), mask, w, betas) for s, w in zip(scores, weights, strict=True)]
            )
        )
    assert (torch.stack(values).diff(dim=0) <= 1e-8).all()  # what is minimised has a floor in its targets
    assert (values[0] - values[-1]).max() > 0.05
    torch.testing.assert_close(values[-2], values[-1], atol=1e-13, rtol=0)


# --- Other means than the arithmetic one


def divergence(q: np.ndarray, p: np.ndarray, power: float) -> float:
    """D(p, q), written out, with its limits: KL(q, p) at power 0, KL(p, q) at power 1."""
    if power == 0:
        return float((q * np.log(q / p)).sum())
    if power == 1:
        return float((p * np.log(p / q)).sum())
    return float((1 - (p**power * q ** (1 - power)).sum()) / (power * (1 - power)))


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_a_power_mean_minimises_the_weighted_divergences_as_scipy_finds(power, beta):
    log_targets, mask, base, _ = many_objectives(3, n=7, seed=4, sharpness=1.0)
    w, targets = np.array([0.2, 0.5, 0.3]), log_targets[0].exp().numpy()
    scores = mixture_scores(log_targets, mask, base, torch.tensor(w)[None], [beta] * 3, power=power)[0, 0]
    found = (beta * (scores - base[0])).softmax(-1).numpy()

    def value(x: np.ndarray) -> float:
        q = np.exp(x - x.max())
        return sum(a * divergence(q / q.sum(), p, power) for a, p in zip(w, targets, strict=True))

    best = minimize(value, np.zeros(7), method="BFGS", options={"gtol": 1e-10})
    q = np.exp(best.x - best.x.max())
    np.testing.assert_allclose(found, q / q.sum(), atol=2e-6)


@pytest.mark.parametrize("betas", BETAS)
def test_powers_next_to_each_other_give_nearly_the_same_scores_and_all_agree_at_the_vertices(betas):
    targets, signal, mask, base = problem()
    close = [mixture_scores(targets.log(), mask, base, GRID, betas, signal, power=p) for p in (1 - 1e-7, 1.0, 1 + 1e-7)]
    for other in close[::2]:
        torch.testing.assert_close(other, close[1], atol=1e-4, rtol=1e-4)
    dense = targets.clamp_min(1e-6)
    dense = (dense * mask[:, None]) / (dense * mask[:, None]).sum(-1, keepdim=True)
    for power in (0.0, 0.25, 4.0):
        other, one = (
            mixture_scores(dense.log(), mask, base, GRID[[0, 3]], betas, power=p)
            for p in (power, 1.0)
        )  # fmt: skip
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", ["uniform", "hardly any mass", "one-hot"])
@pytest.mark.parametrize("power", [0.25, 2.0, 4.0])
def test_a_power_mean_in_single_precision_is_that_in_double(case, power):
    """300 items, also with mass near 1e-8, whose fourth power is 1e-32."""
    targets = torch.ones(1, 2, 300, dtype=torch.float64)
    if case != "uniform":
        targets[..., 100:] = 3e-6
    if case == "one-hot":
        targets[0, 0] = 1e-8
        targets[0, 0, 7] = 1
    log_targets = (targets / targets.sum(-1, keepdim=True)).log()
    mask, base = torch.ones(1, 300, dtype=torch.bool), torch.zeros(1, 300, dtype=torch.float64)
    weights = torch.cat([GRID, torch.tensor([[1e-4, 1 - 1e-4]]).double()])
    double = mixture_scores(log_targets, mask, base, weights, [1.0, 1.0], power=power)
    single = mixture_scores(log_targets.float(), mask, base.float(), weights.float(), [1.0, 1.0], power=power)
    assert double.min() > np.log(2e-9), "above the floor"
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=0)


@pytest.mark.parametrize("power", [-1.0, 4.1, 20.0, float("nan"), float("inf")])
def test_a_power_that_is_no_number_from_0_to_4_is_refused(power):
    targets, _, mask, base = problem()
    with pytest.raises(InputError, match="power is"):
        mixture_scores(targets.log(), mask, base, GRID, [1.0, 1.0], power=power)


# --- What it is where it is known


@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_the_top_one_probabilities_of_the_distance_are_the_mixture_of_the_targets(beta):
    targets, signal, mask, base = problem()
    scores = closed_form(targets, mask, base, GRID, [beta, beta], signal)
    for p, w in enumerate(GRID[:3]):
        distance = (beta * (scores[p] - base)).masked_fill(~mask, -torch.inf)
        expected = (w[:, None] * targets).sum(1)
        torch.testing.assert_close(distance.softmax(-1), expected, atol=1e-8, rtol=0)


def test_temperatures_that_are_almost_equal_give_almost_the_scores_of_equal_ones():
    log_targets, mask, base, _ = many_objectives(3, 20)
    weights = torch.distributions.Dirichlet(torch.ones(3, dtype=torch.float64)).sample((50,))
    equal = mixture_scores(log_targets, mask, base, weights, [0.8, 0.8, 0.8])
    for step in (1e-3, 1e-6, 1e-12):
        nearly = mixture_scores(log_targets, mask, base, weights, [0.8, 0.8 + step, 0.8 - step])
        torch.testing.assert_close(nearly, equal, atol=60 * step + 1e-10, rtol=0)


@pytest.mark.parametrize("betas", BETAS)
def test_all_weight_on_one_objective_gives_that_objectives_log_targets_over_its_temperature(betas):
    log_targets, mask, base, _ = many_objectives(2)
    scores = mixture_scores(log_targets, mask, base, torch.eye(2).double(), betas)[:, 0]
    torch.testing.assert_close(
        scores, base + log_targets[0] / torch.tensor(betas, dtype=torch.float64)[:, None], atol=1e-9, rtol=0
    )


def test_hardly_any_weight_is_almost_none():
    log_targets, mask, base, betas = many_objectives(3)
    weights = torch.tensor([[0.4, 0.6, 0.0], [0.4, 0.6 - 1e-9, 1e-9]]).double()
    none, hardly = mixture_scores(log_targets, mask, base, weights, betas)
    torch.testing.assert_close(hardly, none, atol=1e-6, rtol=0)
    without = mixture_scores(log_targets[:, :2], mask, base, weights[:1, :2], betas[:2])[0]
    torch.testing.assert_close(none, without, atol=1e-9, rtol=0)


@pytest.mark.parametrize("scale", [0.01, 0.5, 3.0])
def test_the_distance_at_c_beta_is_that_at_beta_divided_by_c(scale):
    log_targets, mask, base, betas = many_objectives()
    weights = torch.distributions.Dirichlet(torch.ones(4, dtype=torch.float64)).sample((5,))
    distance = mixture_scores(log_targets, mask, base, weights, betas) - base
    scaled = mixture_scores(log_targets, mask, base, weights, scale * betas) - base
    torch.testing.assert_close(scaled, distance / scale, atol=1e-9, rtol=1e-9)


def test_the_base_scores_are_added_and_a_shift_of_the_log_targets_changes_nothing():
    log_targets, mask, base, betas = many_objectives()
    weights = torch.full((1, 4), 0.25, dtype=torch.float64)
    scores = mixture_scores(log_targets, mask, base, weights, betas)
    torch.testing.assert_close(mixture_scores(log_targets, mask, 0 * base, weights, betas) + base, scores)
    torch.testing.assert_close(mixture_scores(log_targets + 0.7, mask, base, weights, betas), scores)
    torch.testing.assert_close(mixture_scores(log_targets, mask, base + 3, weights, betas), scores + 3)


@pytest.mark.parametrize("equal", [True, False])
def test_the_order_of_objectives_and_of_items_does_not_matter(equal):
    log_targets, mask, base, betas = many_objectives()
    betas = torch.ones_like(betas) if equal else betas
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).double()
    scores = mixture_scores(log_targets, mask, base, weights, betas)
    j, i = torch.tensor([2, 0, 3, 1]), torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixture_scores(log_targets[:, j], mask, base, weights[:, j], betas[j]), scores)
    shuffled = mixture_scores(log_targets[..., i], mask, base[:, i], weights, betas)
    torch.testing.assert_close(shuffled, scores[..., i])


def test_objectives_with_the_same_targets_and_temperature_count_as_one():
    log_targets, mask, base, betas = many_objectives(2)
    twice = torch.tensor([[0.3, 0.2, 0.5]]).double()
    scores = mixture_scores(log_targets[:, [0, 0, 1]], mask, base, twice, betas[[0, 0, 1]])
    once = mixture_scores(log_targets, mask, base, torch.tensor([[0.5, 0.5]]).double(), betas)
    torch.testing.assert_close(scores, once)


@pytest.mark.parametrize("betas", BETAS[2:4])
def test_weightings_per_group_are_those_of_each_group_by_itself(betas):
    targets, signal, mask, base = problem()
    signal[1, 0] = False
    per_group = torch.stack([GRID, GRID.flip(0), GRID[[1, 2, 0, 3]]], 1)  # (P, G, m)
    scores = closed_form(targets, mask, base, per_group, betas, signal)
    for g in range(3):
        alone = closed_form(targets, mask, base, per_group[:, g], betas, signal)
        torch.testing.assert_close(scores[:, g], alone[:, g], atol=1e-10, rtol=0)


# --- Nothing to go by


@pytest.mark.parametrize("betas", [(1.0, 1.0), (1.0, 3.0)])
def test_an_item_without_mass_scores_far_below_the_others_and_stays_finite(betas):
    mask = torch.ones(1, 3, dtype=torch.bool)
    targets = torch.tensor([[[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]]]).double()
    base = torch.tensor([[0.0, 1.0, 9.0]]).double()
    scores = closed_form(targets, mask, base, GRID[:1], betas)[0, 0]
    assert scores.isfinite().all()
    assert scores[2] < scores[:2].min() - 10


@pytest.mark.parametrize("betas", BETAS[2:4])
def test_a_group_without_any_signal_keeps_its_base_scores(betas):
    targets, signal, mask, base = problem()
    signal[1] = False
    scores = closed_form(targets * signal[..., None], mask, base, GRID, betas, signal)
    torch.testing.assert_close(scores[:, 1], base[1].expand(len(GRID), -1))
    assert scores.isfinite().all()
    torch.testing.assert_close(scores[:, 0], closed_form(targets, mask, base, GRID, betas)[:, 0])


@pytest.mark.parametrize("betas", BETAS[2:4])
@pytest.mark.parametrize("unknown", [0.0, torch.nan])
def test_an_objective_without_signal_leaves_its_weight_to_the_others(betas, unknown):
    targets, signal, mask, base = problem()
    signal[1, 1] = False
    targets[1, 1] = unknown
    scores = closed_form(targets, mask, base, GRID, betas, signal)[:, 1]
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])
    torch.testing.assert_close(scores[3], base[1], msg="no weight remains")


@pytest.mark.parametrize("betas", BETAS[2:4])
@pytest.mark.parametrize("junk", [0.0, torch.nan, torch.inf])
def test_padding_keeps_the_base_scores_and_does_not_move_the_items(betas, junk):
    targets, signal, mask, base = problem()
    log_targets = torch.nn.functional.pad(targets.log().masked_fill(~mask[:, None], junk), (0, 400), value=junk)
    wide_mask, wide_base = (torch.nn.functional.pad(t, (0, 400)) for t in (mask, base))
    scores = closed_form(targets, mask, base, GRID, betas, signal)
    wider = mixture_scores(log_targets, wide_mask, wide_base, GRID, betas, signal)
    torch.testing.assert_close(wider[..., : base.shape[1]], scores, atol=1e-10, rtol=0)
    assert (wider[..., base.shape[1] :] == 0).all()
    assert (scores == base).logical_or(mask).all()


def test_a_group_of_padding_alone_keeps_its_base_scores():
    targets, signal, mask, base = problem()
    mask[1] = False
    for betas in BETAS[2:4]:
        scores = closed_form(targets, mask, base, GRID, betas, signal)
        torch.testing.assert_close(scores[:, 1], base[1].expand(len(GRID), -1))
        assert scores.isfinite().all()


# --- Types and refusals


@pytest.mark.parametrize("betas", BETAS[2:4])
def test_single_precision_in_single_precision_out(betas):
    targets, signal, mask, base = problem()
    double = closed_form(targets, mask, base, GRID, betas, signal)
    single = closed_form(targets.float(), mask, base.float(), GRID.float(), torch.tensor(betas), signal)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0, 2.0, 4.0])
def test_gradients_are_finite_differences_on_items_and_0_on_padding(power):
    """With groups of 2 to 5 items, an item without mass, an objective without signal, and weights of 0."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(5) < torch.tensor([5, 2, 3])[:, None]
    given = torch.randn(3, 2, 5, generator=generator).double().masked_fill(~mask[:, None], -torch.inf).log_softmax(-1)
    given[0, :, 4] = -torch.inf  # no objective has mass there
    given[2, 0, 1] = -torch.inf  # one has
    signal = torch.tensor([[True, True], [True, False], [True, True]])
    base, weights = torch.randn(3, 5, generator=generator).double(), torch.tensor([[0.3, 0.7], [1.0, 0.0]]).double()
    free = given.isfinite() & mask[:, None] & signal[..., None]

    def scores(entries, base, weights):
        """Free entries on items; what is on padding and without mass stays as it is."""
        log_targets = given.masked_scatter(free, entries)
        return mixture_scores(log_targets, mask, base, weights, [2.0, 2.0], signal, power)[:, mask]

    inputs = [one.clone().requires_grad_() for one in (given[free], base, weights)]
    assert torch.autograd.gradcheck(lambda *entries: scores(*entries[:2], weights), inputs[:2])
    inside = torch.tensor([[0.3, 0.7], [0.6, 0.4]]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: scores(given[free], base, w), inside)

    everywhere = given.clone().requires_grad_()
    with torch.autograd.detect_anomaly(check_nan=True):
        mixture_scores(everywhere, mask, base, weights, [2.0, 2.0], signal, power)[:, mask].pow(2).sum().backward()
    assert everywhere.grad.isfinite().all()
    assert (everywhere.grad[~free] == 0).all()
    assert (everywhere.grad[free] != 0).any()


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_with_unequal_temperatures_gradients_reach_the_base_scores_alone(power):
    targets, _, mask, base = problem()
    log_targets, base, weights = targets.log().requires_grad_(), base.requires_grad_(), GRID.clone().requires_grad_()
    mixture_scores(log_targets, mask, base, weights, [0.7, 1.3], power=power).sum().backward()
    assert log_targets.grad is None
    assert weights.grad is None
    assert (base.grad == len(GRID)).all()


# --- labels that are missing


def population(rates, groups=20):
    """Groups of two kinds, half each, of two items: objective a prefers the first, b the second. ``rates`` (2, 2): the
    part of each kind's groups that has a label of a and of b."""
    kind = torch.arange(groups) // (groups // 2)
    place = torch.arange(groups) % (groups // 2)
    signal = place[:, None] < (torch.tensor(rates) * (groups // 2)).round()[kind]
    targets = torch.eye(2).double().expand(groups, 2, 2)
    return kind, targets, signal


def trained_loss(scores, kind, targets, signal, w):
    """What the training minimises: each objective's mean over its groups with signal, weighted; scores (2, n) of each
    kind, since a model sees no more of a group."""
    mask = torch.ones(len(kind), 2, dtype=torch.bool)
    losses = listnet_dpo_loss(scores[kind], torch.zeros(len(kind), 2).double(), targets, mask, (1.0, 1.0))
    return scalarise(mean_losses(losses, signal), w)


@pytest.mark.parametrize(
    ("rates", "plain", "least"),
    [
        ([[1.0, 0.1], [0.1, 1.0]], 0.6931, 0.3046),  # which labels a group has depends on its kind
        ([[1.0, 0.1], [1.0, 0.1]], 0.6931, 0.6931),  # it does not
        ([[1.0, 1.0], [1.0, 1.0]], 0.6931, 0.6931),
    ],
)
def test_the_closed_form_is_the_minimiser_where_missing_labels_do_not_depend_on_the_group(rates, plain, least):
    """And with weights w_j P(signal_j | x) / P(signal_j) of each group's own it is the minimiser in any case."""
    kind, targets, signal = population(rates)
    w = torch.tensor([0.5, 0.5]).double()
    log_targets, mask = targets[[0, -1]].log(), torch.ones(2, 2, dtype=torch.bool)
    base = torch.zeros(2, 2).double()

    def loss_at(weights):
        return float(
            trained_loss(mixture_scores(log_targets, mask, base, weights, (1.0, 1.0))[0], kind, targets, signal, w)
        )

    assert loss_at(w[None]) == pytest.approx(plain, abs=1e-4)
    share = signal.double().mean(0)
    given = torch.stack([signal[kind == k].double().mean(0) for k in (0, 1)])
    own = w * given / share
    assert loss_at((own / own.sum(-1, keepdim=True))[None]) == pytest.approx(least, abs=1e-4)

    # Trained for this w, as DPO-LS trains.
    scores = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scores], lr=1, max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = trained_loss(scores, kind, targets, signal, w)
        value.backward()
        return value

    optimiser.step(closure)
    assert float(trained_loss(scores.detach(), kind, targets, signal, w)) == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize(
    ("temperatures", "weights", "message"),
    [
        ((1.0,), GRID, "found 1 value, expected 2"),
        ((1.0, -2.0), GRID, "temperatures 1, -2, expected finite numbers > 0"),
        ((1.0, 2.0), GRID[0], r"weights of shape \(2,\), expected \(P, 2\) or \(P, 3, 2\)"),
        ((1.0, 2.0), GRID[:, None], r"weights of shape \(4, 1, 2\)"),
    ],
)
def test_other_shapes_and_temperatures_are_refused(temperatures, weights, message):
    targets, _, mask, base = problem()
    with pytest.raises(InputError, match=message):
        closed_form(targets, mask, base, weights, temperatures)

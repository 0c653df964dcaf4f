"""The closed form of linear scalarisation: the best possible scores for given weights and temperatures.

The scalarised loss of a group, as a function of the distance s' = s - s_base alone, is

    F(s') = sum_j w_j CE(p_j, softmax(β_j s')),    p_j = E[t(z^j) | x, y]

With equal temperatures its minimiser satisfies softmax(β s') = sum_j w_j p_j: a mixture of the objectives' expected
targets. With unequal ones it is the solution of a small convex problem, found here by Newton's method.

The training's loss is the mean of F over groups where every group has every label, or lacks it by chance alone. Each
objective's loss is a mean over its groups with signal. So in general the weight of objective j in group x is w_j
π_j(x), with π_j(x) = P(signal_j | x) / P(signal_j). The minimiser is then

    softmax(β s') = sum_j w_j π_j p_j / sum_j w_j π_j

with p_j the expectation over groups with signal. Weights w_j π_j(x) / sum_k w_k π_k(x) of each group's own give it.

The cross-entropy is one of a family of divergences. Power means of the p_j minimise their weighted sums (Amari,
Integration of stochastic models by minimizing α-divergence, 2007). The mean is the member with power 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hyperdpo.core.limits import LARGEST_POWER
from hyperdpo.core.point import check_temperatures
from hyperdpo.errors import InputError

#: Mixture mass below this counts as this: a target of exactly 0 would ask for a score of minus infinity.
FLOOR = 1e-9

#: Newton stops after a step whose entries, times the largest temperature, spread less than this. The error that is
#: left is of the order of this number squared.
STEP_TOLERANCE = 1e-6

#: A bound that was never met: 18,000 extreme groups (one-hot targets, weights of 1e-6, up to 300 items) took at most 23
#: steps where no temperature is above 100 times another, 53 with 10,000 times; the median was 3.
MAX_ITERATIONS = 200

#: Stands for minus infinity on padding: 0 times it is 0.
_LOWEST = -1e300


def mixture_scores(
    log_targets: Tensor,
    mask: Tensor,
    base_scores: Tensor,
    weights: Tensor,
    temperatures: Sequence[float] | Tensor,
    signal: Tensor | None = None,
    power: float = 1.0,
) -> Tensor:
    """The scores that minimise the scalarised loss of every group, for each of P weightings.

    Equal temperatures: s = s_base + log(sum_j w_j p_j) / β. Unequal ones: Newton's method in float64, to a distance
    s - s_base within about 1e-10 / max_j β_j of the minimiser.

    Gradients reach ``base_scores`` in any case. With equal temperatures they reach ``log_targets`` and ``weights`` too,
    finite for every power, and 0 on padding, where there is no signal, and for mass that the floor replaces.

    The minimiser is defined up to a shift per group; it is the one with sum_j w_j logsumexp(β_j (s - s_base)) = 0.
    That makes it continuous in weights and temperatures, and exactly inversely proportional to the scale of β. For
    equal β it is the formula above; for w = e_j it is log p_j / β_j.

    Objectives without signal in a group leave their weight to the others; where no weight remains, s = s_base. Mass
    below 1e-9 of sum_j v_j p_j, v_j proportional to w_j β_j, counts as 1e-9, so that all scores are finite. For power
    0, where one p_j without mass would leave the mean none, the floor is on each p_j, too.

    With another ``power`` ρ, the normalised power mean (sum_j v_j p_j^ρ)^(1/ρ) stands for the mean of the targets. With
    equal temperatures it minimises sum_j w_j D(p_j, q) with D(p, q) = (1 - sum_i p_i^ρ q_i^(1 - ρ)) / (ρ (1 - ρ)). In
    the limit of ρ = 1 that is the cross-entropy. In the limit of 0 it is KL(q, p); its minimiser is the normalised
    geometric mean, as in a mixture of log-probabilities. All of them agree at the vertices.

    >>> targets = torch.tensor([[[0.8, 0.2], [0.4, 0.6]]])
    >>> mask, base = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    >>> mixture_scores(targets.log(), mask, base, torch.tensor([[0.5, 0.5]]), [1.0, 1.0]).exp()
    tensor([[[0.6000, 0.4000]]])

    Args:
        log_targets: (G, m, n), log p_j; exp of each row sums to 1 over the items. -inf is allowed; anything on
            padding and where there is no signal.
        mask: (G, n) bool.
        base_scores: (G, n).
        weights: (P, m), or (P, G, m) for weightings of each group's own; on the simplex.
        temperatures: m numbers > 0.
        signal: (G, m) bool; None for "all have signal".
        power: ρ, from 0 to 4.

    Returns:
        (P, G, n); the base scores on padding.

    Raises:
        InputError: weights or temperatures of another shape; a temperature that is not a finite number > 0; a power
            that is not a number from 0 to 4.
    """
    if not 0 <= power <= LARGEST_POWER:
        raise InputError(f"power is {power}; expected a number from 0 to {LARGEST_POWER:g}")
    groups, m, _ = log_targets.shape
    betas = check_temperatures(temperatures, m)
    # Not as a comparison of tuples, which would compare a number of groups with m while a graph is traced.
    if weights.dim() not in (2, 3) or weights.shape[-1] != m or (weights.dim() == 3 and weights.shape[1] != groups):
        raise InputError(f"weights of shape {tuple(weights.shape)}, expected (P, {m}) or (P, {groups}, {m})")
    # The linear part of F needs the targets only as the mixture sum_j v_j p_j, its other part only the temperatures:
    # objectives of one temperature count as one, whose weight is their sum.
    values = sorted(set(betas.tolist()))
    kind = [values.index(beta) for beta in betas.tolist()]
    dtype = torch.float64 if len(values) > 1 else torch.promote_types(log_targets.dtype, torch.float32)
    given = (weights if weights.dim() == 3 else weights[:, None, :].expand(-1, groups, -1)).to(dtype)  # (P, G, m)
    known = mask[:, None, :].expand_as(log_targets)
    if signal is not None:
        given, known = given * signal, known & signal[..., None]
    scale = torch.as_tensor(betas, dtype=dtype, device=given.device)
    slope = (given * scale).sum(-1, keepdim=True)  # (P, G, 1), sum_j w_j β_j: 0 where no weight remains
    shares = given * scale / torch.where(slope > 0, slope, 1)
    mixed = _mixed(shares, log_targets.masked_fill(~known, -torch.inf).to(dtype), mask, power)
    mixed = mixed.clamp_min(FLOOR).masked_fill(~mask, 0)
    mixed = mixed / mixed.sum(-1, keepdim=True).clamp_min(FLOOR)
    idle = ~mask | (slope <= 0)  # (P, G, n)
    distance = mixed.masked_fill(idle, 1).log() / scale[0]
    if len(values) > 1:
        # (P * G, K) weights of the K different temperatures
        kinds = torch.nn.functional.one_hot(torch.tensor(kind, device=given.device), len(values)).to(dtype)
        active = ((slope > 0).squeeze(-1) & mask.any(-1)).flatten()
        rows = active.nonzero().squeeze(-1)
        found = _minimiser(
            mixed.flatten(0, 1)[rows].detach(),
            mask.expand_as(mixed).flatten(0, 1)[rows],
            (given @ kinds).flatten(0, 1)[rows].detach(),
            torch.tensor(values, dtype=dtype, device=given.device),
        )
        distance = torch.zeros_like(mixed).flatten(0, 1).index_copy(0, rows, found).view_as(mixed)
    return base_scores + distance.masked_fill(idle, 0).to(log_targets.dtype)


def _mixed(shares: Tensor, log_targets: Tensor, mask: Tensor, power: float) -> Tensor:
    """The power mean of the targets, which sums to 1 over the items of a group.

    Args:
        shares: (P, G, m), sums to 1 or is 0.
        log_targets: (G, m, n), -inf where nothing is known.
        mask: (G, n).

    Returns:
        (P, G, n).
    """
    if power == 1:
        return torch.matmul(shares.transpose(0, 1), log_targets.exp()).transpose(0, 1)
    if power == 0:
        logs = torch.matmul(shares.transpose(0, 1), log_targets.clamp_min(math.log(FLOOR))).transpose(0, 1)
    else:
        # One matrix product instead of a sum over (P, G, m, n); the largest entry is taken out against underflow. It
        # cancels in the softmax, hence needs no gradient.
        top = log_targets.detach().amax((1, 2), keepdim=True).clamp_min(math.log(FLOOR))
        sums = torch.matmul(shares.transpose(0, 1), (power * (log_targets - top)).exp()).transpose(0, 1)
        # The logarithm of 0, on padding or where no objective has mass, has no finite gradient.
        logs = sums.clamp_min(torch.finfo(sums.dtype).tiny).log() / power
    return torch.softmax(logs.masked_fill(~mask, torch.finfo(logs.dtype).min), -1)


@torch.no_grad()
def _minimiser(mixed: Tensor, mask: Tensor, weights: Tensor, betas: Tensor) -> Tensor:
    """The minimiser over s' (R, n) of sum_k w_k logsumexp(β_k s') - (sum_k w_k β_k) mixed · s', row by row.

    A damped Newton method: no step makes the value larger, and near the minimum all steps are whole. It works on
    x = max(β) s', shifted such that the largest entry is 0.

    Args:
        mixed: (R, n) > 0, sums to 1; 0 on padding.
        mask: (R, n) bool, at least one True in a row.
        weights: (R, K) >= 0, not all 0; their sum does not matter.
        betas: (K,), all different.

    Returns:
        (R, n) with sum_k w_k logsumexp(β_k s') = 0; undefined on padding.
    """
    ratios = betas / betas.max()
    slope = weights @ ratios  # (R,)
    linear = slope[:, None] * mixed
    start = mixed.masked_fill(~mask, 1).log() * (slope / (weights @ ratios**2))[:, None]
    result = _shifted(start.masked_fill(~mask, _LOWEST))  # exact where one temperature has all the weight
    rows, all_weights = torch.arange(len(result), device=result.device), weights
    x = result
    value, q = _value(x, linear, weights, ratios)
    for _ in range(MAX_ITERATIONS):
        step, decrement = _newton_step(q, linear, weights, ratios, mask)
        spread = step.amax(-1) - step.amin(-1)
        # The third derivative along a step is at most its spread times the second. Hence a whole step lowers the
        # value if its spread is at most 1.79, and log(1 + spread) / spread of a step does in any case.
        length, safe = torch.ones_like(spread), torch.log1p(spread) / spread
        trial = _shifted(x + step)
        trial_value, q = _value(trial, linear, weights, ratios)
        retry = ((spread > 1) & ~(trial_value < value - 1e-4 * decrement)).nonzero().squeeze(-1)
        while retry.numel():
            length[retry] = torch.maximum(length[retry] / 2, safe[retry])
            trial[retry] = _shifted(x[retry] + length[retry, None] * step[retry])
            trial_value[retry], q[retry] = _value(trial[retry], linear[retry], weights[retry], ratios)
            too_long = ~(trial_value[retry] < value[retry] - 1e-4 * length[retry] * decrement[retry])
            retry = retry[too_long & (length[retry] > safe[retry])]
        x, value = trial, trial_value
        result[rows] = x
        going = spread > STEP_TOLERANCE
        if not going.any():
            break
        if not going.all():
            rows, x, value, q = rows[going], x[going], value[going], q[going]
            linear, weights, mask = linear[going], weights[going], mask[going]
    return _gauged(result, all_weights, ratios) / betas.max()


def _gauged(x: Tensor, weights: Tensor, ratios: Tensor) -> Tensor:
    """x (R, n), shifted such that sum_k w_k logsumexp(r_k x) = 0."""
    sums = (x[:, None, :] * ratios[:, None]).exp_().sum(-1)  # (R, K); the largest entry of x is 0
    return x - ((weights * sums.log()).sum(-1) / (weights @ ratios))[:, None]


def _shifted(x: Tensor) -> Tensor:
    """x (R, n) with a largest entry of 0 in each row: no exponential overflows then."""
    return x - x.amax(-1, keepdim=True)


def _value(x: Tensor, linear: Tensor, weights: Tensor, ratios: Tensor) -> tuple[Tensor, Tensor]:
    """sum_k w_k logsumexp(r_k x) - linear · x (R,), and q_k = softmax(r_k x) (R, K, n)."""
    q = (x[:, None, :] * ratios[:, None]).exp_()
    sums = q.sum(-1)
    return (weights * sums.log()).sum(-1) - (linear * x).sum(-1), q.div_(sums[..., None])


def _newton_step(q: Tensor, linear: Tensor, weights: Tensor, ratios: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The Newton step (R, n) and its decrement (R,): step · Hessian · step.

    The Hessian is diag(d) - sum_k a_k q_k q_k^T with a_k = w_k r_k^2 and d = sum_k a_k q_k. By Woodbury, with u_k =
    q_k · step, step = (sum_k a_k u_k q_k - gradient) / d, where u solves K equations. Their matrix is the Laplacian of
    a graph over the temperatures with edges a_j a_k sum_i q_ji q_ki / d_i; taking its diagonal from the edges avoids
    1 - (nearly 1). Like the Hessian it is singular along the ones; the gauge is d · step = 0.
    """
    roots = weights.sqrt() * ratios  # (R, K), sqrt(a)
    slopes, curvatures = weights * ratios, roots**2
    gradient = torch.bmm(slopes[:, None, :], q).squeeze(1) - linear
    diagonal = torch.bmm(curvatures[:, None, :], q).squeeze(1).masked_fill(~mask, 1).clamp_min(1e-290)
    scaled = q * (roots[..., None] * diagonal.rsqrt()[:, None, :])  # (R, K, n)
    edges = torch.bmm(scaled, scaled.mT)
    edges.diagonal(dim1=-2, dim2=-1).zero_()
    degrees = (edges @ roots[..., None]).squeeze(-1) / torch.where(roots > 0, roots, 1)
    system = torch.diag_embed(torch.where(roots > 0, degrees, 1)) - edges
    system += roots[:, :, None] * roots[:, None, :] / curvatures.sum(-1)[:, None, None]
    descent = -gradient / diagonal
    right = roots * torch.bmm(q, descent[..., None]).squeeze(-1)
    found = torch.linalg.solve(system, right[..., None])  # sqrt(a) u
    step = descent + torch.bmm((roots * found.squeeze(-1))[:, None, :], q).squeeze(1) / diagonal
    return step, -(gradient * step).sum(-1)

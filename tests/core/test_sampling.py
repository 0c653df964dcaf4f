"""Weights and temperatures that are drawn have the distribution that they are said to have."""

import math

import numpy as np
import pytest
from scipy.stats import beta, kstest

from hyperdpo.core.preferences import stream, weight_grid
from hyperdpo.core.sampling import WeightSampler, sample_dirichlet, sample_temperatures, sample_weights
from hyperdpo.errors import InputError


def assert_on_simplex(weights):
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=0, atol=5e-16)


# --- sample_dirichlet


@pytest.mark.parametrize("alpha", [(1.0, 1.0), (0.2, 1.5, 4.0), (0.05, 0.05, 0.05), (0.5, 0.02)])
def test_mean_and_covariance_are_those_of_the_dirichlet_distribution(alpha):
    count = 200_000
    drawn = sample_dirichlet(alpha, count, stream(0))
    total = sum(alpha)
    mean = np.array(alpha) / total
    covariance = (np.diag(mean) - np.outer(mean, mean)) / (total + 1)
    assert_on_simplex(drawn)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * math.sqrt(0.25 / count))
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=5 * math.sqrt(0.25 / count))


@pytest.mark.parametrize("alpha", [1e-3, 1e-6, 1e-100])
def test_a_tiny_alpha_gives_vertices_and_never_nan(alpha):
    drawn = sample_dirichlet([alpha] * 5, 20_000, stream(0))
    assert_on_simplex(drawn)
    assert (drawn.max(-1) > 0.99).mean() > 0.95
    np.testing.assert_allclose(drawn.mean(0), 0.2, atol=0.02)


@pytest.mark.parametrize("alpha", [(), (1.0, 0.0), (1.0, -1.0), (math.nan, 1.0), (math.inf, 1.0), 1.0])
def test_alpha_is_a_vector_of_finite_positive_numbers(alpha):
    with pytest.raises(InputError, match="expected one finite number > 0 per objective"):
        sample_dirichlet(alpha, 1, stream(0))


# --- sample_weights

ALPHAS = [(1.0, 1.0), (0.2, 1.5, 4.0), (0.05, 0.05, 0.05), (0.5, 0.02), (0.5,) * 5]


def moments(weights):
    """E w_j and E w_j w_k over the rows: (m + m^2,)."""
    return np.concatenate([weights.mean(0), (weights[:, :, None] * weights[:, None]).mean(0).ravel()])


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("stratified", [False, True])
def test_mean_and_covariance_are_those_of_dirichlet_rows_mixed_with_vertices(alpha, share, stratified):
    """Over many batches of 20: each row keeps its distribution, however it depends on the others of its batch."""
    batches, m, total = 1500, len(alpha), sum(alpha)
    drawn = np.concatenate(
        [sample_weights(alpha, 20, stream(0, i), vertex_share=share, stratified=stratified) for i in range(batches)]
    )
    assert_on_simplex(drawn)
    mean = np.array(alpha) / total
    second = (np.diag(mean) - np.outer(mean, mean)) / (total + 1) + np.outer(mean, mean)
    expected = np.concatenate([mean, second.ravel()])
    vertices = np.concatenate([np.full(m, 1 / m), (np.eye(m) / m).ravel()])
    np.testing.assert_allclose(
        moments(drawn), (1 - share) * expected + share * vertices, atol=5 * math.sqrt(0.25 / len(drawn))
    )


@pytest.mark.parametrize("j", range(2))
@pytest.mark.parametrize("alpha", [(0.3, 2.0, 0.7), (3.0, 1.0, 0.4)])
def test_each_weight_of_a_stratified_batch_has_the_beta_distribution(alpha, j):
    """And so has the share that one objective takes of what is left: w_1 / (w_1 + w_2) ~ Beta(α_1, α_2)."""
    drawn = np.concatenate([sample_weights(alpha, 10, stream(1, i), stratified=True) for i in range(1000)])
    assert kstest(drawn[:, j], beta(alpha[j], sum(alpha) - alpha[j]).cdf).statistic < 1.6 / math.sqrt(len(drawn))
    pair = drawn[:, j] / (drawn[:, j] + drawn[:, 2])
    assert kstest(pair, beta(alpha[j], alpha[2]).cdf).statistic < 1.6 / math.sqrt(len(drawn))


@pytest.mark.parametrize(
    ("alpha", "ratio"), [((1.0, 1.0), 0.05), ((0.5,) * 3, 0.2), ((0.2, 1.5, 4.0), 0.5), ((0.5,) * 5, 0.4)]
)
def test_the_mean_of_a_stratified_batch_varies_less(alpha, ratio):
    def deviation(stratified):
        return np.std([sample_weights(alpha, 34, stream(i), stratified=stratified).mean(0) for i in range(200)], axis=0)

    assert (deviation(True) < ratio * deviation(False)).all()


def test_a_stratified_batch_for_two_objectives_has_one_row_in_each_interval():
    weights = np.sort(sample_weights((1.0, 1.0), 50, stream(0), stratified=True)[:, 0])
    assert (np.floor(50 * weights) == np.arange(50)).all()


def test_a_stratified_batch_leaves_no_large_hole():
    """The largest distance of a point of the simplex from the nearest row, averaged over batches."""
    grid = weight_grid(3, 231)

    def hole(stratified, i):
        rows = sample_weights((1.0, 1.0, 1.0), 40, stream(i), stratified=stratified)
        return np.linalg.norm(grid[:, None] - rows, axis=-1).min(1).max()

    even, loose = (np.mean([hole(stratified, i) for i in range(50)]) for stratified in (True, False))
    assert even < 0.85 * loose


@pytest.mark.parametrize("m", [1, 2, 3, 6])
def test_vertices_have_their_share_exactly_when_stratified_and_are_balanced_over_objectives(m):
    weights = sample_weights([5.0] * m, 48, stream(0), vertex_share=0.25, stratified=True)
    if m > 1:
        assert (weights.max(-1) == 1).sum() == 12
        assert ((weights == 1).sum(0) == 12 // m).all()
    rounded = [
        (sample_weights([5.0] * 2, 10, stream(i), vertex_share=0.25, stratified=True).max(-1) == 1).sum()
        for i in range(400)
    ]
    assert set(rounded) == {2, 3}
    assert np.mean(rounded) == pytest.approx(2.5, abs=0.125)


def test_vertices_have_their_share_on_average_in_independent_rows():
    weights = sample_weights((5.0, 5.0, 5.0), 10_000, stream(0), vertex_share=0.3)
    np.testing.assert_allclose((weights == 1).mean(0), 0.1, atol=0.015)
    assert (sample_weights((5.0, 5.0), 30, stream(0), vertex_share=1.0).max(-1) == 1).all()
    assert np.array_equal(sample_weights((0.5, 5.0), 30, stream(0)), sample_dirichlet((0.5, 5.0), 30, stream(0)))


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("m", [1, 2, 3, 6])
def test_any_number_of_rows_is_drawn_and_the_same_ones_from_the_same_stream(m, stratified):
    for count in (0, 1, 2, 33):
        first, second = (
            sample_weights([0.5] * m, count, stream(3), vertex_share=0.2, stratified=stratified) for _ in range(2)
        )
        assert first.shape == (count, m)
        assert_on_simplex(first)
        assert np.array_equal(first, second)


@pytest.mark.parametrize("alpha", [1e-320, 1e-100, 1e-6, 1e-3, 1e8, 1e300])
@pytest.mark.parametrize("m", [2, 5])
def test_an_extreme_alpha_never_gives_nan_when_stratified(alpha, m):
    drawn = sample_weights([alpha] * m, 2000, stream(0), stratified=True)
    assert_on_simplex(drawn)
    np.testing.assert_allclose(drawn.mean(0), 1 / m, atol=0.02)
    if alpha < 1:
        assert (drawn.max(-1) > 0.99).mean() > 0.95
    else:
        np.testing.assert_allclose(drawn, 1 / m, atol=1e-3)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_of_vertices_outside_0_to_1_is_an_error(share):
    with pytest.raises(InputError, match="share of vertices"):
        sample_weights((1.0, 1.0), 3, stream(0), vertex_share=share)


@pytest.mark.parametrize("stratified", [False, True])
def test_sampled_weights_need_finite_positive_alphas(stratified):
    with pytest.raises(InputError, match="expected one finite number > 0 per objective"):
        sample_weights((1.0, 0.0), 3, stream(0), stratified=stratified)


# --- sample_temperatures


def test_temperatures_are_uniform_in_their_box():
    drawn = sample_temperatures((0.1, 1.0, 2.0), (0.5, 3.0, 2.0), 20_000, stream(0))
    assert drawn.shape == (20_000, 3)
    assert (drawn >= (0.1, 1.0, 2.0)).all()
    assert (drawn <= (0.5, 3.0, 2.0)).all()
    np.testing.assert_allclose(drawn.mean(0), (0.3, 2.0, 2.0), atol=0.02)
    np.testing.assert_allclose(drawn.var(0), (0.4**2 / 12, 2.0**2 / 12, 0), atol=0.01)
    assert abs(np.corrcoef(drawn[:, :2].T)[0, 1]) < 0.03
    assert np.array_equal(drawn[:5], sample_temperatures((0.1, 1.0, 2.0), (0.5, 3.0, 2.0), 5, stream(0)))


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ((0.0, 1.0), (1.0, 1.0)),
        ((-1.0, 1.0), (1.0, 1.0)),
        ((1.0, 2.0), (2.0, 1.0)),
        ((1.0, 1.0), (1.0, math.inf)),
        ((1.0, math.nan), (1.0, 1.0)),
        ((1.0,), (1.0, 2.0)),
        ((), ()),
        (1.0, 2.0),
        (("a",), ("b",)),
    ],
)
def test_a_box_of_temperatures_has_positive_ordered_bounds(low, high):
    with pytest.raises(InputError, match=r"temperatures from .*, expected"):
        sample_temperatures(low, high, 3, stream(0))


# --- WeightSampler


@pytest.mark.parametrize("stratified", [False, True])
def test_a_sampler_draws_once_for_a_batch_or_some_times_for_each_group(stratified):
    settings = {"alpha": (0.5, 2.0), "vertex_share": 0.3, "stratified": stratified}
    rows = sample_weights((0.5, 2.0), 15, stream(4), vertex_share=0.3, stratified=stratified)
    several = WeightSampler(**settings, draws=3).draw(5, stream(4))
    np.testing.assert_array_equal(several, rows.reshape(5, 3, 2).swapaxes(0, 1))
    np.testing.assert_array_equal(WeightSampler(**settings).draw(15, stream(4)), rows)
    one = WeightSampler(**settings, per="batch", draws=3).draw(5, stream(4))
    np.testing.assert_array_equal(one, sample_weights((0.5, 2.0), 1, stream(4), vertex_share=0.3)[0])

"""Columns whose differences 32 bits cannot hold."""

import numpy as np
import pytest

from hyperdpo.data.origins import origin_of

DAYS = np.array([20240101.0 + d for d in range(31)])


@pytest.mark.parametrize(
    ("values", "origin"),
    [
        (DAYS, 20240101),
        (1.7040780e9 + np.arange(3600.0), 1.7040780e9),
        (np.append(DAYS, np.nan), 20240101),
        (-DAYS, -20240131),
        (52.52 + np.arange(100) * 1e-8, 52.52),
        (np.array([2**53 - 1.0, 2**53 - 2.0]), 2**53 - 2),
        (np.append(DAYS, 20240101.0 - 31), 20240070),
    ],
)
def test_large_numbers_that_lie_close_together_have_their_lowest_as_origin(values, origin):
    assert origin_of(values) == origin
    shifted = np.float32(values[~np.isnan(values)] - origin)
    assert len(np.unique(shifted)) == len(shifted)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(1.0, 255.0),
        np.array([20240101.0] * 5),
        np.array([]),
        np.array([np.nan, np.nan]),
        np.random.default_rng(0).random(100_000),  # some are equal in 32 bits, and no subtraction helps
        np.random.default_rng(0).integers(0, 2**62, 1000).astype(float),
        np.array([1.5, 3e38]),
    ],
)
def test_other_columns_have_none(values):
    assert origin_of(values) is None


@pytest.mark.parametrize("others", [[0.0], [0.0, -1.0], [99_999_999.0], [0.0] * 5])
def test_values_that_stand_for_no_time_stamp_have_no_say(others):
    stamps = 1_704_078_000.0 + np.arange(600)
    origin = origin_of(np.append(stamps, others))
    assert origin is not None
    assert len(np.unique(np.float32(np.append(stamps, others) - origin))) > 600


def test_counts_with_a_long_tail_have_none():
    counts = np.floor(np.exp(np.random.default_rng(0).uniform(0, 22, 5000)))
    assert origin_of(counts) is None

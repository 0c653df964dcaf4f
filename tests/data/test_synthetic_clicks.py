"""Generated clicks with a bias of positions."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from hyperdpo.cli import cli
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import SPARSE, Clicks, generate
from hyperdpo.objectives import Label
from hyperdpo.ranking.clicks import with_position_power


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The same lists with every click seen, and with those that were looked at."""
    place, found = tmp_path_factory.mktemp("clicks"), {}
    for name, power in (("all", 0.0), ("seen", 1.0)):
        generate(place / f"{name}.txt", 100, 3, place / f"{name}.csv", clicks=Clicks(power))
        found[name] = read_table(place / f"{name}.txt")
    assert (place / "all.csv").read_bytes() == (place / "seen.csv").read_bytes()
    return found | {"oracle": read_table(place / "all.csv")}


def test_position_and_propensity_are_columns_137_and_138(tables):
    table = tables["seen"]
    assert table.columns[-2:] == ("137", "138")
    position, propensity = table.column("137"), table.column("138")
    np.testing.assert_allclose(propensity, 1 / position, atol=1e-6)
    for start, stop in zip(table.offsets, table.offsets[1:], strict=False):
        assert sorted(position[start:stop]) == list(range(1, stop - start + 1))
    assert np.corrcoef(position, table.column("relevance"))[0, 1] < -0.2, "the logging ranker is not blind"


def test_a_click_divided_by_its_propensity_is_as_often_as_the_oracle_says(tables):
    for table in (tables["all"], tables["seen"]):
        z, truth = (np.stack([one.column(name) for name in SPARSE]) for one in (table, tables["oracle"]))
        position = tables["seen"].column("137")
        for low, high in ((1, 1), (2, 3), (4, 10), (11, 200)):
            rows = (position >= low) & (position <= high)
            found = (z / table.column("138"))[:, rows].mean()
            # 2.5 standard errors of a mean of Poisson numbers with these means
            error = 2.5 * np.sqrt((truth / table.column("138"))[:, rows].mean() / rows.sum() / 3)
            assert found == pytest.approx(truth[:, rows].mean(), abs=error)


def test_only_clicks_depend_on_the_bias(tables):
    every, seen = tables["all"], tables["seen"]
    for name in every.columns[:-1]:
        assert (every.column(name) == seen.column(name)).all() == (name not in SPARSE)


def test_every_fifth_query_is_shown_twice_so_that_eta_can_be_fitted(tables):
    table = tables["seen"]
    assert table.num_groups == 120
    assert (table.column("1")[slice(*table.offsets[:2])] == table.column("1")[slice(*table.offsets[1:3])]).all()
    features = [str(k) for k in range(1, 132)]
    powers = [
        with_position_power(Label(name=c, position="137"), Part.whole(table), features).position_power for c in SPARSE
    ]
    assert np.mean(powers) == pytest.approx(1, abs=0.2)


def test_the_command_writes_them(tmp_path):
    result = CliRunner().invoke(cli, ["data", "generate", str(tmp_path / "data.txt"), "--queries", "6", "--clicks"])
    assert result.exit_code == 0
    assert read_table(tmp_path / "data.txt").num_groups == 8
    assert read_table(tmp_path / "data.txt").columns[-1] == "138"

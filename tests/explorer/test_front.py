"""The picture of the front: what is where in the figure."""

from __future__ import annotations

import numpy as np
import pytest

from hyperdpo.core.point import Point
from hyperdpo.explorer.front import Front, Marks, figure, first_mark, xy
from hyperdpo.explorer.point import CURVE_SCALES, curve


def front(m: int, k: int, name: str = "run", points: int = 4) -> Front:
    rng = np.random.default_rng(m)
    weights = [tuple(w) for w in rng.dirichlet(np.ones(m), points).tolist()]
    chosen = tuple(Point(w, 1.0, (1.0,) * m) for w in weights)
    return Front(name, chosen, rng.random((points, k)), rng.random(k))


def test_two_objectives_make_a_curve_and_more_a_cloud():
    names, better = ["a", "b", "main"], [True] * 3
    two = figure([front(2, 3)], [], names, ("a", "b"), (0, 1), larger_is_better=better)
    assert two["data"][0]["mode"] == "lines+markers"
    assert two["layout"]["xaxis"]["title"]["text"] == "a (higher is better)"
    assert figure([front(2, 3)], [], names, ("a", "b"), (0, 2), larger_is_better=better)["data"][0]["mode"] == "markers"
    one = front(3, 4)
    three = figure([one], [], ["a", "b", "c", "main"], ("a", "b", "c"), (2, 0), colour=3, larger_is_better=[True] * 4)
    assert three["data"][0]["mode"] == "markers"
    assert three["data"][0]["x"] == one.values[:, 2].tolist()
    assert three["data"][0]["marker"]["color"] == one.values[:, 3].tolist()


def test_marks_come_last_in_a_known_order():
    fronts = [front(2, 2, "one"), front(2, 2, "two")]
    curve = np.arange(6.0).reshape(3, 2)
    marks = [Marks("one", 0, np.array([0.1, 0.2]), curve), Marks("two", 1, np.array([0.3, np.nan]))]
    found = figure(fronts, marks, ["a", "b"], ("a", "b"), (0, 1), pinned=np.ones(2), larger_is_better=[True, False])
    names = [trace["name"] for trace in found["data"]]
    assert names[:5] == ["one", "two", "base of one", "base of two", "pinned"]
    first = first_mark(2)
    assert found["data"][first]["x"] == [0.0, 2.0, 4.0]
    assert found["data"][first + 1]["y"] == [0.2]
    assert found["data"][first + 2]["x"] == []
    assert found["data"][first + 3]["y"] == [None]  # NaN is not JSON
    assert "lower is better" in found["layout"]["yaxis"]["title"]["text"]


def test_names_are_text_not_tags():
    found = figure([front(2, 2)], [], ["<i>a", "b"], ("<i>a", "b"), (0, 1), larger_is_better=[True, True])
    assert found["layout"]["xaxis"]["title"]["text"].startswith("&lt;i&gt;a")
    assert "<i>" not in found["data"][0]["text"][0]


def test_nothing_has_no_place():
    assert xy(None, (0, 1)) == {"x": [], "y": []}


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_the_way_to_the_base_begins_at_the_point_or_at_scale_one(scale):
    point = Point((0.2, 0.8), scale, (1.0, 2.0))
    rows = curve(point)
    assert rows[0].tolist() == [0.2, 0.8, scale, 1.0, 2.0]
    assert rows[1:, 2].tolist() == [min(scale, 1.0), *CURVE_SCALES[1:]]
    assert (rows[:, [0, 1, 3, 4]] == rows[0, [0, 1, 3, 4]]).all()

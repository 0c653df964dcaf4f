"""Bodies read by simdjson hold what orjson reads in them."""

import json

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperdpo.serving.server import rank_body

pytest.importorskip("simdjson")

MOST_GROUPS, MOST_FIELDS = 4, 6

NUMBERS = st.integers(-(2**53), 2**53) | st.floats(width=32, allow_nan=False, allow_infinity=False)
#: What a body may hold, and what it may not.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | NUMBERS
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def parsed(body):
    return rank_body.parsed(body, MOST_GROUPS, MOST_FIELDS)


def plain(value):
    """Arrays as lists of numbers of single precision."""
    if isinstance(value, np.ndarray):
        assert value.dtype == np.float32
        assert value.ndim == 2
        assert np.isfinite(value).all()
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def single(value):
    """Rows of features as numbers of single precision, by numpy."""
    return np.array(value, np.float64).astype(np.float32).tolist()


@st.composite
def rows(draw):
    width = draw(st.integers(1, 5))
    return draw(st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=5))


@given(
    st.lists(
        st.fixed_dictionaries(
            {"features": rows()},
            optional={
                "weights": st.lists(NUMBERS, max_size=3) | st.dictionaries(st.text(max_size=3), NUMBERS, max_size=3),
                "scale": NUMBERS,
                "ids": st.lists(st.text('ab]}\\"é', max_size=3) | st.integers(0, 9), max_size=3),
            },
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
    st.sampled_from([None, 2]),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_features_become_arrays_and_the_rest_is_what_orjson_reads(groups, named, indent):
    body = json.dumps({"groups": groups} if named else groups[0], indent=indent).encode()
    found = parsed(body)
    for group, wanted in zip(
        found["groups"] if named else [found],
        orjson.loads(body)["groups"] if named else [orjson.loads(body)],
        strict=True,
    ):
        assert isinstance(group["features"], np.ndarray)
        assert group["features"].tolist() == single(wanted["features"])
        assert {k: v for k, v in group.items() if k != "features"} == {
            k: v for k, v in wanted.items() if k != "features"
        }


@given(
    VALUES,
    st.sampled_from(
        [lambda v: v, lambda v: {"features": v}, lambda v: {"groups": v}, lambda v: {"groups": [{"features": v}]}]
    ),
)
def test_whatever_else_there_is_is_read_as_orjson_reads_it(value, place):
    body = json.dumps(place(value)).encode()
    wanted = orjson.loads(body)
    found = parsed(body)
    if plain(found) != wanted:  # numbers have been made single
        assert json.dumps(plain(found)) == json.dumps(
            {"features": single(wanted["features"])}
            if "features" in wanted
            else {"groups": [group | {"features": single(group["features"])} for group in wanted["groups"]]}
        )


@pytest.mark.parametrize(
    "body",
    [
        b'{"features": [[1, 2], [3, [4]]], "weights": [1]}',  # one bracket too many: not the number 4
        b'{"features": [[1, 2], [[3, 4]]]}',
        b'{"features": [[1, true], [3, 4]]}',
        b'{"features": [[1, null]]}',
        b'{"features": [[1, 1e39]]}',
        b'{"features": [[1, 123456789012345678901234567890]]}',
        b'{"features": [[1], [2, 3]]}',
        b'{"features": []}',
        b'{"features": [1, 2]}',
        b'{"features": [[1, 2]], "features": [[3, 4]]}',  # the last one counts
        b'{"groups": [{"features": [[1, 2]]}], "more": 1}',
        b'{"groups": [{"features": [[1, 2]], "ids": ["[["]}]}',
        json.dumps({"features": [[1, 2]]} | dict.fromkeys("abcdefg")).encode(),  # too many fields
        json.dumps({"groups": [{"features": [[1, 2]]}] * 5}).encode(),  # too many groups
        b"null",
        b"[1]",
    ],
)
def test_what_is_unusual_is_left_to_orjson(body):
    found = parsed(body)
    assert found == orjson.loads(body)
    # and the next one is read as ever
    assert isinstance(parsed(b'{"features": [[1, 2]]}')["features"], np.ndarray)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"features": [[1, 2]]} 3', b"\xff", b'{"features": [[NaN]]}', b"[" * 3000]
)
def test_what_is_not_json_is_refused(body):
    with pytest.raises(orjson.JSONDecodeError):
        parsed(body)

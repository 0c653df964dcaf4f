"""What ``align front`` says beside its numbers."""

import numpy as np
import pytest

from hyperdpo.alignment.evaluation import AlignmentFront
from hyperdpo.alignment.tables import print_front


def front(losses):
    weights = np.array([[1, 0], [0.5, 0.5], [0, 1]])
    return AlignmentFront(
        ("kind", "short"),
        weights,
        np.ones(3),
        np.array(losses),
        np.full((3, 2), 0.5),
        np.zeros((3, 3)),
        np.array([1.1, 1.1]),
        (1.0, 1.0),
    )


@pytest.mark.parametrize(
    ("losses", "deaf"),
    [
        ([[0.5, 0.7], [0.6, 0.6], [0.7, 0.5]], None),
        ([[0.5, 0.5], [0.6, 0.6], [0.7, 0.5]], "short"),
        ([[0.7, 0.5], [0.6, 0.6], [0.5, 0.7]], "kind, short"),
    ],
)
def test_a_front_whose_ends_are_the_wrong_way_round_is_pointed_out(losses, deaf, capsys):
    print_front(front(losses), "3 groups")
    said = [] if deaf is None else [f"hyperdpo: note: {deaf}: the weight has no effect"]
    assert [line[: len(said[0]) if said else None] for line in capsys.readouterr().err.splitlines()] == said

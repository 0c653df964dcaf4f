"""Settings of LightGBM models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from hyperdpo.errors import InputError, did_you_mean
from hyperdpo.validation import Int, NonNegativeInt, PositiveFloat, PositiveInt, settings

#: Kinds of scorers that have LightGBM models.
WITH_TREES = ("gbdt", "blend")


@settings()
class GbdtConfig:
    """How LightGBM models are trained: those of ``scorer.kind: gbdt`` and ``blend``, and those of a comparison."""

    trees: PositiveInt = 300
    """The most trees; early stopping may end before."""
    learning_rate: PositiveFloat = 0.1
    """Learning rate of a tree."""
    leaves: Annotated[Int, Field(ge=2)] = 31
    """The most leaves of a tree."""
    min_items_in_leaf: PositiveInt = 20
    """The fewest training items in a leaf."""
    patience: NonNegativeInt = 30
    """Trees without a better NDCG of the validation groups (of expected gains: loss) after which training stops; 0:
    never."""
    levels: Annotated[Int, Field(ge=2)] = 31
    """Grades that a scalarised label is cut into."""
    loss: Literal["cross_entropy", "l2"] = "l2"
    """What trees of expected gains minimise. ``l2`` had the better validation front in six of seven trials on
    generated data; its predictions are cut off at 0 and 1."""
    categorical: tuple[str, ...] = ()
    """Features that hold codes of categories: whole numbers of at least 0. Only trees use them; a network does not."""
    monotone: dict[str, Literal[1, -1]] = field(default_factory=dict)
    """Feature -> 1 or -1: no prediction of the trees falls (1) or rises (-1) as the feature rises."""
    threads: NonNegativeInt = 0
    """0 for all cores. The model does not depend on it."""

    def __post_init__(self) -> None:
        if both := sorted(set(self.categorical) & set(self.monotone)):
            raise InputError(f"gbdt: {both[0]!r} is in categorical and in monotone; categories have no order")

    def check_features(self, columns: Sequence[str], source: str) -> None:
        """Refuse names that are no features.

        Args:
            columns: the features.
            source: where they are from, for the message.

        Raises:
            InputError: with the first one.
        """
        for setting in ("categorical", "monotone"):
            for name in getattr(self, setting):
                if name not in columns:
                    raise InputError(f"{source}: gbdt.{setting}: {name!r} is no feature{did_you_mean(name, columns)}")

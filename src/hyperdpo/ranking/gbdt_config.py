"""Settings of LightGBM models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hyperdpo.validation import Int, NonNegativeInt, PositiveFloat, PositiveInt, settings

#: Kinds of scorers that have LightGBM models.
WITH_TREES = ("gbdt", "blend")


@settings()
class GbdtConfig:
    """How LambdaMART is trained: ``lightgbm-ls`` and a LightGBM base."""

    trees: PositiveInt = 300
    """The most trees; early stopping may end before."""
    learning_rate: PositiveFloat = 0.1
    """Learning rate of a tree."""
    leaves: Annotated[Int, Field(ge=2)] = 31
    """The most leaves of a tree."""
    min_items_in_leaf: PositiveInt = 20
    """The fewest training items in a leaf."""
    patience: NonNegativeInt = 30
    """Trees without a better NDCG of the validation groups after which training stops; 0: never."""
    levels: Annotated[Int, Field(ge=2)] = 31
    """Grades that a scalarised label is cut into."""
    threads: NonNegativeInt = 0
    """0 for all cores. The model does not depend on it."""

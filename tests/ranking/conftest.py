"""What the tests of rankers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook


@pytest.fixture
def rates() -> Iterator[list[float]]:
    """The learning rate of each step of any optimizer."""
    found: list[float] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: found.append(optimizer.param_groups[0]["lr"]))
    yield found
    hook.remove()

"""Settings of mixtures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hyperdpo.core.limits import LARGEST_POWER
from hyperdpo.errors import InputError
from hyperdpo.validation import Float, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, settings

Form = Literal["product", "gain"]
#: A share λ of the main label. With 1, no weighting would differ from another.
Share = Annotated[Float, Field(ge=0, lt=1)]
#: A power of a power mean.
Power = Annotated[Float, Field(ge=0, le=LARGEST_POWER)]


@settings()
class MixtureConfig:
    """The closed form.

    With m heads u_j, the scores at w and β minimise the scalarised loss exactly for the targets p_j = softmax(u_j) if
    γ = 0. With smoothing γ > 0 they do so for the smoothed targets p_j = softmax(u_j + β_j γ (u_0 - s_base)), where β_j
    is that of the training. That is exact for these p_j, but no longer the minimiser that starts from the given base.

    Where several numbers are given, the one with the best validation front is taken after the training. The losses do
    not depend on them; while training the one in the middle stands in where the epoch is chosen. The configuration of a
    run keeps them all (``run.json`` says what was chosen). A single number is always kept.
    """

    epochs_factor: PositiveFloat = 0.5
    """A mixture takes so many times the epochs. It samples no weights, and its heads overfit sooner than the models of
    one weighting (validation fronts of 4 to 16 epochs on generated data)."""
    distillation: NonNegativeFloat = 0.1
    """Weight of the loss of one more head, which learns the base's scores; 0: there is none."""
    smoothing: Fraction | tuple[Fraction, ...] = (0.0, 0.5, 1.0)
    """γ. Scores start from (1 - γ) s_base + γ u_0 where u_0 is what that head says. A base fits its own training groups
    better than others, so what can be learned of it may be better than itself. Choosing among several values needs
    validation groups and a main label; otherwise 0 is used. It is also 0 where the base scores tell no items apart."""
    power: Power | tuple[Power, ...] = 1.0
    """ρ of the power mean; 1 is linear scalarisation. Choosing among several values needs validation groups; otherwise
    1 is used if it is one of them, else the first."""
    form: Form | None = None
    """``product``: the base, multiplied by the weighted sum of the targets. ``gain``: the weighted sum of expected
    gains, the main label's among them; β, targets, transforms, distillation, smoothing and power have no effect. null:
    ``gain``, but ``product`` where base scores are given, or a setting of ``product`` is set (β,
    distillation, smoothing, power); ``fit`` says which."""
    main_share: Share | None = None
    """Only form ``gain``: λ, the share of the main label where none is asked for. null: the one with the best
    validation front, or 0.25 without validation groups or main label."""
    members: PositiveInt | None = None
    """Only form ``gain``: networks that are trained side by side, each for the time of one; their mean counts. null: 4
    for up to 10,000 training items, else 2."""
    learned_main: Fraction | tuple[Fraction, ...] = (0.0, 0.5, 1.0)
    """Only form ``gain``: γ. The main label's column is (1 - γ) of the base and γ of what is learned. Choosing among
    several values needs validation groups; otherwise the middle one is used."""

    def __post_init__(self) -> None:
        for name in ("smoothing", "power", "learned_main"):
            if getattr(self, name) == ():
                raise InputError(f"{name} is an empty list; expected at least one number")
        if not self.distillation and any(self.choices("smoothing")):
            object.__setattr__(self, "smoothing", 0.0)  # there is nothing to start from but the base

    def choices(self, name: Literal["smoothing", "power", "learned_main"]) -> tuple[float, ...]:
        """The numbers to choose from."""
        value: float | tuple[float, ...] = getattr(self, name)
        return value if isinstance(value, tuple) else (value,)

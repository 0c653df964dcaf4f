"""The settings of the ``hyperdpo align`` commands. Imports nothing heavy: the help shows their defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hyperdpo.alignment.model_settings import ModelSettings
from hyperdpo.errors import InputError
from hyperdpo.files import read_yaml
from hyperdpo.objectives import Objective
from hyperdpo.options import PreferenceFormat
from hyperdpo.ranking.config import SplitConfig
from hyperdpo.validation import (
    Float,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    checked,
    merged,
    parsed,
    settings,
)

#: The temperature of objectives without one of their own.
BETA = 0.1
#: Seed of a training.
SEED = 42
#: Passes of `align fit` over the training groups.
EPOCHS = 4
#: What `align fit` sets by default, beside the defaults of HyperDPOConfig (the learning rate is there).
TRAINING: dict[str, Any] = {
    "num_train_epochs": EPOCHS,
    "per_device_train_batch_size": 8,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "report_to": [],
}


@settings(kw_only=False)
class ConditioningConfig:
    """A low-rank adapter (LoRA) and a prompt of virtual tokens, each of them a function of w or not.

    The default is portable: at w it is the sum over the objectives j of w_j times one plain LoRA.

    The paper's Hyper Prompt Tuning has ``prompt_tokens=8`` and ``lora_conditioned=False``, and as printed
    ``mask_start="random"``. Plain prompt tuning on top of LoRA, as for the paper's baselines, has ``prompt_tokens=8``
    and both parts not conditioned.
    """

    objectives: tuple[str, ...]
    """Names of the m objectives, in the order of w."""
    prompt_tokens: NonNegativeInt = 0
    """k virtual tokens before the text; 0 for none. The paper has 8. They change what a model says before they have
    learned anything."""
    prompt_start: Literal["bos", "vocabulary"] = "bos"
    """``bos``: the virtual tokens start near the embedding of the token that begins a text, which hardly changes what
    the model says. ``vocabulary``: they start from k different tokens, as PEFT's prompt tuning does."""
    prompt_rank: PositiveInt = 4
    """r of the mask, the product of a (k, r) and an (r, d) matrix. The paper has 4."""
    prompt_hidden: PositiveInt = 64
    """Width of the two small networks that make these matrices."""
    prompt_conditioned: bool = True
    """The virtual tokens are multiplied by the mask; false for plain prompt tuning."""
    mask_start: Literal["one", "random"] = "one"
    """``one``: the mask is 1 + A(w) B(w). ``random``: A(w) B(w), as in the paper."""
    mask_spread: PositiveFloat | None = 1.0
    """Standard deviation of the mask's entries over the vertices of the simplex when training starts. It says how
    strongly the prompt depends on w from the start. null leaves the networks as PyTorch makes them."""
    lora_rank: NonNegativeInt = 8
    """r of the adapter, for each objective if it is conditioned by objective; 0 for none. The paper has 4."""
    lora_alpha: PositiveFloat = 8.0
    """The adapter counts lora_alpha / lora_rank times. The paper has 8."""
    lora_dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Probability that an input of the adapter is dropped."""
    target_modules: tuple[str, ...] | str | None = None
    """Names of the linear layers with an adapter, or ``all-linear``. Default: PEFT's choice for the type of model, or
    all linear layers where it has none. A saved adapter holds the names found."""
    lora_conditioned: bool = True
    """Each of the adapter's r components is multiplied by a number, its gate, that is a function of w; false for plain
    LoRA."""
    lora_components: Literal["objective", "shared"] = "objective"
    """``objective``: a conditioned adapter has r components for each objective, m r in all, as many as m models for one
    objective each have together. ``shared``: r in all."""
    gate_hidden: NonNegativeInt = 0
    """Width of a network that makes the gates, beside their linear part; 0 for a linear part only."""
    gate_start: Literal["objective", "random"] = "objective"
    """``objective``: component i starts with more or less of w_(i mod m) in it. ``random``: a random linear function of
    w."""
    gate_spread: NonNegativeFloat = 1.0
    """Standard deviation, over the vertices, of the gates when training starts. They are 1 on average: with 1 and two
    objectives, an objective's components count twice at its vertex and not at all at the other. The second factor of
    LoRA starts at 0, and so does the influence of w through the gates. The gradients of the components differ by w as
    much as the gates do, from the first step on."""

    def __post_init__(self) -> None:
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise InputError(f"objectives are {list(self.objectives)}; expected at least one, all different")
        if self.prompt_tokens == 0 and self.lora_rank == 0:
            raise InputError("prompt_tokens and lora_rank are both 0; expected one of them to be positive")

    @property
    def rank(self) -> int:
        """Components of the adapter in all."""
        many = self.lora_conditioned and self.lora_components == "objective"
        return self.lora_rank * (len(self.objectives) if many else 1)

    @property
    def is_conditioned(self) -> bool:
        """Whether anything is a function of w."""
        prompt = self.prompt_tokens > 0 and self.prompt_conditioned
        return prompt or (self.lora_rank > 0 and self.lora_conditioned)

    @property
    def not_portable(self) -> str | None:
        """Why the adapter at w is not Σ_j w_j times one plain LoRA for each objective j; None if it is.

        It is that if LoRA is all that is added and its gates are linear in w. Their values at w are then the sum over j
        of w_j times those at the vertex e_j.
        """
        reasons = {
            "lora_rank=0": "without LoRA there is nothing to add up" if not self.lora_rank else None,
            "lora_conditioned=false": "LoRA is the same at every w" if not self.lora_conditioned else None,
            f"prompt_tokens={self.prompt_tokens}": "virtual tokens are no LoRA" if self.prompt_tokens else None,
            f"gate_hidden={self.gate_hidden}": "its network is not linear in w" if self.gate_hidden else None,
        }
        return next((f"conditioning.{name}: {why}" for name, why in reasons.items() if why is not None), None)

    @classmethod
    def portable(cls, objectives: Sequence[str], **settings: Any) -> ConditioningConfig:
        """An adapter that llama.cpp and plain PEFT serve at any w: at w it is Σ_j w_j times one plain LoRA of rank m r.

        The default is one. This refuses settings with which it would not be.

        Args:
            objectives: as the attribute.
            settings: other attributes.

        Raises:
            InputError: a setting with which it would not be portable, or out of its bounds.
        """
        found = cls.from_dict({**settings, "objectives": list(objectives)})
        if found.not_portable is not None:
            raise InputError(f"{found.not_portable}, which a portable adapter cannot have; leave it out")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConditioningConfig:
        """What :meth:`to_dict` gave.

        Raises:
            InputError: an unknown setting, no objectives, or a value out of its bounds.
        """
        return parsed(cls, values, "", "conditioning.")

    @classmethod
    def from_lora_config(cls, lora_config: Any, objectives: Sequence[str], **settings: Any) -> ConditioningConfig:
        """Take the adapter's settings from a ``peft.LoraConfig``.

        Args:
            lora_config: r, lora_alpha, lora_dropout and target_modules are used.
            objectives: as the attribute.
            settings: other attributes.

        Raises:
            InputError: the configuration asks for what gates, merging or an exact average cannot be had with: rsLoRA,
                DoRA, biases, trained copies of modules, ranks by layer, or another start.
        """
        refused = {
            "use_rslora": False,
            "use_dora": False,
            "bias": "none",
            "lora_bias": False,
            "modules_to_save": None,
            "rank_pattern": {},
            "alpha_pattern": {},
            "layers_to_transform": None,
            "layers_pattern": None,
            "exclude_modules": None,
            "trainable_token_indices": None,
            "target_parameters": None,
            "init_lora_weights": True,
        }
        for name, plain in refused.items():
            value = getattr(lora_config, name, plain)
            if value != plain and value:
                raise InputError(f"peft_config: {name} is {value!r}; conditioned LoRA supports {plain!r} only")
        modules = lora_config.target_modules
        found = modules if modules is None or isinstance(modules, str) else tuple(sorted(modules))
        return cls(
            objectives=tuple(objectives),
            lora_rank=lora_config.r,
            lora_alpha=float(lora_config.lora_alpha),
            lora_dropout=float(lora_config.lora_dropout),
            target_modules=found,
            **settings,
        )


@settings()
class AlignSplitConfig(SplitConfig):
    """Parts of the groups for training, validation and test, with defaults for language models."""

    train: Annotated[Float, Field(gt=0, le=1)] = 0.8
    validation: Fraction = 0.0
    test: Fraction = 0.2
    seed: NonNegativeInt | None = None  # type: ignore[assignment]
    """Seed of the split. Default: 0; in a comparison, the first seed."""


@settings()
class ComparisonConfig:
    """What only ``align compare`` uses.

    Each part of a conditioned adapter works at some w only, so it is trained longer and faster; models for one w do not
    get better by more, see docs/alignment.md.
    """

    sampling_factor: PositiveFloat = 4 / 3
    """Conditioned models have so many times the epochs of models for one w."""
    learning_rate_factor: PositiveFloat = 5 / 3
    """Conditioned models have so many times the learning rate of the others."""
    training_precision: bool = False
    """Measure and sample in the precision of the training, such as ``training.bf16``, instead of the model's own: the
    faster one on a CPU that has instructions for bf16."""


@settings()
class TextsConfig:
    """The texts that ``align compare`` samples and scores."""

    prompts: PositiveInt = 160
    """At most so many of the held-out prompts are continued."""
    samples: PositiveInt = 4
    """Continuations of each prompt."""
    tokens: PositiveInt = 48
    """Length of a continuation."""


def _names(value: Any) -> Any:
    """Names as a list, or separated by commas."""
    return value.split(",") if isinstance(value, str) else value or ()


@settings()
class ReadingSettings:
    """How preference data are read."""

    format: PreferenceFormat = "auto"
    """Layout of the data, as ``--format``; ``auto``: by the first row's columns."""
    prompt_column: str | None = None
    """The column that holds the prompt, as ``--prompt-column``. Default: the layout's own, or one of ``prompt``,
    ``question``, ``instruction`` (with ``input``), ``query``."""
    ignore_columns: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Columns that are not looked at, as ``--ignore-columns``."""
    skip_invalid: bool = False
    """Leave out rows that cannot be used, as ``--skip-invalid``, and count them by reason; else the first is
    refused."""

    def __post_init__(self) -> None:
        if self.prompt_column is not None and self.prompt_column in self.ignore_columns:
            raise InputError(f"column {self.prompt_column!r} is both the prompt and ignored; expected one of them")


@settings()
class AlignSettings(ReadingSettings):
    """A configuration of the ``align`` commands: the sections of a file, and ``--set``."""

    model: str | dict[str, str] | None = None
    """The base, where ``--model`` is not given: a directory, a GGUF file or a hub name; also ``{gguf_file: PATH}``."""
    objectives: tuple[Objective, ...] | None = None
    """What is trained for; ``beta`` is ``training.beta`` unless given. Default: all labels of the data."""
    conditioning: dict[str, Any] = Field(default_factory=dict)
    """How the adapter depends on w: the settings of the next table."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Settings of HyperDPOConfig, which has all of ``transformers.TrainingArguments``."""
    model_settings: ModelSettings = ModelSettings()
    """How the base model is loaded, and loaded again with a run: [which size needs what](memory.md)."""
    split: AlignSplitConfig = AlignSplitConfig()
    """How groups are divided where the data do not come in parts."""
    compare: ComparisonConfig = ComparisonConfig()
    """What only ``align compare`` uses."""
    texts: TextsConfig = TextsConfig()
    """The texts that ``align compare`` samples and scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.conditioned(["one"])

    @property
    def beta(self) -> float:
        """The temperature of objectives without one of their own."""
        return float(checked(PositiveFloat, self.training.get("beta", BETA), "training.beta"))

    @property
    def seed(self) -> int | None:
        """Seed of the training, if it was given."""
        found: int | None = checked(NonNegativeInt | None, self.training.get("seed"), "training.seed")
        return found

    def conditioned(self, objectives: Sequence[str]) -> ConditioningConfig:
        """The section ``conditioning``, for these objectives."""
        return ConditioningConfig.from_dict({**self.conditioning, "objectives": objectives})

    def portable(self, objectives: Sequence[str]) -> ConditioningConfig:
        """The section ``conditioning``, for these objectives and ``--portable``.

        Raises:
            InputError: a setting with which the adapter would not be portable.
        """
        try:
            return ConditioningConfig.portable(objectives, **self.conditioning)
        except InputError as error:
            raise InputError(f"--portable: {error}") from None


def settings_of(config_file: Path | None, overrides: Mapping[str, Any]) -> AlignSettings:
    """The settings of a file, under those of the command line.

    Raises:
        InputError: an unknown setting, a wrong type, a value out of bounds.
    """
    values = merged({} if config_file is None else read_yaml(config_file), overrides)
    where = " with ".join([*([str(config_file)] if config_file else []), *(["--set"] if overrides else [])])
    found = parsed(AlignSettings, values, where)
    if found.objectives is None:
        return found
    own = ["beta" in one for one in values["objectives"]]
    objectives = [one if has else replace(one, beta=found.beta) for one, has in zip(found.objectives, own, strict=True)]
    return replace(found, objectives=tuple(objectives))

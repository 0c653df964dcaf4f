"""The settings of a ranking run: dataclasses, and how presets, files and overrides become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hyperdpo.errors import InputError
from hyperdpo.files import read_yaml
from hyperdpo.objectives import Label, Objective
from hyperdpo.ranking.betas import with_beta_of_objectives
from hyperdpo.ranking.gbdt_config import WITH_TREES as WITH_TREES
from hyperdpo.ranking.gbdt_config import GbdtConfig as GbdtConfig
from hyperdpo.ranking.mixture_config import MixtureConfig as MixtureConfig
from hyperdpo.ranking.paper import PAPER
from hyperdpo.ranking.presets import MAIN_LABEL, PRESETS
from hyperdpo.validation import (
    Float,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    merged,
    not_a_setting,
    parsed,
    settings,
)

Parametrization = Literal["scratch", "augmentation", "mixture", "temperature"]


@settings()
class ScorerConfig:
    """The network that scores the items of a group."""

    kind: Literal["transformer", "mlp", "gbdt", "blend"] = "transformer"
    """``transformer`` attends over the list (the paper's); ``mlp`` scores one item at a time. Only with ``mixture.form:
    gain``: ``gbdt``, LightGBM models on raw features; ``blend``, a weighted mean of a transformer and these."""
    width: PositiveInt = 64
    """d, the hidden dimension."""
    layers: PositiveInt = 2
    """Transformer blocks, or hidden layers of the MLP."""
    heads: PositiveInt = 1
    """Attention heads; must divide the width."""
    feedforward: PositiveInt | None = None
    """Hidden dimension of a block's feed-forward part. Default: half the width, which gives the paper's parameter
    count at the paper's sizes."""
    conditioning: Literal["input", "modulation", "head"] = "head"
    """Where w enters a ranker that takes it. ``input``: concatenated to the features (the paper's). ``modulation``:
    there, and as a scale and shift of the features before each block. ``head``: after the blocks only, so that several
    w of a group share them. With four draws ``head`` is as good on validation groups as ``modulation``, in about two
    thirds of the time."""

    def __post_init__(self) -> None:
        if self.feedforward is None:
            object.__setattr__(self, "feedforward", max(self.width // 2, 1))
        if self.width % self.heads:
            raise InputError(f"width {self.width} is not a multiple of heads {self.heads}; change one of them")


@settings()
class TrainingConfig:
    """How a scorer is trained."""

    epochs: PositiveInt = 16
    """The most epochs; early stopping may end before."""
    sampling_factor: PositiveFloat = 1.0
    """Factor of the epochs for a ranker that is trained with sampled weights: every parametrisation but ``mixture``.
    Each epoch shows it a group at few of the weights it has to answer for. ``--paper``: 1.75."""
    batch_items: PositiveInt = 4096
    """Items per batch, padding included. Groups are never cut."""
    min_batches: PositiveInt = 16
    """Small data get smaller batches, so that an epoch has this many."""
    learning_rate: PositiveFloat = 4e-3
    """Learning rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW."""
    warmup: Annotated[Float, Field(ge=0, lt=1)] = 0.1
    """Part of training in which the learning rate rises from 0; it then falls to 0 as a cosine."""
    clip: PositiveFloat = 1.0
    """Largest gradient norm."""
    alpha: PositiveFloat | tuple[PositiveFloat, ...] = 0.5
    """Dirichlet(α) from which w is drawn; one number, or one per objective."""
    weights_per: Literal["group", "batch"] = "group"
    """``group`` draws ``draws`` weightings for each group (better fronts in trials). ``batch`` draws one per batch, as
    in the printed Algorithm 1."""
    vertex_share: Fraction = 0.0
    """Part of the draws that is a vertex of the simplex instead: the ends of the front."""
    stratified: bool = False
    """The draws of a batch cover the simplex evenly (a Latin hypercube over the quantiles). Only with ``weights_per:
    group``."""
    draws: PositiveInt = 4
    """Weightings per group and step. With ``scorer.conditioning: head`` they share the blocks, which 4 suits. With the
    others each draw is a pass of its own: 1 takes a fraction of the time. Only with ``weights_per: group``."""
    penalty: NonNegativeFloat = 0.0
    """λ, the factor of the cosine penalty. Not for a mixture."""
    evaluations: PositiveInt = 8
    """How often, spread over the epochs, the validation front is measured."""
    validation_points: PositiveInt = 4
    """Points of the fixed grid of weights on which it is measured; at least two more than objectives are used, so that
    the grid holds more than the vertices."""
    validation_items: PositiveInt = 10_000
    """The most items on which it is measured, or a tenth of the training items where that is more. Whole groups are
    drawn with the seed. So it costs a few percent of the training."""
    patience: NonNegativeInt = 3
    """Evaluations without a better validation front after which training stops; 0: never."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Mixed precision of the whole run, the base included. ``auto`` is bfloat16 on a GPU that has it, else float32."""
    checkpoint_seconds: NonNegativeFloat = 10.0
    """Least time between checkpoints, which are written at the end of an epoch."""

    def alphas(self, num_objectives: int) -> tuple[float, ...]:
        """α as a vector of m numbers.

        Raises:
            InputError: the vector has another length.
        """
        alphas = self.alpha if isinstance(self.alpha, tuple) else (self.alpha,) * num_objectives
        if len(alphas) != num_objectives:
            raise InputError(f"training.alpha is {self.alpha}; expected {num_objectives} numbers above 0, or one")
        return alphas


@settings()
class SplitConfig:
    """Parts of the groups for training, validation and test, drawn with the seed. They sum to 1."""

    train: Annotated[Float, Field(gt=0, le=1)] = 0.6
    """Part of the groups for training."""
    validation: Fraction = 0.2
    """Part of the groups for validation."""
    test: Fraction = 0.2
    """Part of the groups for the test."""
    seed: NonNegativeInt = 0
    """Seed of the split."""

    def __post_init__(self) -> None:
        if abs(sum(self.parts) - 1) > 1e-6:
            raise InputError(f"the parts are {self.parts}; expected numbers of at least 0 that sum to 1")

    @property
    def parts(self) -> tuple[float, float, float]:
        """Training, validation, test."""
        return self.train, self.validation, self.test


@settings()
class TemperatureConfig:
    """The temperature hypernetwork."""

    low: PositiveFloat | tuple[PositiveFloat, ...] = 0.67
    """The least β of D(β), which is uniform in a box; one number, or one per objective."""
    high: PositiveFloat | tuple[PositiveFloat, ...] = 1.5
    """The largest β of that box; one number, or one per objective."""
    parametrization: Literal["scratch", "augmentation"] = "augmentation"
    """The form of the network that sees w and β/|β|_1: ``augmentation`` (the paper's) or ``scratch``."""

    def box(self, num_objectives: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The least and the largest temperatures, m numbers each.

        Raises:
            InputError: other lengths, or low above high.
        """
        low, high = (
            value if isinstance(value, tuple) else (value,) * num_objectives for value in (self.low, self.high)
        )
        ordered = len(low) == len(high) == num_objectives and all(a <= b for a, b in zip(low, high, strict=True))
        if not ordered:
            raise InputError(
                f"temperatures: low is {self.low} and high {self.high}; expected {num_objectives} numbers each, "
                "or one, with 0 < low <= high"
            )
        return low, high


@settings()
class NdcgSettings:
    """How NDCG is computed. The conventions are not comparable, so the description belongs beside every figure."""

    k: PositiveInt | None = 10
    """Places that count; null for all."""
    gain: Literal["linear", "exponential"] = "linear"
    """``linear`` is z (the paper, scikit-learn, torchmetrics), ``exponential`` is 2^z - 1 (LightGBM, XGBoost, allRank,
    rax)."""
    empty: Literal["skip", "one", "zero"] = "skip"
    """Groups without a positive label: left out of the mean, or counted as 1 (LightGBM, XGBoost, allRank) or as 0
    (TF-Ranking, rax)."""

    def describe(self) -> str:
        """In words, such as "NDCG@10 (linear gain, groups without a positive label: skip)"."""
        name = "NDCG" if self.k is None else f"NDCG@{self.k}"
        return f"{name} ({self.gain} gain, groups without a positive label: {self.empty})"


@settings()
class RankConfig:
    """One ranking run."""

    objectives: tuple[Objective, ...]
    """The m auxiliary objectives."""
    main: Label | None = Label(**MAIN_LABEL)
    """The label that the base ranker is good at; its metric is reported beside the front. null: none."""
    beta: Literal["auto"] | None = None
    """``auto`` divides every objective's β by the standard deviation of the base's scores within training groups, so
    that the width of these scores does not decide how near the ranker stays to them. The run keeps the numbers. Not for
    ``mixture.form: gain`` or a ``temperature`` ranker."""
    parametrization: Parametrization = "mixture"
    """``scratch`` is a network of its own. ``augmentation`` adds to the base score and starts exactly at the base.
    ``mixture`` learns the objectives' targets and answers for any weights and temperatures in closed form.
    ``temperature`` is the temperature hypernetwork."""
    temperatures: TemperatureConfig = TemperatureConfig()
    """Only for a ``temperature`` ranker."""
    mixture: MixtureConfig = MixtureConfig()
    """Only for a ``mixture`` ranker."""
    weight: str | None = None
    """The column with each group's weight: at least 0, and the same on all rows of the group. Losses, trees, and the
    means of all metrics are weighted with it."""
    excluded_columns: tuple[str, ...] = ()
    """Columns that are neither features nor labels of this run."""
    keep_row_numbers: bool = False
    """Keep columns as features that only number the rows, such as an index that a data frame was written with."""
    scorer: ScorerConfig = ScorerConfig()
    """The network of the conditioned ranker."""
    training: TrainingConfig = TrainingConfig()
    """The training of the conditioned ranker."""
    base_scorer: ScorerConfig = ScorerConfig(width=128)
    """The network of the base, where no base scores are given."""
    base_training: TrainingConfig = TrainingConfig(epochs=15, learning_rate=2e-3)
    """The training of the base, where no base scores are given."""
    gbdt: GbdtConfig = GbdtConfig()
    """LightGBM models: the trees of ``scorer.kind: gbdt`` and ``blend``, and those of a comparison."""
    metric: NdcgSettings = NdcgSettings()
    """How every NDCG of the run is computed."""
    split: SplitConfig = SplitConfig()
    """How groups are divided where no files for validation and test are given."""
    qid_column: str = "qid"
    """In Parquet and CSV, the column that names the group."""
    sort: bool = False
    """Bring scattered rows of a group together, as ``--sort``; without it they are refused."""
    features_from_zero: bool = False
    """LETOR text numbers its features from 0, as ``--features-from-zero``."""
    seed: NonNegativeInt = 0
    """Seed of initialisation, order and sampled weights."""
    resident_gib: NonNegativeFloat = 4.0
    """Transformed features up to this size, in GiB, are kept in memory; larger data is streamed from the memory-mapped
    cache."""

    def __post_init__(self) -> None:
        if not self.objectives:
            raise InputError("objectives: found none; expected at least one")
        for name in self.label_names:
            if self.label_names.count(name) > 1:
                raise InputError(f"objectives: the name {name!r} is used more than once (the main label counts too)")
        self.training.alphas(len(self.objectives))
        self.temperatures.box(len(self.objectives))

    def check_trainable(self) -> None:
        """Refuse settings that the parametrisation has no use for. Not with the rest: a comparison replaces some.

        Raises:
            InputError: a penalty, of a mixture; trees, where there are no expected gains.
        """
        has_gains = self.parametrization == "mixture" and self.mixture.form != "product"
        if self.scorer.kind in WITH_TREES and not has_gains:
            raise InputError(f"scorer.kind is {self.scorer.kind}; it needs a mixture with mixture.form gain")
        if self.base_scorer.kind in WITH_TREES:
            raise InputError(f"base_scorer.kind is {self.base_scorer.kind}; expected a network: transformer or mlp")
        if self.mixture.form == "product" and self.mixture.main_share is not None:
            raise InputError("mixture.main_share applies only to mixture.form gain; remove it, or set that form")
        if self.parametrization == "mixture" and self.training.penalty:
            raise InputError(
                f"training.penalty is {self.training.penalty}, but a mixture is trained without weights; expected 0"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives' names, in order."""
        return tuple(o.name for o in self.objectives)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The objectives' names, and the main label's where there is one."""
        return self.names if self.main is None else (*self.names, self.main.name)

    def selecting(self, names: Sequence[str]) -> RankConfig:
        """The same run with some of its objectives, in the order given; the columns of the others stay out of the
        features.

        Raises:
            InputError: a name that is not an objective.
        """
        known = {o.name: o for o in self.objectives}
        for name in names:
            if name not in known:
                raise InputError(f"--objectives: no objective {name!r}; expected some of {', '.join(known)}")
        others = [o for o in self.objectives if o.name not in names]
        left_out = [column for o in others for column in (o.column, o.click_column) if column is not None]
        return replace(
            self,
            objectives=tuple(known[name] for name in names),
            excluded_columns=tuple(dict.fromkeys([*self.excluded_columns, *left_out])),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def build_config(
    *,
    preset: str | None = None,
    config_file: str | Path | None = None,
    objectives: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    paper: bool = False,
) -> RankConfig:
    """The resolved configuration: preset, then file, then the paper's settings, then overrides, then the choice of
    objectives.

    Without preset and file, ``objectives`` are column names with the default label settings.

    Args:
        overrides: nested settings, as in a file.
        paper: with :data:`~hyperdpo.ranking.paper.PAPER`.

    Raises:
        InputError: an unknown preset, a file that cannot be read, an unknown or invalid setting.
    """
    values: dict[str, Any] = {}
    where = "configuration"
    if preset is not None:
        if preset not in PRESETS:
            raise InputError(f"--preset: no preset {preset!r}; expected one of {', '.join(PRESETS)}")
        values, where = merged(values, PRESETS[preset]), f"preset {preset}"
    if config_file is not None:
        named = read_yaml(config_file)
        if preset is not None and "objectives" in named:
            raise InputError(
                f"--preset {preset} and --config {config_file} both name objectives; drop --preset, "
                "or take the objectives out of the file"
            )
        values, where = merged(values, named), str(config_file)
    if paper:
        if (overrides or {}).get("parametrization") == "mixture":
            raise InputError(
                "--paper and the parametrization mixture: a mixture is trained without weights, so it has no use for "
                "the paper's setting; drop one of the two"
            )
        values = merged(values, PAPER)
    if overrides:
        values, where = merged(values, overrides), f"{where} with --set" if where != "configuration" else "--set"
    if "objectives" not in values:
        if not objectives:
            for name in values:
                if name not in {one.name for one in fields(RankConfig)}:  # the misspelt one may be what is missing
                    raise not_a_setting(f"{where}: ", name, RankConfig)
            raise InputError("no objectives; expected --objectives, --preset or a --config that names them")
        values["objectives"] = [{"name": name} for name in objectives]
    if isinstance(values.get("main"), Mapping) and "name" not in values["main"]:
        values["main"] = MAIN_LABEL | values["main"]
    if not objectives:
        return parse_config(values, where)
    # A vector α has one number per chosen objective, so it waits until they are chosen.
    training = values.get("training")
    if not isinstance(training, Mapping) or "alpha" not in training:
        return parse_config(values, where).selecting(objectives)
    values["training"] = {key: value for key, value in training.items() if key != "alpha"}
    config = parse_config(values, where).selecting(objectives)
    return parse_config(merged(config.to_dict(), {"training": {"alpha": training["alpha"]}}), where)


def parse_config(values: Mapping[str, Any], where: str) -> RankConfig:
    """A configuration from plain values (YAML, JSON).

    Raises:
        InputError: an unknown key, a wrong type, a value out of bounds.
    """
    return parsed(RankConfig, with_beta_of_objectives(values, where), where)


def with_overrides(config: RankConfig, overrides: Mapping[str, Any]) -> RankConfig:
    """The configuration with some (nested) settings replaced.

    Raises:
        InputError: as :func:`parse_config`.
    """
    return parse_config(merged(config.to_dict(), overrides), "settings") if overrides else config

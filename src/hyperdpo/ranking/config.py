"""Everything a ranking run is made from: frozen dataclasses, presets, and YAML files."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from hyperdpo.core.mixture import LARGEST_POWER
from hyperdpo.data.groups import RELEVANCE
from hyperdpo.errors import InputError
from hyperdpo.files import read_yaml
from hyperdpo.objectives import STRICT, Label, Objective
from hyperdpo.ranking.metrics import NdcgSettings
from hyperdpo.ranking.paper import PAPER
from hyperdpo.validation import not_a_setting, refusal

Parametrization = Literal["scratch", "augmentation", "mixture", "temperature"]
PARAMETRIZATIONS: tuple[str, ...] = get_args(Parametrization)


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """The network that scores the items of a group.

    Attributes:
        kind: ``transformer`` attends over the list (the paper's); ``mlp`` scores one item at a time.
        width: d, the hidden dimension.
        layers: transformer blocks, or hidden layers of the MLP.
        heads: attention heads; must divide the width.
        feedforward: hidden dimension of a block's feed-forward part; half the width if left out, which
            gives the paper's parameter count at the paper's sizes.
        conditioning: where w enters a ranker that takes it: ``input``, concatenated to the features (the paper's);
            ``modulation``, there and as a scale and shift of the features before each block; ``head``, after the
            blocks only, so that several w of a group share them: with four draws as good on validation groups as
            modulation, in about two thirds of the time.
    """

    __pydantic_config__ = STRICT

    kind: Literal["transformer", "mlp"] = "transformer"
    width: int = 64
    layers: int = 2
    heads: int = 1
    feedforward: int | None = None
    conditioning: Literal["input", "modulation", "head"] = "head"

    def __post_init__(self) -> None:
        _at_least("scorer", self, width=1, layers=1, heads=1)
        if self.feedforward is None:
            object.__setattr__(self, "feedforward", max(self.width // 2, 1))
        _at_least("scorer", self, feedforward=1)
        if self.width % self.heads:
            raise InputError(f"scorer: width {self.width} is not a multiple of heads {self.heads}")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a scorer is trained.

    Attributes:
        epochs: the most epochs; early stopping may end before.
        sampling_factor: a ranker that is trained with sampled weights (every parametrisation but ``mixture``) takes so
            many times the epochs: each of them shows it a group at few of the weights it has to answer for.
        batch_items: token budget: items per batch, padding included. Groups are never cut.
        min_batches: small data: the budget shrinks until an epoch has this many batches.
        learning_rate, weight_decay: of AdamW.
        warmup: the part of training in which the learning rate rises from 0; it then falls to 0 as a cosine.
        clip: largest gradient norm.
        alpha: Dirichlet(α) from which w is drawn; one number, or one per objective.
        weights_per: ``group`` draws one w per group (better fronts in trials), ``batch`` one per batch, as printed
            in Algorithm 1.
        vertex_share: part of the draws that is a vertex of the simplex instead: the ends of the front.
        stratified: the draws of a batch cover the simplex evenly (a Latin hypercube over the quantiles).
        draws: weightings per group and step, where they are drawn per group; with ``conditioning: head`` they share
            the blocks, which 4 suits. With the others each draw is a pass of its own: 1 takes a fraction of the time.
        penalty: λ, the factor of the cosine penalty.
        evaluations: how often, spread over the epochs, the validation front is measured.
        validation_points: points of the fixed grid of weights on which it is measured (at least two more than
            objectives, so that the grid holds more than the vertices).
        validation_items: it is measured on at most so many items, or a tenth of the training items where that is
            more, in whole groups drawn with the seed; so it costs a few percent of the training.
        patience: evaluations without a better validation front after which training stops; 0: never.
        precision: ``auto`` is bfloat16 on a GPU that has it, else float32.
        checkpoint_seconds: least time between checkpoints, which are written at the end of an epoch.
    """

    __pydantic_config__ = STRICT

    epochs: int = 16
    sampling_factor: float = 1.0
    batch_items: int = 4096
    min_batches: int = 16
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    alpha: float | tuple[float, ...] = 0.5
    weights_per: Literal["group", "batch"] = "group"
    vertex_share: float = 0.0
    stratified: bool = False
    draws: int = 4
    penalty: float = 0.0
    evaluations: int = 8
    validation_points: int = 4
    validation_items: int = 10_000
    patience: int = 3
    precision: Literal["auto", "no", "bf16"] = "auto"
    checkpoint_seconds: float = 10.0

    def __post_init__(self) -> None:
        _at_least("training", self, epochs=1, batch_items=1, min_batches=1, evaluations=1, validation_points=1)
        _at_least("training", self, validation_items=1, draws=1, vertex_share=0)
        _at_least("training", self, weight_decay=0, warmup=0, penalty=0, patience=0, checkpoint_seconds=0)
        for name in ("learning_rate", "clip", "sampling_factor"):
            if not getattr(self, name) > 0:
                raise InputError(f"training: {name} is {getattr(self, name)}; expected a number above 0")
        if self.vertex_share > 1:
            raise InputError(f"training: vertex_share is {self.vertex_share}; expected a part of the draws, at most 1")
        if self.warmup >= 1:
            raise InputError(f"training: warmup is {self.warmup}; expected a part of training below 1")

    def alphas(self, num_objectives: int) -> tuple[float, ...]:
        """α as a vector of m numbers.

        Raises:
            InputError: the vector has another length, or a number that is not positive.
        """
        alphas = (self.alpha,) * num_objectives if isinstance(self.alpha, int | float) else tuple(self.alpha)
        if len(alphas) != num_objectives or not all(a > 0 for a in alphas):
            raise InputError(f"training: alpha is {self.alpha}; expected {num_objectives} numbers above 0, or one")
        return alphas


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Parts of the groups for training, validation and test, drawn with the seed."""

    __pydantic_config__ = STRICT

    train: float = 0.6
    validation: float = 0.2
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least("split", self, seed=0)
        parts = (self.train, self.validation, self.test)
        if min(parts) < 0 or self.train <= 0 or abs(sum(parts) - 1) > 1e-6:
            raise InputError(f"split: the parts are {parts}; expected numbers of at least 0 that sum to 1")


@dataclass(frozen=True, kw_only=True)
class TemperatureConfig:
    """The temperature hypernetwork, Eq. (20).

    Attributes:
        low, high: D(β), uniform in this box; one number, or one per objective.
        parametrization: of the network that sees w and β/|β|_1: ``augmentation`` (the paper's) or ``scratch``.
    """

    __pydantic_config__ = STRICT

    low: float | tuple[float, ...] = 0.67
    high: float | tuple[float, ...] = 1.5
    parametrization: Literal["scratch", "augmentation"] = "augmentation"

    def box(self, num_objectives: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The least and the largest temperatures, m numbers each.

        Raises:
            InputError: other lengths, or not 0 < low <= high.
        """
        low, high = (
            (value,) * num_objectives if isinstance(value, int | float) else tuple(value)
            for value in (self.low, self.high)
        )
        ordered = len(low) == len(high) == num_objectives and all(0 < a <= b for a, b in zip(low, high, strict=True))
        if not ordered:
            raise InputError(
                f"temperatures: low is {self.low} and high {self.high}; expected {num_objectives} numbers each, "
                "or one, with 0 < low <= high"
            )
        return low, high


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """The closed form.

    With m heads u_j, the scores at w and β minimise the scalarised loss exactly for the targets p_j = softmax(u_j) if
    γ = 0. With smoothing γ > 0 they do so for the smoothed targets p_j = softmax(u_j + β_j γ (u_0 - s_base)), β_j being
    that of the training: exact for these p_j, but no longer the minimiser that starts from the given base.

    Where several numbers are given, the one with the best validation front is taken after the training. The losses do
    not depend on them; while training the one in the middle stands in where the epoch is chosen. The configuration of a
    run keeps them all (``run.json`` says what was chosen). A single number is always kept.

    Attributes:
        epochs_factor: a mixture takes so many times the epochs. It samples no weights, and its heads overfit sooner
            than the models of one weighting (validation fronts of 4 to 16 epochs on generated data).
        distillation: weight of the loss of one more head, which learns the base's scores; 0: there is none.
        smoothing: γ from 0 to 1. Scores start from (1 - γ) s_base + γ u_0 where u_0 is what that head says. A base
            fits its own training groups better than others, so what can be learned of it may be better than itself.
            Choosing among several values needs validation groups and a main label; otherwise 0 is used. It is also 0
            where the base scores tell no items apart.
        power: ρ of the power mean, at most 4; 1 is linear scalarisation. Choosing among several values needs validation
            groups; otherwise 1 is used if it is one of them, else the first.
    """

    __pydantic_config__ = STRICT

    epochs_factor: float = 0.5
    distillation: float = 0.1
    smoothing: float | tuple[float, ...] = (0.0, 0.5, 1.0)
    power: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        _at_least("mixture", self, distillation=0)
        if not self.epochs_factor > 0:
            raise InputError(f"mixture: epochs_factor is {self.epochs_factor}; expected a number above 0")
        for name, values, high in (
            ("smoothing", self.choices("smoothing"), 1.0),
            ("power", self.choices("power"), LARGEST_POWER),
        ):
            if not values or not all(0 <= v <= high for v in values):
                raise InputError(f"mixture: {name} is {getattr(self, name)}; expected numbers from 0 to {high:g}")
        if not self.distillation and any(self.choices("smoothing")):
            object.__setattr__(self, "smoothing", 0.0)  # there is nothing to start from but the base

    def choices(self, name: Literal["smoothing", "power"]) -> tuple[float, ...]:
        """The numbers to choose from."""
        value = getattr(self, name)
        return (float(value),) if isinstance(value, int | float) else tuple(map(float, value))


@dataclass(frozen=True, kw_only=True)
class GbdtConfig:
    """How LambdaMART is trained: ``lightgbm-ls`` and a LightGBM base.

    Attributes:
        trees: the most trees; early stopping may end before.
        learning_rate: of a tree.
        leaves: the most leaves of a tree.
        min_items_in_leaf: the fewest training items in a leaf.
        patience: trees without a better NDCG of the validation groups after which training stops; 0: never.
        levels: grades that a scalarised label is cut into.
        threads: 0 for all cores. The model does not depend on it.
    """

    __pydantic_config__ = STRICT

    trees: int = 300
    learning_rate: float = 0.1
    leaves: int = 31
    min_items_in_leaf: int = 20
    patience: int = 30
    levels: int = 31
    threads: int = 0

    def __post_init__(self) -> None:
        _at_least("gbdt", self, trees=1, leaves=2, min_items_in_leaf=1, patience=0, levels=2, threads=0)
        if not self.learning_rate > 0:
            raise InputError(f"gbdt: learning_rate is {self.learning_rate}; expected a number above 0")


def _base_scorer() -> ScorerConfig:
    return ScorerConfig(width=128)


def _base_training() -> TrainingConfig:
    return TrainingConfig(epochs=15, learning_rate=2e-3)


#: The main label, unless a configuration names another. Grades are taken as they are.
_MAIN = {"name": RELEVANCE, "target": "softmax", "transform": "none"}


def _main_label() -> Label:
    return Label(**_MAIN)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """One ranking run.

    Attributes:
        objectives: the m auxiliary objectives.
        main: the label that the base ranker is good at; its metric is reported beside the front.
        parametrization: ``scratch`` is a network of its own; ``augmentation`` adds to the base score and starts
            exactly at the base; ``mixture`` learns the objectives' targets and answers for any weights and
            temperatures in closed form (see :class:`MixtureConfig`); ``temperature`` is the temperature
            hypernetwork.
        temperatures: of a ``temperature`` ranker.
        mixture: of a ``mixture`` ranker.
        excluded_columns: columns that are neither features nor labels of this run.
        keep_row_numbers: keep columns as features that only number the rows, such as an index that a data frame was
            written with.
        scorer, training: of the conditioned ranker.
        base_scorer, base_training: of the base, where no base scores are given.
        gbdt: of the LightGBM models of a comparison.
        metric: how every NDCG of the run is computed.
        split: how groups are divided where no files for validation and test are given.
        qid_column: in Parquet and CSV, the column that names the group.
        sort: bring scattered rows of a group together; without it they are refused.
        features_from_zero: LETOR text numbers its features from 0.
        seed: of initialisation, order and sampled weights.
        resident_gib: transformed features up to this size are kept in memory; larger data is streamed from the
            memory-mapped cache.
    """

    __pydantic_config__ = STRICT

    objectives: tuple[Objective, ...]
    main: Label | None = field(default_factory=_main_label)
    parametrization: Parametrization = "mixture"
    temperatures: TemperatureConfig = field(default_factory=TemperatureConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    excluded_columns: tuple[str, ...] = ()
    keep_row_numbers: bool = False
    scorer: ScorerConfig = field(default_factory=ScorerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    base_scorer: ScorerConfig = field(default_factory=_base_scorer)
    base_training: TrainingConfig = field(default_factory=_base_training)
    gbdt: GbdtConfig = field(default_factory=GbdtConfig)
    metric: NdcgSettings = field(default_factory=NdcgSettings)
    split: SplitConfig = field(default_factory=SplitConfig)
    qid_column: str = "qid"
    sort: bool = False
    features_from_zero: bool = False
    seed: int = 0
    resident_gib: float = 4.0

    def __post_init__(self) -> None:
        _at_least("configuration", self, seed=0)
        if not self.objectives:
            raise InputError("objectives: found none; expected at least one")
        names = [*self.names, *(() if self.main is None else (self.main.name,))]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"objectives: the name {name!r} is used more than once (the main label counts too)")
        self.training.alphas(len(self.objectives))
        self.temperatures.box(len(self.objectives))

    def check_trainable(self) -> None:
        """Refuse settings that the parametrisation has no use for. Not with the rest: a comparison replaces some.

        Raises:
            InputError: a penalty, of a mixture.
        """
        if self.parametrization == "mixture" and self.training.penalty:
            raise InputError(
                f"training: penalty is {self.training.penalty}, but a mixture is trained without weights; expected 0"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives' names, in order."""
        return tuple(o.name for o in self.objectives)

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
        left_out = [o.column for o in self.objectives if o.name not in names]
        return replace(
            self,
            objectives=tuple(known[name] for name in names),
            excluded_columns=tuple(dict.fromkeys([*self.excluded_columns, *left_out])),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def _mslr(quality: Mapping[str, Any]) -> dict[str, Any]:
    # The paper's objectives I to V are MSLR features 134, 135, 136, 132, 133; m = 5 leaves relevance out.
    sparse = {"target": "l1", "transform": "none"}
    return {
        "objectives": [
            {"name": "query_url_clicks", "column": "134", **sparse},
            {"name": "url_clicks", "column": "135", **sparse},
            {"name": "url_dwell_time", "column": "136", **sparse},
            {"name": "quality", "column": "132", **quality},
            {"name": "quality2", "column": "133", **quality},
        ],
        "main": {**_MAIN, "column": RELEVANCE},
    }


_DENSE = {"target": "softmax", "transform": "standardize"}
PRESETS: dict[str, dict[str, Any]] = {
    "mslr": _mslr(_DENSE),
    # 255 - value: the quality scores as a cost, conflicting more with clicks.
    "mslr_inverted_quality": _mslr({**_DENSE, "direction": "minimize", "flip_at": 255.0}),
}


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
    settings: dict[str, Any] = {}
    where = "configuration"
    if preset is not None:
        if preset not in PRESETS:
            raise InputError(f"--preset: no preset {preset!r}; expected one of {', '.join(PRESETS)}")
        settings, where = merged(settings, PRESETS[preset]), f"preset {preset}"
    if config_file is not None:
        named = read_yaml(config_file)
        if preset is not None and "objectives" in named:
            raise InputError(
                f"--preset {preset} and --config {config_file} both name objectives; drop --preset, "
                "or take the objectives out of the file"
            )
        settings, where = merged(settings, named), str(config_file)
    if paper:
        if (overrides or {}).get("parametrization") == "mixture":
            raise InputError(
                "--paper and the parametrization mixture: a mixture is trained without weights, so it has no use for "
                "the paper's setting; drop one of the two"
            )
        settings = merged(settings, PAPER)
    if overrides:
        settings, where = merged(settings, overrides), f"{where} with --set" if where != "configuration" else "--set"
    if "objectives" not in settings:
        if not objectives:
            for name in settings:
                if name not in {one.name for one in fields(RankConfig)}:  # the misspelt one may be what is missing
                    raise not_a_setting(where, name, RankConfig)
            raise InputError("no objectives; expected --objectives, --preset or a --config that names them")
        settings["objectives"] = [{"name": name} for name in objectives]
    if isinstance(settings.get("main"), Mapping) and "name" not in settings["main"]:
        settings["main"] = _MAIN | settings["main"]
    if not objectives:
        return parse_config(settings, where)
    # A vector α has one number per chosen objective, so it waits until they are chosen.
    training = settings.get("training")
    if not isinstance(training, Mapping) or "alpha" not in training:
        return parse_config(settings, where).selecting(objectives)
    settings["training"] = {key: value for key, value in training.items() if key != "alpha"}
    config = parse_config(settings, where).selecting(objectives)
    return parse_config(merged(config.to_dict(), {"training": {"alpha": training["alpha"]}}), where)


def parse_config(settings: Mapping[str, Any], where: str) -> RankConfig:
    """A configuration from plain values (YAML, JSON).

    Raises:
        InputError: an unknown key, a wrong type, a value out of range.
    """
    from pydantic import ValidationError

    if not isinstance(settings, Mapping):
        raise InputError(f"{where}: found {type(settings).__name__}; expected settings")
    try:
        return _adapter().validate_python(dict(settings))
    except ValidationError as error:
        raise refusal(error, where, RankConfig) from None


def with_overrides(config: RankConfig, overrides: Mapping[str, Any]) -> RankConfig:
    """The configuration with some (nested) settings replaced.

    Raises:
        InputError: as :func:`parse_config`.
    """
    return parse_config(merged(config.to_dict(), overrides), "settings") if overrides else config


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(RankConfig)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``: mappings are merged, anything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def _at_least(where: str, config: Any, **least: float) -> None:
    known = {f.name for f in fields(config)}
    for name, bound in least.items():
        assert name in known
        value = getattr(config, name)
        if not value >= bound:
            raise InputError(f"{where}: {name} is {value}; expected at least {bound}")

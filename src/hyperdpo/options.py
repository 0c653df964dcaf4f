"""What options of the command line are read with: names, numbers, settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, get_args

import click

from hyperdpo.errors import InputError, brief, one_line
from hyperdpo.files import LARGEST, NO_YAML, parse_yaml

PATH = click.Path(path_type=Path)


class _Whole(click.types.IntParamType):
    """An integer that fits into 64 bits: libraries fail in ways of their own where one does not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and len(value.strip()) > len(str(-LARGEST)):
            self.fail(f"found {brief(value, 30)}; expected an integer of 64 bits", param, ctx)
        number = int(super().convert(value, param, ctx))
        if abs(number) > LARGEST:
            self.fail(f"found {number}; expected an integer of 64 bits", param, ctx)
        return number


class WholeRange(click.IntRange, _Whole):
    """An integer with bounds, of at most 64 bits."""


WHOLE = _Whole()


def names_of(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("expected names separated by commas, such as clicks,quality")
    return names


def numbers_of(_: click.Context, parameter: click.Parameter, value: str | None) -> list[float] | None:
    if value is None:
        return None
    try:
        return [float(number) for number in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"found {value!r}; expected numbers separated by commas, such as .3,.7") from None


def overrides_of(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    """``a.b=value`` settings as nested values; a value is read as YAML."""
    import yaml

    result: dict[str, Any] = {}
    for setting in value:
        key, equals, text = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise InputError(f"--set: found {setting!r}; expected KEY=VALUE, such as training.epochs=20")
        place = result
        *parents, last = key.split(".")
        if any(part.isdigit() for part in (*parents, last)):
            raise InputError(
                f"--set: {key} names a place in a list, which --set cannot change; set lists in the file of --config"
            )
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"--set: {key} lies inside a setting that was given a value")
        try:
            place[last] = _number_or(parse_yaml(text))
        except (yaml.YAMLError, *NO_YAML) as error:
            reason = one_line(getattr(error, "problem", None) or error)
            raise InputError(f"--set: {key} is {brief(text)}; expected a YAML value ({reason})") from None
    return result


def _number_or(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; here it is a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


class _Setting(click.Option):
    """An option whose help looks up its default where the setting is defined."""

    def __init__(self, *names: Any, of: str, **more: Any):
        super().__init__(*names, **more)
        self.of = of

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        module, _, path = self.of.partition(":")
        default = attrgetter(path)(import_module(f"hyperdpo.{module}"))
        record = super().get_help_record(context)
        return record and (record[0], f"{record[1]}  [default: {default}]")


def setting(name: str, kind: Any, of: str, help: str) -> Callable[..., Any]:
    """An option that stands for a setting; it is None where it is not given.

    Args:
        of: the setting whose default the help shows, such as ``ranking.config:TrainingConfig.precision``.
    """
    return click.option(name, type=kind, cls=_Setting, of=of, help=help)


def settings_option(help: str) -> Callable[..., Any]:
    """``--set``: the settings that a command is given by their names, as ``overrides``."""
    return click.option("--set", "overrides", multiple=True, callback=overrides_of, metavar="KEY=VALUE", help=help)


def take_settings(options: dict[str, Any], own: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Take ``overrides`` out of a command's options, and the options that are settings, and put them together.

    Args:
        own: option: the settings that it gives a value to, as ``section.setting``.

    Raises:
        InputError: ``--set`` gives one of them another value.
    """
    overrides: dict[str, Any] = options.pop("overrides")
    for option, settings in own.items():
        value = options.pop(option)
        if value is None or value is False:  # not given
            continue
        for setting in settings:
            *sections, name = setting.split(".")
            place = overrides
            for section in sections:
                place = place.setdefault(section, {})
                if not isinstance(place, dict):
                    break  # no settings: refused where they are read
            else:
                if place.get(name, value) != value:
                    said = "--" + option.replace("_", "-") + ("" if value is True else f" {value}")
                    raise InputError(
                        f"{said} and --set {setting}={place[name]} say different things; drop one of the two"
                    )
                place[name] = value
    return overrides


#: Layouts of preference data, as :mod:`hyperdpo.alignment.data.formats` has them.
PreferenceFormat = Literal[
    "auto", "groups", "scores", "pku", "helpsteer3", "helpsteer2", "pairs", "ultrafeedback", "helpsteer"
]
PREFERENCE_FORMATS: tuple[str, ...] = get_args(PreferenceFormat)


def reading_options(before: str = "") -> tuple[Callable[..., Any], ...]:
    """How commands read preference data, beside ``--format``.

    Args:
        before: stands before each option's help.
    """
    prompt, ignored, skipped = (
        before + text if before else text[0].upper() + text[1:]
        for text in (
            "the column of DATA that holds the prompt.",
            "columns of DATA that are not looked at.",
            "leave out rows that cannot be used and count them by reason; else the first is refused.",
        )
    )
    return (
        click.option("--prompt-column", metavar="NAME", help=prompt),
        click.option("--ignore-columns", callback=names_of, metavar="A,B", help=ignored),
        click.option("--skip-invalid", is_flag=True, help=skipped),
    )


def add_options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds options to a command, in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def table_options(before: str = "") -> tuple[Callable[..., Any], ...]:
    """How a ranker's data are read.

    Args:
        before: stands before each option's help.
    """
    return (
        click.option(
            "--sort",
            is_flag=True,
            help=f"{before}Bring rows of one query together that stand apart in DATA; else they are refused.",
        ),
        click.option(
            "--features-from-zero",
            is_flag=True,
            help=f"{before}LETOR text numbers its features from 0.",
        ),
    )


def run_data_options(purpose: str, share: str = "the run's") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What commands take that look at labelled data with a run of either kind.

    Args:
        purpose: what the groups are for, after "Groups to".
        share: what the main label's share is where it is not given.
    """
    options = (
        click.option(
            "--split",
            type=click.Choice(["auto", "all", "train", "validation", "test"]),
            default="auto",
            show_default=True,
            help=f"Groups to {purpose}. auto: the validation groups of the training data (else its test groups), all "
            "groups of other data.",
        ),
        click.option(
            "--base-scores", metavar="COLUMN|FILE", help="For a ranker on given scores: a column, or one per row."
        ),
        click.option(
            "--main-share",
            type=float,
            metavar="L",
            help=f"For a ranker of mixture.form gain: λ, the main label's share.  [default: {share}]",
        ),
        click.option(
            "--format",
            type=click.Choice(PREFERENCE_FORMATS),
            default="auto",
            help="For a language model: of DATA.",
        ),
        *table_options("For a ranker: "),
        *reading_options("For a language model: "),
        click.option("--model", help="For a language model: the base, instead of the one the run was trained on."),
    )

    return add_options(*options)


def beta_option(help: str) -> Callable[..., Any]:
    """A ranker's β, one per objective, as ``temperatures``; the older name is kept."""
    return click.option("--beta", "--temperature", "temperatures", callback=numbers_of, metavar="B,B", help=help)


def scorer_option(unless: str) -> Callable[..., Any]:
    """``--scorer``, which may be given several times, as ``scorers``.

    Args:
        unless: what is done where none is given.
    """
    return click.option(
        "--scorer",
        "scorers",
        multiple=True,
        metavar="NAME",
        help="Scores texts: sentiment, plain_words, relevance, length, brevity or a text measure; "
        "package.module:function, from prompts and texts to (N, m) numbers; classifiers:PATH,PATH. A,B=NAME names "
        f"its objectives. May be given several times.  [default: {unless}]",
    )


cpu_option = click.option("--cpu", is_flag=True, help="Do not use a GPU.")


def ranker_data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command takes that reads a ranker's data."""
    options = (
        click.option("--preset", help="Label columns of a known data set: mslr, mslr_clicks or mslr_inverted_quality."),
        click.option("--config", "config_file", type=PATH, help="YAML file; see docs/settings.md."),
        click.option("--objectives", callback=names_of, metavar="A,B", help="Only these objectives, in this order."),
        click.option(
            "--base-scores",
            metavar="COLUMN|FILE",
            help="Scores of your own ranker: a column, or a file with one per row.",
        ),
        *table_options(),
        cpu_option,
    )
    return add_options(*options)(command)

"""The table that ``choose`` prints."""

from __future__ import annotations

import math

from rich.table import Table

from hyperdpo.alignment.gguf_models import base_note
from hyperdpo.choosing.bootstrap import FEWEST_GROUPS
from hyperdpo.choosing.choice import Choice, Verdict
from hyperdpo.choosing.prices import Slope
from hyperdpo.choosing.search import WEIGHT_PARTS
from hyperdpo.printing import console, four_digits


def print_choice(choice: Choice) -> None:
    """Metrics with intervals, requirements with verdicts and prices, and how to use the point."""
    terminal = console(140)
    level = (
        f"{choice.confidence:.0%}" if round(choice.confidence, 2) == choice.confidence else f"{choice.confidence:.3g}"
    )
    same = choice.reported_on == choice.chosen_on
    note = base_note(choice.details.get("gguf_origin"))
    title = f"{choice.reported_on['description']}: {choice.reported_on['groups']}{note}"
    table = Table(title=title, title_justify="left")
    headings = ["", "base", "chosen", f"{level} interval", "required", f"{level} bound", f"holds at {level}"]
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    if not same:
        table.add_column("where chosen", justify="right")
    by_name: dict[str, list[Verdict]] = {}
    for one in choice.requirements:
        by_name.setdefault(one.requirement.name, []).append(one)
    for name, metric in choice.metrics.items():
        marked = f"{name} ({'max' if choice.maximize else 'min'})" if name == choice.goal else name
        rows: list[Verdict | None] = [*by_name[name]] if name in by_name else [None]
        for verdict in rows:
            cells = [marked, f"{metric.base:.4f}", f"{metric.value:.4f}", f"{metric.low:.4f} to {metric.high:.4f}"]
            if verdict is None:
                cells += ["", "", ""]
            else:
                cells += [
                    f"{verdict.requirement.sense} {verdict.requirement.threshold:g}",
                    "-" if verdict.bound is None else f"{verdict.bound:.4f}",
                    f"{_word(verdict.holds)} ({_percent(verdict.share)})",
                ]
            if not same:
                value = choice.chosen_on["metrics"].get(name)
                cells.append("-" if value is None else f"{value:.4f}")
            table.add_row(*cells)
    terminal.print(table)

    def say(line: str) -> None:
        terminal.print(line, highlight=False, markup=False, soft_wrap=True)

    weights = ", ".join(f"{name} {w:g}" for name, w in choice.weights.items())
    line = f"weights: {weights}; scale {choice.scale:g}"
    line += "" if choice.main_share is None else f"; main share {choice.main_share:g}"
    if choice.temperatures_searched:
        line += f"; temperatures {', '.join(f'{b:g}' for b in choice.temperatures.values())}"
    say(line)
    if len(set(choice.temperatures.values())) > 1 and choice.temperatures_searched and not choice.temperatures_trained:
        say("at different temperatures the point can be served, not exported: --fixed-temperatures finds one that can")
    if choice.best_of_all_weights:
        alike = "scale" if choice.main_share is None else "main share and scale"
        say(f"best of all weights in steps of 1/{WEIGHT_PARTS:,} at this {alike}")
    if choice.scale_at_end:
        say("the scale lies at an end of the grid: --scales can reach further")
    kind = "the run was trained on" if choice.temperatures_trained else "is searched"
    for name in choice.temperatures_at_end:
        low, high = choice.temperature_ends[name]
        at = f"the temperature of {name}, {choice.temperatures[name]:g}, lies at an end"
        say(f"{at} of what {kind}: {low:g} to {high:g}")
    where = "" if same else f" on the groups it was chosen on ({choice.chosen_on['description']})"
    if not choice.met:
        how = f" with {level} confidence" if choice.certain else ""
        say(f"the requirements cannot all be met{how}{where}; this is the nearest point. What can be:")
        for verdict in choice.requirements:
            say(f"  {verdict.requirement}: {_attainable(verdict, choice, level)}")
    else:
        for verdict in choice.requirements:
            say(_prices(verdict, choice, level))
    if choice.requirements:
        say(_joint(choice, level))
    if same:
        say("chosen and judged on the same groups, which flatters: --holdout judges on others")
    if choice.details.get("command"):
        say(choice.details["command"])
    if choice.details.get("python"):
        say(choice.details["python"])


def _attainable(verdict: Verdict, choice: Choice, level: str) -> str:
    others = " while the others are met" if len(choice.requirements) > 1 else ""
    if verdict.attainable is None:
        return "no point meets the others" if others else "too few groups have it for a bound"
    most = "at most" if verdict.requirement.sense == ">=" else "at least"
    bound = f" ({level} bound)" if choice.certain else ""
    return f"{verdict.requirement.name} is {most} {verdict.attainable:.4f}{bound}{others}"


def _word(holds: bool | None) -> str:
    return "too few groups" if holds is None else "yes" if holds else "no"


def _percent(share: float) -> str:
    """Rounded down, so that 94.96% does not read as 95%."""
    return f"{math.floor(share * 1000 + 1e-9) / 10:.1f}%"


def _joint(choice: Choice, level: str) -> str:
    """The verdict: on all requirements together."""
    one = len(choice.requirements) == 1
    named = "the requirement is" if one else "all requirements together are"
    line = f"{named} met in {_percent(choice.joint_share)} of {choice.resamples:,} resamples: "
    if choice.holds is None:
        few = min(choice.requirements, key=lambda v: v.groups)
        return (
            line + f"too few groups to say more ({few.groups} have {few.requirement.name}; {FEWEST_GROUPS} are needed)"
        )
    if choice.holds:
        return line + f"with {level} confidence"
    line += f"not with {level} confidence"
    if not choice.met:
        return line
    if not choice.certain:
        return line + " (--certain asks for that)"
    return line if one else line + " (--certain asks it of each alone, where the point was chosen)"


def _prices(verdict: Verdict, choice: Choice, level: str) -> str:
    """What tightening a requirement costs, and what loosening it gains."""
    more, less = ("more", "less") if verdict.requirement.sense == ">=" else ("less", "more")
    of = f" of the {level} bound" if choice.certain else ""
    costs, gains = ("costs", "gains") if choice.maximize else ("adds", "takes off")
    if verdict.tightening is None:
        found = f"{verdict.requirement}: cannot be tightened"
    else:
        found = f"{verdict.requirement}: {verdict.tightening.step:.3g} {more}{of}"
        if verdict.loosening is not None and verdict.tightening.step < verdict.loosening.step:
            found += ", the most there is,"
        found += f" {_change(verdict.tightening, costs, choice.goal)}"
    if verdict.loosening is not None:
        found += f"; {verdict.loosening.step:.3g} {less} {_change(verdict.loosening, gains, choice.goal)}"
    return found


def _change(slope: Slope, verb: str, goal: str) -> str:
    """What a step changes, with its interval."""
    if not slope.per_unit:
        return f"{verb} nothing"
    low, high = (four_digits(slope.step * x) for x in slope.interval)
    return f"{verb} {four_digits(slope.step * slope.per_unit)} {goal} ({low} to {high})"

"""The table that ``choose`` prints."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from hyperdpo.choosing.choice import Choice, Verdict
from hyperdpo.printing import four_digits

#: Prices are said for so much of the required metric.
PRICE_UNIT = 0.01


def print_choice(choice: Choice) -> None:
    """Metrics with intervals, requirements with verdicts and prices, and how to use the point."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    level = (
        f"{choice.confidence:.0%}" if round(choice.confidence, 2) == choice.confidence else f"{choice.confidence:.3g}"
    )
    same = choice.reported_on == choice.chosen_on
    table = Table(title=f"{choice.reported_on['description']}: {choice.reported_on['groups']}", title_justify="left")
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
                    f"{verdict.bound:.4f}",
                    f"{'yes' if verdict.holds else 'no'} ({verdict.share:.0%})",
                ]
            if not same:
                value = choice.chosen_on["metrics"].get(name)
                cells.append("-" if value is None else f"{value:.4f}")
            table.add_row(*cells)
    console.print(table)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    weights = ", ".join(f"{name} {w:g}" for name, w in choice.weights.items())
    line = f"weights: {weights}; scale {choice.scale:g}"
    if choice.temperatures_searched:
        line += f"; temperatures {', '.join(f'{b:g}' for b in choice.temperatures.values())}"
    say(line)
    if choice.scale_at_end:
        say("the scale lies at an end of the grid: --scales can reach further")
    where = "" if same else f" on the groups it was chosen on ({choice.chosen_on['description']})"
    if not choice.met:
        how = f" with {level} confidence" if choice.certain else ""
        say(f"the requirements cannot all be met{how}{where}; this is the nearest point. What can be:")
        for verdict in choice.requirements:
            say(f"  {verdict.requirement}: {_attainable(verdict, choice, level)}")
    else:
        for verdict in choice.requirements:
            say(_price(verdict, choice))
        if not choice.certain and not all(v.holds for v in choice.requirements):
            say(f"met on average where the point was chosen, not with {level} confidence: --certain asks for that")
    if len(choice.requirements) > 1:
        say(f"all requirements are met in {choice.joint_share:.0%} of {choice.resamples:,} resamples")
    if choice.details.get("command"):
        say(choice.details["command"])
    if choice.details.get("python"):
        say(choice.details["python"])


def _attainable(verdict: Verdict, choice: Choice, level: str) -> str:
    others = " while the others are met" if len(choice.requirements) > 1 else ""
    if verdict.attainable is None:
        return "no point meets the others"
    most = "at most" if verdict.requirement.sense == ">=" else "at least"
    bound = f" ({level} bound)" if choice.certain else ""
    return f"{verdict.requirement.name} is {most} {verdict.attainable:.4f}{bound}{others}"


def _price(verdict: Verdict, choice: Choice) -> str:
    requirement = verdict.requirement
    tighter = "more" if requirement.sense == ">=" else "less"
    if not verdict.price:
        return f"{requirement}: costs nothing ({PRICE_UNIT:g} {tighter} would not either)"
    change = "costs" if choice.maximize else "adds"
    line = f"{requirement}: {PRICE_UNIT:g} {tighter} {change} {four_digits(PRICE_UNIT * verdict.price)} {choice.goal}"
    if verdict.price_interval is not None:
        low, high = (four_digits(PRICE_UNIT * x) for x in verdict.price_interval)
        line += f" ({low} to {high})"
    return line

"""One page per experiment: tables and interactive pictures, complete in a single file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from hyperdpo.experiments.figures import Chart
from hyperdpo.experiments.language_rows import missing_ratios, ratio_columns, ratios_explained
from hyperdpo.experiments.results import facts, missing, table
from hyperdpo.printing import four_digits, page_of


def report(result: Mapping[str, Any], charts: Sequence[Chart]) -> str:
    """The content of ``NAME.html``. It loads nothing: plotly's script and all figures are in it."""
    from markupsafe import Markup

    return page_of(
        "experiment.html",
        result=result,
        facts=facts(result),
        tables=[_as_rows(result, case) for case in result["cases"]],
        charts=charts,
        reference="(" + ", ".join(map(four_digits, _reference(result))) + ")",
        json_name=f"{result['name']}.json",
        plotly=Markup(_plotly()),
    )


def _reference(result: Mapping[str, Any]) -> Sequence[float]:
    methods = result["cases"][0]["comparison"]["methods"]
    found: Sequence[float] = next(iter(methods.values()))["reference_point"]
    return found


def _as_rows(result: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Any]:
    found = table(result, case)
    base = case["comparison"]["base"]
    ratios = ratio_columns(case)
    return {
        "name": case["name"],
        "headings": [heading for heading, _ in found],
        "rows": list(zip(*(cells for _, cells in found), strict=True)),
        "missing": missing(case),
        "ratio_headings": [heading for heading, _ in ratios],
        "ratios": list(zip(*(cells for _, cells in ratios), strict=True)),
        "ratios_explained": ratios_explained(),
        "ratios_missing": missing_ratios(case),
        "base": [f"{name} {value:.4f}" for name, value in {**base["metrics"], "main": base["main"]}.items() if value],
    }


@functools.cache
def _plotly() -> str:
    """plotly.js, which the Python package brings along."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.replace("</script", "<\\/script")

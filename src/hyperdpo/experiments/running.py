"""Run an experiment: data in, JSON and one HTML page out. What differs between rankers and language models is in
:mod:`hyperdpo.experiments.running_rankers` and :mod:`hyperdpo.experiments.running_language`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hyperdpo.errors import InputError
from hyperdpo.experiments.experiment import Described, Experiment, Found
from hyperdpo.experiments.registry import load
from hyperdpo.experiments.report import report
from hyperdpo.experiments.results import print_result
from hyperdpo.extras import require
from hyperdpo.files import check_writable, write_atomically, write_json
from hyperdpo.locks import writes_to


@writes_to("out")
def run_experiment(
    name: str,
    *,
    out: Path,
    data: Path | None = None,
    queries: int | None = None,
    small: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Run one experiment and write ``OUT/NAME.json`` and ``OUT/NAME.html``.

    Trainings lie in ``OUT/trainings``, those of language models in ``OUT/language``, and are shared by all experiments
    on the same data, objectives and settings. A finished training is never run again.

    Args:
        name: one of :data:`~hyperdpo.experiments.registry.EXPERIMENTS`.
        data: of rankers, a data file, a directory with train, vali and test files, or a directory of Fold1 to Fold5;
            of language models, preferences. None: data are generated.
        queries: how many are generated (prompts, of a language model), or at most so many prompts of a file; None: the
            experiment's own number.
        small: a tiny instance, for a test.
        options: of :func:`~hyperdpo.experiments.running_rankers.find` or of
            :func:`~hyperdpo.experiments.running_language.find`.

    Returns:
        The content of ``NAME.json``: ``name``, ``title``, ``question``, ``paper_says``, ``small``, ``charts``,
        ``vary``; ``data`` {``source``, ``description``, ``groups``, ``generated``, ``differs``}; ``metric``,
        ``points``, ``seeds``, ``temperatures``, ``settings`` (the configuration), ``versions``, ``seconds``; and
        ``cases`` [{``name``, ``value``, ``objectives``, ``groups``, ``rows`` (the table), ``comparison`` (the content
        of ``compare.json``), ``oracle`` (its points, where known)}].

    Raises:
        InputError: no such experiment, data, model or setting.
    """
    experiment = load(name)
    require("experiments")  # now, not after the trainings
    started = time.time()
    if queries is not None:
        _check_queries(experiment, data)
    check_writable(out)
    find: Callable[..., Found]
    charts: Callable[[Mapping[str, Any]], Sequence[Any]]
    if isinstance(experiment, Experiment):
        from hyperdpo.experiments.charts import charts
        from hyperdpo.experiments.running_rankers import find
    else:
        from hyperdpo.experiments.language_charts import language_charts as charts
        from hyperdpo.experiments.running_language import find
    found = find(experiment, out, data=data, queries=queries, small=small, **options)
    comparison = found.cases[0]["comparison"]
    result: dict[str, Any] = {
        "name": experiment.name,
        "title": found.title,
        "question": experiment.question,
        "paper_says": found.paper_says,
        "small": small,
        "charts": list(experiment.charts),
        "vary": experiment.vary,
        "data": found.data,
        "metric": next(iter(comparison["methods"].values()))["metric"],
        "points": max(len(case["comparison"]["weights"]) for case in found.cases),
        "seeds": [repeat["seed"] for repeat in comparison["repeats"]],
        "temperatures": comparison["temperatures"],
        "settings": found.settings,
        "cases": found.cases,
        "versions": comparison["versions"],
        "seconds": time.time() - started,
    }
    json_file, page = out / f"{name}.json", out / f"{name}.html"
    write_json(json_file, result)
    write_atomically(page, report(result, charts(result)).encode())
    print_result(result)
    click.echo(f"report: {page}\nfigures: {json_file}\ntrainings: {found.trainings}")
    return result


def _check_queries(experiment: Described, data: Path | None) -> None:
    """Refuse a number of queries or prompts where it has no effect.

    Raises:
        InputError: nothing is generated, and no prompts are read.
    """
    source = getattr(experiment, "source", None)
    if source == "labels":
        raise InputError(f"--queries: {experiment.name} reads preferences, so nothing is generated; leave it out")
    if data is not None and (source != "answers" or data.is_dir()):
        raise InputError("--queries: --data is given, so nothing is generated; drop one of the two")

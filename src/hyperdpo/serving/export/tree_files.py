"""``export --format lightgbm``: LightGBM's own files of a run, and a JSON that says how they make a ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyperdpo._version import __version__
from hyperdpo.checksums import file_digests
from hyperdpo.core.gains import FLOOR
from hyperdpo.errors import InputError
from hyperdpo.files import check_writable, write_json, written
from hyperdpo.objectives import MAIN
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.tree_columns import GAIN_RANGE
from hyperdpo.runs import FILES

#: The version of the JSON; raised whenever it changes. 1 has no checksums, 2 does not say that predictions are clipped.
FORMAT_VERSION = 3
#: The name of the JSON beside the models' files.
DESCRIPTION = "ranker.json"


def export_trees(run: RankRun, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the directory ``out``: one text per column in LightGBM's format, and :data:`DESCRIPTION`.

    Returns:
        What the JSON says.

    Raises:
        InputError: the run is not one of trees alone, or the place is taken or cannot be written to.
    """
    ranker = run.ranker
    if ranker.trees is None or not isinstance(ranker, GainRanker):
        raise InputError(f"--format lightgbm: {run.path} has no trees; train with scorer.kind gbdt, or use onnx")
    if ranker.tree_weight != 1:
        raise InputError(
            f"--format lightgbm: {run.path} blends its trees (weight {ranker.tree_weight:g}) with a network, which is "
            "no LightGBM model; use --format onnx"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / DESCRIPTION).is_file():
            raise InputError(f"{out}: exists and is no export of trees; expected a new directory")
        if not overwrite:
            raise InputError(f"{out}: holds an export; expected a new directory, or --overwrite")
    check_writable(out.parent)
    with written(out, directory=True) as temporary:
        ranker.trees.save(temporary, run.config.label_names)
        files = sorted((path.name for path in temporary.iterdir()), key=lambda name: int(name.partition("-")[0]))
        description = _description(run, ranker, files) | {FILES: file_digests(temporary, files)}
        write_json(temporary / DESCRIPTION, description, sealed=True)
    return description


def _description(run: RankRun, ranker: GainRanker, files: list[str]) -> dict[str, Any]:
    assert ranker.trees is not None
    shares = [float(share) for share in ranker.signal_shares]
    names = (*run.objectives, MAIN)
    columns: list[dict[str, Any]] = [
        {"name": name, "file": file, "clip": list(GAIN_RANGE), "divide_by": share, "learned": 1.0}
        for name, file, share in zip(names, files, shares, strict=False)
    ]
    if ranker.learns_main:
        columns[-1]["learned"] = ranker.learned_main
    else:
        columns.append({"name": MAIN, "file": None, "clip": None, "divide_by": 1.0, "learned": 0.0})
    return {
        "format_version": FORMAT_VERSION,
        "kind": "rank-trees",
        "objectives": list(run.objectives),
        "features": list(ranker.trees.models[0].columns),
        "origins": run.origins,
        "columns": [{**column, "per_document": column["learned"] == 1} for column in columns],
        "base": {"kind": run.base_source.kind, "column": run.base_source.column, "slope": float(ranker.base_slope)},
        "main_share": ranker.main_share,
        "least_sum": FLOOR,
        "how": [
            "features: in this order; subtract the origin of those that have one in double precision, then round to "
            "32 bits; NaN where a value is missing",
            "own_j = LightGBM's prediction of the file, clipped to clip, then divided by divide_by, for each document; "
            "without the clip the order is another one, because trees predict gains below 0",
            "column_j = own_j where learned is 1; it depends on the document alone, so it may be stored with it",
            "else, over the candidate list: base_i = softmax of slope times base score, "
            "column_j = learned own_j + (1 - learned) (sum of own_j over the list, or 1 without a file) base_i",
            "rank by the sum of v_j column_j, with v = (1 - main_share) w for the objectives and main_share for main",
            "a sum below least_sum counts as least_sum",
            "scale c: multiply each document's sum by exp((c - 1) slope base score)",
            "columns that depend on the list (learned below 1, or a scale other than 1) hold for that list only",
        ],
        "versions": {"hyperdpo": __version__},
    }

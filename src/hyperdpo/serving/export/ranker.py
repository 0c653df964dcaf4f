"""A run of ``hyperdpo rank fit`` as one file that scores raw features at any weights, without this package.

The graph holds the feature transform, the ranker, and the base where the run trained one. Shapes: B groups of a batch,
n items (padded), F features, m objectives.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from hyperdpo import checksums
from hyperdpo._version import __version__
from hyperdpo.errors import InputError
from hyperdpo.extras import is_installed, require
from hyperdpo.files import write_atomically, write_json
from hyperdpo.ranking.components import component_names, why_none
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.parametrizations import MixtureRanker, TemperatureRanker
from hyperdpo.ranking.run import RankRun
from hyperdpo.runs import FILES
from hyperdpo.serving.export.raw_ranker import PADDING_SCORE, RawRanker
from hyperdpo.serving.export.trees import OUTPUT, ExportedTrees
from hyperdpo.serving.server.rank_trees import TREE_METADATA

#: Of the metadata. Raised whenever inputs or outputs change.
FORMAT_VERSION = 4

#: Components below this part of a list's largest are not compared with the run's.
LEAST_COMPONENT = 1e-30

#: How far an exported file may be from the run: the difference of a score, as a part of the batch's largest score, or
#: of 1 where all are smaller.
TOLERANCE = 1e-5

#: Shapes (B, n) that every written file is tried on, and how many random ones besides, up to these.
TRIALS, RANDOM_TRIALS, LARGEST_TRIAL = ((1, 1), (1, 1000), (17, 1)), 6, (12, 80)

#: What some features are replaced with as it is tried.
EXTREMES = (0.0, 1e-38, -1e-38, 1e10, -1e10, 3e38, -3e38)


class ExportedRanker(RawRanker):
    """Raw features in, scores out, as :meth:`RankRun.score` computes them.

    Args:
        run: on the CPU.
        temperatures: m numbers to freeze; None: those of the run, or an input where the ranker was trained with many.
        with_components: whether :meth:`forward` gives components, too, where the run has some.

    Raises:
        InputError: temperatures that the run cannot answer at, or that are different in a mixture; trees that a graph
            cannot hold.
    """

    def __init__(self, run: RankRun, temperatures: ArrayLike | None = None, *, with_components: bool = True):
        super().__init__(run)
        #: The inputs, in order, and how their axes are called.
        self.inputs = {
            "features": ("batch", "items", None),
            "mask": ("batch", "items"),
            "weights": ("batch", None),
            "scale": ("batch",),
        }
        if self.base is None:
            self.inputs["base_scores"] = ("batch", "items")
        self.betas: list[float] | None
        self.betas, self.factor = run.answering(temperatures)
        if isinstance(run.ranker, TemperatureRanker) and temperatures is None:
            self.betas = None
            self.inputs["temperatures"] = ("batch", None)
        if run.ranker.takes_main_share:
            self.inputs["main_share"] = ("batch",)
        if isinstance(run.ranker, MixtureRanker) and len(set(self.betas or ())) > 1:
            found, equal = ", ".join(f"{b:g}" for b in self.betas or ()), ",".join("1" for _ in self.betas or ())
            raise InputError(
                f"temperatures: found {found}, at which a mixture has no export; "
                f"expected equal ones, such as --beta {equal}, which rank in another way (`hyperdpo choose "
                "--fixed-temperatures` finds a point; `hyperdpo serve` takes any)"
            )
        self.trees = ExportedTrees.of(run)
        #: As :attr:`inputs`, of :meth:`forward`: with trees, the graph computes one of them.
        self.taken = self.inputs | ({OUTPUT: ("batch", None, "items")} if self.trees else {})
        #: Names of the components' columns; none where there are no components.
        self.columns: tuple[str, ...] = ()
        if with_components and why_none(run, self.betas) is None:
            self.columns = component_names(run, self.betas)
        #: The outputs, as :attr:`inputs`.
        self.outputs: dict[str, tuple[str | int | None, ...]] = {"scores": ("batch", "items")}
        if self.columns:
            self.outputs["components"] = ("batch", "items", None)
        if self.columns and self.trees:
            self.outputs["sources"] = ("batch", "items", len(self.source_names), len(self.columns))

    def forward(
        self,
        features: torch.Tensor,
        mask: torch.Tensor,
        weights: torch.Tensor,
        scale: torch.Tensor,
        base_scores: torch.Tensor | None = None,
        temperatures: torch.Tensor | None = None,
        main_share: torch.Tensor | None = None,
        tree_columns: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """(B, n) scores, as :meth:`RawRanker.scores`, and (B, n, k) components where there are :attr:`columns`; with
        trees, too, :meth:`RawRanker.sources`.

        Args:
            temperatures: (B, m) > 0, where they are not frozen.
            tree_columns: (B, M, n), what the trees predict, where there are some.
        """
        asked = self.betas if self.betas is not None else temperatures
        assert asked is not None
        batch = self.batch(features, mask, base_scores, tree_columns)
        scores = self.scores(batch, weights, scale * self.factor, asked, main_share)
        if not self.columns:
            return scores
        assert self.betas is not None
        components = self.components(batch, scale, self.betas)
        return (scores, components, self.sources(batch, components)) if self.trees else (scores, components)

    def example(self, groups: int, items: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """Inputs of the kind that the training saw, by name, with padding in all groups but the first."""
        rng = torch.Generator().manual_seed(seed)
        m = self.ranker.num_weights
        spread = torch.where(self.deviation > 0, 1 / self.deviation.clamp_min(1e-6), 0)
        logs = self.mean + spread * torch.randn(groups, items, len(self.mean), generator=rng)
        numbers = torch.where(self.logs, logs.sign() * torch.expm1(logs.abs().clamp_max(20)), logs)
        sizes = torch.randint(1, items + 1, (groups,), generator=rng)
        sizes[0] = items
        values = {
            "features": (numbers.double() + self.origins).to(self.feature_type),
            "mask": torch.arange(items) < sizes[:, None],
            "weights": torch.softmax(2 * torch.randn(groups, m, generator=rng), -1),
            "scale": 0.5 + 2 * torch.rand(groups, generator=rng),
            "base_scores": torch.randn(groups, items, generator=rng),
            "temperatures": 0.5 + torch.rand(groups, m, generator=rng),
            "main_share": 0.9 * torch.rand(groups, generator=rng),
        }
        return self._with_trees({name: values[name] for name in self.inputs})

    def _with_trees(self, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inputs, and what LightGBM predicts from their features."""
        if self.trees is None:
            return given
        return given | {OUTPUT: torch.from_numpy(self.trees.columns(given["features"].numpy()))}

    def as_scores(self, components: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """(B, n, k) components on the scale of the scores, up to a number per list: log C / (c β), or log C / (c a)."""
        slope = float(self.ranker.base_slope) if isinstance(self.ranker, GainRanker) else (self.betas or [1.0])[0]
        return components.clamp_min(LEAST_COMPONENT).double().log() / (scale[:, None, None].double() * slope)

    def trial(self, groups: int, items: int, seed: int) -> dict[str, torch.Tensor]:
        """Inputs by name as of :meth:`example`, and what is rarer: corners of the simplex, small and large scales, all
        magnitudes of base scores, a tenth of the features at :data:`EXTREMES`, and some missing."""
        given = self.example(groups, items, seed)
        rng = torch.Generator().manual_seed(seed)

        def some(share: float, *shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=rng) < share

        def up_to(limit: int, *shape: int) -> torch.Tensor:
            return torch.randint(limit, shape, generator=rng)

        m = self.ranker.num_weights
        corners = torch.eye(m)[up_to(m, groups)]
        given["weights"] = torch.where(some(0.4, groups, 1), corners, given["weights"])
        given["scale"] = 10 ** (2.4 * torch.rand(groups, generator=rng) - 1.2)
        shape = given["features"].shape
        extremes = torch.tensor(EXTREMES)[up_to(len(EXTREMES), *shape)]
        given["features"] = torch.where(some(0.1, *shape), extremes.to(self.feature_type), given["features"])
        given["features"] = given["features"].masked_fill(some(0.05, *shape), torch.nan)
        if "base_scores" in given:
            given["base_scores"] = given["base_scores"] * 10 ** (4 * torch.rand(groups, 1, generator=rng) - 2)
        return self._with_trees(given)

    def program(self) -> torch.export.ExportedProgram:
        """The graph, for any number of groups and items."""
        dims = {name: torch.export.Dim(name, min=1) for name in ("batch", "items")}
        shapes = {
            name: {axis: dims[called] for axis, called in enumerate(axes) if called is not None}
            for name, axes in self.taken.items()
        }
        with torch.no_grad():
            return torch.export.export(self, (), self.example(2, 5), dynamic_shapes=shapes)


@dataclass(frozen=True)
class RankerExport:
    """What was written."""

    path: Path
    metadata_path: Path
    metadata: dict[str, Any]
    difference: float | None
    """The largest difference from the run, as a part of the largest score; None where it could not be tried."""


def export_ranker(
    run: RankRun,
    out: Path,
    format: str = "onnx",
    *,
    temperatures: Sequence[float] | None = None,
    overwrite: bool = False,
) -> RankerExport:
    """Write ``out`` and, beside it, what is to be known about it: ``out.json``.

    Args:
        format: ``onnx``; ``torch``: a ``.pt2`` file of ``torch.export``, with the same inputs.
        temperatures: m numbers to freeze, see :class:`ExportedRanker`.

    Raises:
        InputError: the place is taken or cannot be written to, a package is missing, temperatures that have no export,
            or a graph whose scores are not the run's.
    """
    beside = out.with_name(out.name + ".json")
    _check_target(out, beside, overwrite=overwrite)
    content, metadata, difference = exported_ranker(run, format, temperatures)
    write_atomically(out, content)
    metadata = metadata | {FILES: checksums.file_digests(out.parent, [out.name])}
    write_json(beside, metadata, sealed=True)
    return RankerExport(out, beside, metadata, difference)


def exported_ranker(
    run: RankRun, format: str = "onnx", temperatures: Sequence[float] | None = None
) -> tuple[bytes, dict[str, Any], float | None]:
    """The file's content, its metadata, and :attr:`RankerExport.difference`; arguments as of :func:`export_ranker`.

    Raises:
        InputError: a package is missing, temperatures that have no export, or a graph whose scores are not the run's.
    """
    if format == "onnx":
        require("serve", "onnx", "onnxscript")
    if format == "torch" and run.ranker.trees is not None:
        raise InputError(f"--format torch: {run.path} has trees, which a torch program cannot hold; use --format onnx")
    # A torch program answers with one tensor, as it always has.
    module = ExportedRanker(run.to("cpu"), temperatures, with_components=format == "onnx")
    metadata = _metadata(run, module, format)
    program = module.program()
    content = _onnx(program, module, metadata) if format == "onnx" else _pt2(program, metadata)
    difference = _difference(content, module, format)
    if difference is not None and not difference <= TOLERANCE:
        raise InputError(
            f"--format {format}: on random lists, the graph's scores differ from the run's by {difference:.2g} of the "
            f"largest; expected at most {TOLERANCE:g}; nothing was written (`hyperdpo serve --backend torch` needs no "
            "graph)"
        )
    return content, metadata, difference


def _check_target(*paths: Path, overwrite: bool) -> None:
    """Refuse what is there already, unless it is to be replaced.

    Raises:
        InputError: it is there, or it is a directory.
    """
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path}: is a directory; expected the name of a file")
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists; expected a new name, or --overwrite")


def _metadata(run: RankRun, module: ExportedRanker, format: str) -> dict[str, Any]:
    packages = {"torch": str(torch.__version__), "numpy": version("numpy")}
    if format == "onnx":
        packages |= {name: version(name) for name in ("onnx", "onnxscript")}
    lengths = {"features": len(run.transform.columns), "components": len(module.columns)}

    def shapes(tensors: Mapping[str, Sequence[str | int | None]]) -> dict[str, list[Any]]:
        m = len(run.objectives)
        return {name: [called or lengths.get(name, m) for called in axes] for name, axes in tensors.items()}

    frozen = None if module.betas is None else [beta * module.factor for beta in module.betas]
    return {
        "format_version": FORMAT_VERSION,
        "kind": "rank",
        "objectives": list(run.objectives),
        "directions": {o.name: o.direction for o in run.config.objectives},
        "features": list(run.transform.columns),
        "inputs": shapes(module.inputs),
        "outputs": shapes(module.outputs),
        **({"components": list(module.columns)} if module.columns else {}),
        **({"sources": list(module.source_names)} if "sources" in module.outputs else {}),
        "feature_type": str(module.feature_type).removeprefix("torch."),
        "parametrization": run.config.parametrization,
        "temperatures": frozen,
        **({"main_share": run.ranker.chosen["main_share"]} if run.ranker.takes_main_share else {}),
        "base": {"kind": run.base_source.kind, "column": run.base_source.column},
        "padding_score": PADDING_SCORE,
        "versions": {"hyperdpo": __version__, **packages},
    }


def _pt2(program: torch.export.ExportedProgram, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(metadata)})
    return buffer.getvalue()


def _onnx(program: torch.export.ExportedProgram, module: ExportedRanker, metadata: dict[str, Any]) -> bytes:
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that it could use, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, to itself
        names, outputs = list(module.taken), list(module.outputs)
        made = torch.onnx.export(
            program, dynamo=True, input_names=names, output_names=outputs, optimize=True, verbose=False
        )
    assert made is not None
    proto = made.model_proto
    if module.trees is not None:
        module.trees.insert(proto)
    _name_axes(proto.graph, module)
    proto.producer_name, proto.producer_version = "hyperdpo", __version__
    if module.trees is not None:
        metadata = metadata | {TREE_METADATA: module.trees.described(module.columns)}
    told = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    onnx.helper.set_model_props(proto, told | {checksums.KEY: checksums.ZEROS})
    onnx.checker.check_model(proto, full_check=True)
    return checksums.sealed(proto.SerializeToString(), checksums.ONNX_SEAL)


def _name_axes(graph: Any, module: ExportedRanker) -> None:
    """Call the dynamic axes what the metadata calls them; the exporter has names of its own."""
    called: dict[str, str] = {}
    for given in graph.input:
        for dim, name in zip(given.type.tensor_type.shape.dim, module.inputs[given.name], strict=True):
            if dim.dim_param and name is not None:
                called[dim.dim_param] = name
    for given in (*graph.input, *graph.output):
        for dim in given.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = called.get(dim.dim_param, dim.dim_param)
    del graph.value_info[:]  # shapes inside, by the old names; whoever reads the file infers them


@torch.inference_mode()
def _difference(content: bytes, module: ExportedRanker, format: str) -> float | None:
    """How far the file's scores are from the module's, as a part of the largest (at least 1), on random groups.
    Components are compared on the scale of the scores."""
    if format == "onnx":
        if not is_installed("onnxruntime"):
            return None
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

        def answer(given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
            found = session.run(list(module.outputs), {name: given[name].numpy() for name in module.inputs})
            return [torch.from_numpy(one) for one in found]
    else:
        loaded = torch.export.load(io.BytesIO(content)).module()

        def answer(given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
            return [loaded(**given)]

    rng = np.random.default_rng(0)
    drawn = 1 + rng.integers(LARGEST_TRIAL, size=(RANDOM_TRIALS, 2))
    worst = 0.0
    for seed, shape in enumerate((*TRIALS, *drawn.tolist())):
        given = module.trial(shape[0], shape[1], seed)
        answered, mask = module(**given), given["mask"]
        wanted, found = answered if module.columns else [answered], answer(given)
        scores = wanted[0][mask].numpy()
        worst = max(worst, relative_difference(found[0][mask].numpy(), scores))
        if module.columns:
            logs = [module.as_scores(one, given["scale"])[mask] for one in (found[1], wanted[1])]
            apart = float((logs[0] - logs[1]).abs().max() / max(1.0, np.abs(scores).max()))
            worst = max(worst, apart if np.isfinite(apart) else np.inf)
    return worst


def relative_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, as a part of the largest wanted number, or of 1; infinite if any is no number."""
    difference = np.abs(found.astype(np.float64) - wanted).max() / max(1.0, float(np.abs(wanted).max()))
    return float(difference) if np.isfinite(difference) else np.inf

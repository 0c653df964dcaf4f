"""What scores lists for a server: an ONNX graph, torch where a graph cannot answer, and which of them a list needs.

Shapes: n items of a list, F features, m objectives, B lists of a batch.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.checksums import KEY, ONNX_SEAL, damaged, is_intact, is_nearly_key
from hyperdpo.core.control import proportional_scale
from hyperdpo.core.point import Point, check_temperatures, even_weights
from hyperdpo.errors import InputError
from hyperdpo.extras import require
from hyperdpo.serving.server.rank_trees import TREE_METADATA, ServedTrees

if TYPE_CHECKING:
    from hyperdpo.ranking.run import RankRun

#: The shortest list of a batch as a part of the longest.
SHORTEST = 0.75

#: Items of a batch, padding included, unless one list has more. Short lists are cheaper in company, up to about so many
#: items (``benchmarks/RESULTS.md``): with more, clients only wait for each other.
BATCH_ITEMS = 128


#: What to do about a damaged file.
RESTORE = "restore it from a copy, or export it again"


@dataclass(frozen=True)
class ListToScore:
    """One list at one point.

    Attributes:
        features: (n, F) raw, NaN where a value is missing; of the model's ``feature_type``.
        weights: (m,) float32.
        scale: c, at the temperatures that the ranker is asked at.
        base_scores: (n,) float32; None where the ranker has a base of its own.
        temperatures: m numbers for the ranker; None where they are frozen.
        graph: whether the ONNX graph answers.
        main_share: λ, for a ranker that takes one.
        wanted: what is asked for: ``scores``, ``components``, or components with their ``sources``.
    """

    features: np.ndarray
    weights: np.ndarray
    scale: float
    base_scores: np.ndarray | None
    temperatures: tuple[float, ...] | None
    graph: bool
    main_share: float | None = None
    wanted: tuple[str, ...] = ("scores",)

    def __len__(self) -> int:
        return len(self.features)


class RankModel:
    """A ranker at any point. Made by :meth:`load`.

    Attributes:
        name: of the run or file.
        objectives: the m names.
        features: the F names.
        feature_type: float32, or float64 where 32 bits would lose what a feature says.
        own_base: it computes base scores itself; else lists bring them.
        columns: names of the components; none where it has no components.
        sources: names of what the columns of a ranker with trees come from; none where it has no trees.
        trees: what explains them; None where there are none.
        main_share: λ of lists that name none; None for a ranker that takes none.
    """

    def __init__(self, name: str, metadata: dict[str, Any], graph: Any, run: RankRun | None, threads: int = 1):
        self.name, self.graph, self._run = name, graph, run
        self.objectives: tuple[str, ...] = tuple(metadata["objectives"])
        self.features: tuple[str, ...] = tuple(metadata["features"])
        self.feature_type = np.dtype(metadata.get("feature_type", "float32"))
        self.own_base = metadata["base"]["kind"] == "trained"
        self._frozen: list[float] | None = metadata["temperatures"]
        self.columns: tuple[str, ...] = tuple(metadata.get("components", ()))
        self.sources: tuple[str, ...] = tuple(metadata.get("sources", ()))
        self.trees = ServedTrees(graph, self.features, threads) if self.sources else None
        self.main_share: float | None = metadata.get("main_share")
        self._needs_base = metadata["parametrization"] != "scratch"
        self._proportional = metadata["parametrization"] in ("scratch", "augmentation")
        self._module: Any = None
        if run is not None:
            from hyperdpo.serving.export.raw_ranker import RawRanker

            self._module = RawRanker(run.to("cpu"))

    @classmethod
    def load(cls, path: Path, backend: str | None = None, threads: int = 1) -> RankModel:
        """A run of ``hyperdpo rank fit``, or an ONNX file that ``hyperdpo export`` wrote.

        Args:
            backend: ``onnx``, ``torch``, or None for ONNX where the run can be exported and its packages are there.
            threads: of one pass.

        Raises:
            InputError: no run and no such file, a package is missing, or a graph is asked for that there is not.
        """
        if path.is_file():
            if backend == "torch":
                raise InputError(f"--backend torch: {path} is a graph for ONNX Runtime; expected the run")
            content, is_sealed = read_graph(path)
            graph = _session(content, threads, str(path))
            try:
                told = graph.get_modelmeta().custom_metadata_map
                if KEY not in told and any(map(is_nearly_key, told)):
                    raise damaged(path, RESTORE)
                metadata = {name: _plain(text) for name, text in told.items() if name != TREE_METADATA}
                model = cls(path.stem, metadata, graph, None, threads)
            except UnicodeDecodeError:
                raise damaged(path, RESTORE) from None
            except (KeyError, TypeError):
                raise InputError(f"{path}: no metadata of a ranker; expected a file of hyperdpo export") from None
            if not is_sealed:
                warnings.warn(f"{path}: written without a checksum; export it again to have one", stacklevel=2)
            return model
        from hyperdpo.ranking.components import component_names, why_none
        from hyperdpo.ranking.run import RankRun

        run = RankRun.load(path)
        described: dict[str, Any] = {
            "objectives": run.objectives,
            "features": run.transform.columns,
            "feature_type": "float64" if run.transform.origins.any() else "float32",
            "base": {"kind": run.base_source.kind if run.base is None else "trained"},
            "parametrization": run.config.parametrization,
            "temperatures": None,
            "main_share": run.ranker.chosen.get("main_share"),
            "components": () if why_none(run, run.betas) else component_names(run),
        }
        graph = None
        has_trees = run.ranker.trees is not None
        if backend == "torch" and has_trees:
            raise InputError(f"--backend torch: {path} has trees, which are served as a graph; use --backend onnx")
        if backend != "torch":
            graph, metadata = _graph_of(run, threads, required=has_trees or backend == "onnx")
            described |= {name: metadata[name] for name in ("temperatures", "sources") if name in metadata}
        if graph is None:
            import torch

            torch.set_num_threads(threads)
        return cls(path.resolve().name, described, graph, run, threads)

    @property
    def backend(self) -> str:
        """``onnx`` or ``torch``."""
        return "torch" if self.graph is None else "onnx"

    def check(self, point: Point) -> None:
        """Raise unless lists can be scored at these temperatures and this main share.

        Raises:
            InputError: they cannot.
        """
        self._answering(point.temperatures or None)
        self._share(point)

    def _share(self, point: Point) -> float | None:
        if point.main_share is not None and self.main_share is None:
            raise InputError("main_share: this ranker takes none (only mixture.form gain does); leave it out")
        return self.main_share if point.main_share is None else point.main_share

    def prepare(self, features: np.ndarray, point: Point, base_scores: np.ndarray | None) -> ListToScore:
        """A list, and what it needs to be scored at a point.

        Args:
            features: (n, F) of :attr:`feature_type`.
            base_scores: (n,) float32 or None.

        Raises:
            InputError: temperatures or a share that this ranker does not take, or base scores are missing or too much.
        """
        share = self._share(point)
        betas, factor, graph = self._answering(point.temperatures or None)
        scale = point.scale * factor
        if self.own_base and base_scores is not None:
            raise InputError("base_scores: this ranker computes its own; leave them out")
        if not self.own_base and base_scores is None:
            if self._needs_base or scale != 1:
                raise InputError("base_scores: missing; expected one per item")
            base_scores = np.zeros(len(features), np.float32)
        return ListToScore(features, np.array(point.weights, np.float32), scale, base_scores, betas, graph, share)

    def prepare_components(
        self, features: np.ndarray, point: Point, base_scores: np.ndarray | None, *, with_sources: bool = False
    ) -> ListToScore:
        """As :meth:`prepare`, for the components at a point, whose weights have no effect on them.

        Args:
            with_sources: and what they come from, where the ranker has trees.

        Raises:
            InputError: there are no components, or as :meth:`prepare`.
        """
        if not self.columns:
            raise InputError(
                "components: this ranker has none, or its file is of an older version; expected a mixture of power 1 "
                "and equal β, exported anew"
            )
        if len(set(point.temperatures)) > 1:
            raise InputError("components: β differ, in the request or in --beta; only equal β give a weighted sum")
        even = replace(point, weights=tuple(even_weights(len(self.objectives))))
        wanted = ("components", "sources") if with_sources and self.sources else ("components",)
        return replace(self.prepare(features, even, base_scores), wanted=wanted)

    def _answering(self, temperatures: Sequence[float] | None) -> tuple[tuple[float, ...] | None, float, bool]:
        """What the ranker is asked at, the factor of the scale, and whether the graph answers."""
        takes = self.graph is not None and any(given.name == "temperatures" for given in self.graph.get_inputs())
        if self._run is not None:
            betas, factor = self._run.answering(temperatures)
            if takes:
                return tuple(betas), factor, True
            frozen = not self._run.ranker.takes_temperatures or list(betas) == self._frozen
            graph = self.graph is not None and frozen
            return (None if graph else tuple(betas)), factor, graph
        if takes:
            if temperatures is None:
                raise InputError(f"temperatures: missing; this graph needs {len(self.objectives)}, one per objective")
            return tuple(temperatures), 1.0, True
        if temperatures is None:
            return None, 1.0, True
        wanted = check_temperatures(temperatures, len(self.objectives))
        assert self._frozen is not None
        ratio = proportional_scale(wanted, self._frozen)
        if ratio is None or (ratio != 1 and not self._proportional):
            expected = ", ".join(f"{beta:g}" for beta in self._frozen)
            more = " or a multiple of them" if self._proportional else ""
            raise InputError(f"temperatures: this graph answers at others; expected {expected}{more}")
        return None, ratio, True

    def score(self, lists: Sequence[ListToScore]) -> list[np.ndarray]:
        """(n,) float32 scores of each list, or (n, k) components, computed in batches of similar lengths.

        Components with their S sources are (n, 1 + S, k), themselves first.
        """
        found: list[np.ndarray] = [np.empty(0, np.float32)] * len(lists)
        for batch in batches(lists):
            scores = self._score([lists[i] for i in batch])
            for i, row in zip(batch, scores, strict=True):
                found[i] = row[: len(lists[i])]
        return found

    def _score(self, lists: Sequence[ListToScore]) -> np.ndarray:
        """(B, n) scores of lists that go together, (B, n, k) components, or (B, n, 1 + S, k) of both."""
        inputs = padded(lists)
        first = lists[0]
        if first.graph:
            if first.temperatures is not None:
                inputs["temperatures"] = np.array([one.temperatures for one in lists], np.float32)
            import onnxruntime

            options = onnxruntime.RunOptions()
            options.only_execute_path_to_fetches = True  # scores without components, and the other way round
            found = self.graph.run(list(first.wanted), inputs, options)
            return np.asarray(found[0] if len(found) == 1 else np.concatenate([found[0][:, :, None], found[1]], 2))
        import torch

        given = {name: torch.from_numpy(value) for name, value in inputs.items()}
        betas = list(first.temperatures or ())
        with torch.inference_mode():
            batch = self._module.batch(given.pop("features"), given.pop("mask"), given.pop("base_scores", None))
            if first.wanted != ("scores",):
                return np.asarray(self._module.components(batch, given["scale"], betas).numpy())
            return np.asarray(self._module.scores(batch, **given, temperatures=betas).numpy())


def batches(lists: Sequence[ListToScore]) -> Iterator[list[int]]:
    """Positions of lists that are scored together: by the same means, and of similar lengths."""

    def kind(one: ListToScore) -> tuple[Any, ...]:
        return (one.wanted, one.graph, () if one.graph or one.temperatures is None else one.temperatures)

    order = sorted(range(len(lists)), key=lambda i: (kind(lists[i]), -len(lists[i])))
    batch: list[int] = []
    for i in order:
        if batch:
            first = lists[batch[0]]
            fits = len(lists[i]) >= SHORTEST * len(first) and (len(batch) + 1) * len(first) <= BATCH_ITEMS
            if not fits or kind(lists[i]) != kind(first):
                yield batch
                batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(lists: Sequence[ListToScore]) -> dict[str, np.ndarray]:
    """The graph's inputs of some lists, temperatures left out."""
    items, width = max(map(len, lists)), lists[0].features.shape[1]
    inputs = {
        "weights": np.stack([one.weights for one in lists]),
        "scale": np.array([one.scale for one in lists], np.float32),
    }
    if lists[0].main_share is not None:
        inputs["main_share"] = np.array([one.main_share for one in lists], np.float32)
    given = lists[0].base_scores is not None
    if len(lists) == 1:
        inputs |= {"features": lists[0].features[None], "mask": np.ones((1, items), bool)}
        return inputs | ({"base_scores": lists[0].base_scores[None]} if given else {})  # type: ignore[index]
    features = np.zeros((len(lists), items, width), lists[0].features.dtype)
    base = np.zeros((len(lists), items), np.float32)
    for i, one in enumerate(lists):
        features[i, : len(one)] = one.features
        if one.base_scores is not None:
            base[i, : len(one)] = one.base_scores
    mask = np.arange(items) < np.array([len(one) for one in lists])[:, None]
    return inputs | {"features": features, "mask": mask} | ({"base_scores": base} if given else {})


def _graph_of(run: RankRun, threads: int, *, required: bool) -> tuple[Any, dict[str, Any]]:
    """The run as a graph in memory, and its metadata; None and nothing where there is no such graph.

    Raises:
        InputError: there is none, and it is required.
    """
    from hyperdpo.serving.export.ranker import exported_ranker

    try:
        require("serve", "onnxruntime")
        content, metadata, _ = exported_ranker(run)
    except InputError as error:
        if required:
            raise InputError(f"--backend onnx: {error}") from None
        return None, {}
    return _session(content, threads), metadata


def read_graph(path: Path) -> tuple[bytes, bool]:
    """The content of an exported file, and whether it has a checksum, which is compared; older files have none.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    intact = is_intact(content, ONNX_SEAL)
    if intact is False:
        raise damaged(path, RESTORE)
    return content, intact is not None


def _session(content: bytes, threads: int, name: str = "graph") -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        name: what a message calls the graph.

    Raises:
        InputError: it is not installed, or the content is no graph.
    """
    require("serve", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that wait for the next pass would take the cores of those that read requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common class
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: cannot be loaded ({line})") from None


def _plain(text: str) -> Any:
    """Metadata is JSON but for plain words."""
    try:
        return json.loads(text)
    except ValueError:
        return text

"""The trees of a run as nodes of its ONNX graph.

The nodes are made from LightGBM's own description of a model, because a graph has to send every item to the leaf that
LightGBM sends it to, and onnxmltools does not promise this. LightGBM compares 32-bit features with 64-bit thresholds;
a graph has thresholds of 32 bits. The largest 32-bit number that is not above the threshold decides alike for every
32-bit feature. A missing value goes where LightGBM sends it: to the split's own side where training had missing values
of the feature, else to the side of 0.

Shapes: B groups of a batch, n items (padded), F features, M models.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperdpo.errors import InputError
from hyperdpo.extras import require
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.run import RankRun

#: The name of what the nodes compute: (B, M, n) expected gains.
OUTPUT = "tree_columns"
#: ONNX's operators for trees: the newest version with TreeEnsembleRegressor, which every engine knows.
OPSET = ("ai.onnx.ml", 3)
#: LightGBM reads numbers of up to this size as 0.
ZERO = float(np.float32(1e-35))


@dataclass(frozen=True)
class ExportedTrees:
    """The trees of a run, outside of it."""

    texts: tuple[str, ...]
    """LightGBM's text of each of the M models."""
    origins: np.ndarray
    """(F,) float64: what is subtracted from the features in double precision."""
    used: tuple[int, ...]
    """The models that have a part in a column, by position."""

    @staticmethod
    def of(run: RankRun) -> ExportedTrees | None:
        """The trees that a run answers with; None where it has none, or a blend without weight on them."""
        trees = run.ranker.trees
        if trees is None or not run.ranker.chosen["tree_weight"]:
            return None
        require("gbdt")
        assert isinstance(run.ranker, GainRanker)
        used = tuple(j for j, part in enumerate(run.ranker.tree_parts) if part > 0)
        return ExportedTrees(tuple(trees.texts), run.transform.origins, used)

    @functools.cached_property
    def _boosters(self) -> list[Any]:
        import lightgbm

        return [lightgbm.Booster(model_str=text) for text in self.texts]

    def columns(self, features: np.ndarray) -> np.ndarray:
        """(B, M, n) float32 expected gains of (B, n, F) raw features, as LightGBM predicts them."""
        rows = (features - self.origins).astype(np.float32).reshape(-1, features.shape[-1])
        found = np.stack([booster.predict(rows, num_threads=1) for booster in self._boosters], -1).clip(0, 1)
        return np.moveaxis(found.reshape(*features.shape[:-1], -1), -1, 1).astype(np.float32)

    def described(self, names: Sequence[str]) -> dict[str, Any]:
        """What TreeSHAP needs, for :data:`~hyperdpo.serving.server.rank_trees.TREE_METADATA`.

        Args:
            names: of the columns.
        """
        models = [{"column": names[j], "text": self.texts[j]} for j in self.used]
        return {"origins": self.origins.tolist(), "models": models}

    def insert(self, proto: Any) -> None:
        """Compute the graph's input :data:`OUTPUT` from its input ``features`` instead.

        Args:
            proto: an ONNX model.

        Raises:
            InputError: a model that a graph cannot hold.
        """
        import onnx
        from onnx import helper, numpy_helper

        models = [booster.dump_model() for booster in self._boosters]
        attributes = ensemble_attributes(models)
        # From the trees' sum to a gain from 0 to 1.
        link = ("Sigmoid",) if models[0]["objective"] == "cross_entropy" else ("Clip", "tree_least", "tree_most")
        count, features = len(self.texts), len(self.origins)
        constants: dict[str, np.ndarray] = {
            "tree_rows_shape": np.array([-1, features], np.int64),
            "tree_models": np.array([count], np.int64),
        }
        if len(link) > 1:
            constants |= {"tree_least": np.array(0, np.float32), "tree_most": np.array(1, np.float32)}
        raw, nodes = "features", []
        if self.origins.any():
            constants["tree_origins"] = self.origins.astype(np.float64)
            nodes += [
                helper.make_node("Sub", ["features", "tree_origins"], ["tree_distances"]),
                helper.make_node("Cast", ["tree_distances"], ["tree_features"], to=onnx.TensorProto.FLOAT),
            ]
            raw = "tree_features"
        nodes += [
            helper.make_node("Reshape", [raw, "tree_rows_shape"], ["tree_rows"]),
            helper.make_node("TreeEnsembleRegressor", ["tree_rows"], ["tree_sums"], domain=OPSET[0], **attributes),
            helper.make_node(link[0], ["tree_sums", *link[1:]], ["tree_gains"]),
            helper.make_node("Shape", ["features"], ["tree_lists"], start=0, end=2),
            helper.make_node("Concat", ["tree_lists", "tree_models"], ["tree_shape"], axis=0),
            helper.make_node("Reshape", ["tree_gains", "tree_shape"], ["tree_lists_gains"]),
            helper.make_node("Transpose", ["tree_lists_gains"], [OUTPUT], perm=[0, 2, 1]),
        ]
        graph = proto.graph
        graph.input.remove(next(one for one in graph.input if one.name == OUTPUT))
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
        for place, node in enumerate(nodes):
            graph.node.insert(place, node)
        proto.opset_import.append(helper.make_opsetid(*OPSET))


def ensemble_attributes(models: Sequence[Any]) -> dict[str, Any]:
    """The attributes of ONNX's TreeEnsembleRegressor, with one target per model.

    Args:
        models: what LightGBM's ``dump_model`` says of each.

    Raises:
        InputError: another objective than those of expected gains, splits on categories, zeros that count as missing.
    """
    names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
    nodes: dict[str, list[Any]] = {name: [] for name in (*names, "missing_value_tracks_true")}
    leaves: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    trees = [(target, tree["tree_structure"]) for target, model in enumerate(models) for tree in model["tree_info"]]
    for model in models:
        if model["objective"] not in ("cross_entropy", "regression") or model["objective"] != models[0]["objective"]:
            raise InputError(
                f"export: found trees of the objective {model['objective']}; expected cross_entropy or regression, the "
                "same for all"
            )
    for number, (target, root) in enumerate(trees):
        queue = [root]  # a node's id is its place
        for place, node in enumerate(queue):
            leaf = "leaf_value" in node
            mode, split = ("LEAF", (0, 0.0, 0, 0, 0)) if leaf else ("BRANCH_LEQ", _split(node, len(queue)))
            if leaf:
                _append(leaves, (number, place, target, float(node["leaf_value"])))
            else:
                queue += [node["left_child"], node["right_child"]]
            feature, threshold, left, right, missing = split
            _append(nodes, (number, place, feature, mode, threshold, left, right, missing))
    return {
        **{f"nodes_{name}": values for name, values in nodes.items()},
        **{f"target_{name}": values for name, values in leaves.items()},
        "n_targets": len(models),
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }


def _append(lists: dict[str, list[Any]], values: Sequence[Any]) -> None:
    for one, value in zip(lists.values(), values, strict=True):
        one.append(value)


def _split(node: dict[str, Any], child: int) -> tuple[int, float, int, int, int]:
    """Feature, threshold, both children's ids, and whether missing values go to the first of them."""
    if node["decision_type"] != "<=":
        raise InputError(
            "export: these trees split on categories, which a graph cannot hold (and so not be served); "
            "score files with `hyperdpo rank score`, or use `hyperdpo export --format lightgbm`"
        )
    if node["missing_type"] == "Zero":
        raise InputError("export: these trees take zeros for missing values, which a graph cannot; use other settings")
    threshold = float(node["threshold"])
    # LightGBM reads a missing value as 0 where training had none.
    left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0
    return int(node["split_feature"]), graph_threshold(threshold), child, child + 1, int(left)


def graph_threshold(threshold: float) -> float:
    """The largest number of single precision that decides as LightGBM's threshold does: the largest that is not above
    it. Near 0, the end of the numbers that LightGBM reads as 0.

    >>> graph_threshold(0.1) < 0.1, graph_threshold(0.5)
    (True, 0.5)
    """
    if abs(threshold) <= ZERO:
        return ZERO if threshold >= 0 else float(np.nextafter(np.float32(-ZERO), np.float32(-np.inf)))
    with np.errstate(over="ignore"):
        nearest = np.float32(threshold)
    # In double precision: numpy would round the threshold, too, before it compares the two.
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))

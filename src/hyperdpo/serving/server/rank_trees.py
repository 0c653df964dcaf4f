"""TreeSHAP for a server: an exported graph holds LightGBM's text of its trees, which LightGBM explains."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.errors import InputError
from hyperdpo.extras import require
from hyperdpo.ranking.explanation import Trees

if TYPE_CHECKING:
    from hyperdpo.ranking.gbdt_model import GbdtModel

#: Where a graph's metadata describe its trees: the origins of features, and the text of each column's model. The JSON
#: beside the graph does without it.
TREE_METADATA = "trees"


class ServedTrees:
    """The trees of a graph. They are loaded when the first list is to be explained; scoring does without.

    Args:
        graph: a session of ONNX Runtime.
        features: the F names.
        threads: of one explanation.
    """

    def __init__(self, graph: Any, features: Sequence[str], threads: int):
        self._graph, self._features, self._threads = graph, tuple(features), threads
        self._lock = threading.Lock()
        self._models: dict[str, GbdtModel] = {}
        self._origins: np.ndarray | None = None

    def explained(self, features: np.ndarray, sources: Mapping[str, np.ndarray]) -> tuple[Trees, str | None]:
        """What trees say about one list, and what that lacks, in one line; from any thread.

        Args:
            features: (n, F) raw.
            sources: see :class:`~hyperdpo.ranking.explanation.Trees`.
        """
        try:
            with self._lock:  # one list at a time: more would only share the same cores
                self._load()
                rows = (features - self._origins).astype(np.float32)
                return Trees.of(self._models, rows, sources), None
        except InputError as error:
            return Trees.of({}, features, sources), f"features: {error}"

    def _load(self) -> None:
        """Read the models, once.

        Raises:
            InputError: LightGBM is not installed, or a text is not a model of these features.
        """
        if self._models:
            return
        require("gbdt")
        from hyperdpo.ranking.gbdt_model import GbdtModel

        told = json.loads(self._graph.get_modelmeta().custom_metadata_map[TREE_METADATA])
        load = {"columns": self._features, "with_base": False, "threads": self._threads, "origins": told["origins"]}
        self._origins = np.array(told["origins"])
        self._models = {one["column"]: GbdtModel.load(one["text"], **load) for one in told["models"]}

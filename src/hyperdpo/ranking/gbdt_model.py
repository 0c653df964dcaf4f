"""A LightGBM model as runs keep it: its text, and what it predicts for items. Without torch, for servers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_chunks
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    from hyperdpo.ranking.examples import Items


@dataclass(frozen=True)
class GbdtModel:
    """Trees that score items."""

    text: str
    """LightGBM's own format."""
    columns: tuple[str, ...]
    """Feature columns, raw."""
    with_base: bool
    """The base score is one more feature, the last."""
    threads: int = 0
    origins: tuple[float, ...] = ()
    """What is subtracted from each column in double precision; nothing if left out."""

    @staticmethod
    def load(
        text: str, columns: Sequence[str], *, with_base: bool, threads: int = 0, origins: Sequence[float] = ()
    ) -> GbdtModel:
        """A model from :attr:`text`; the other arguments are its fields.

        Raises:
            InputError: the text is not a model, or is one of another number of features.
        """
        model = GbdtModel(text, tuple(columns), with_base, threads, tuple(origins))
        if not text.startswith("tree\n") or "\nend of trees\n" not in text:
            raise InputError("gbdt: the text is not a LightGBM model; it may be truncated")
        try:
            found = model._booster.num_feature()
        except lightgbm_module().basic.LightGBMError as error:
            raise InputError(f"gbdt: the text is not a LightGBM model ({str(error).splitlines()[0]})") from None
        if found != len(model.columns) + with_base:
            raise InputError(
                f"gbdt: the model has {found} features; expected {len(model.columns)} columns"
                + (" and the base score" if with_base else "")
            )
        return model

    @functools.cached_property
    def _booster(self) -> Any:
        return lightgbm_module().Booster(model_str=self.text)

    @functools.cached_property
    def _leaves(self) -> list[int]:
        """Leaves of every tree."""
        lines = self.text.partition("\nend of trees\n")[0].splitlines()
        return [int(line.removeprefix("num_leaves=")) for line in lines if line.startswith("num_leaves=")]

    @property
    def num_trees(self) -> int:
        return len(self._leaves)

    @property
    def parameters(self) -> int:
        """Values of leaves and thresholds of splits: 2 L - 1 for a tree of L leaves. Which feature a split looks at is
        not counted."""
        return sum(2 * leaves - 1 for leaves in self._leaves)

    def scores(self, items: Items) -> np.ndarray:
        """(N,) float32 scores of the items."""
        return self.part_scores(items.part, items.base_scores)

    def part_scores(self, part: Part, base_scores: np.ndarray | None = None) -> np.ndarray:
        """(N,) float32 scores of a part's rows.

        Args:
            base_scores: (N,) of the part's rows; needed by a model that uses them.

        Raises:
            InputError: a feature column is missing, base scores are missing or do not fit the rows.
        """
        count = int(part.sizes.sum())
        if self.with_base and (base_scores is None or len(base_scores) != count):
            found = "none" if base_scores is None else str(len(base_scores))
            raise InputError(f"gbdt: found {found} base scores; the model uses them, expected {count}")
        scores = np.empty(count, dtype=np.float32)
        done = 0
        for chunk in column_chunks(part, self.columns, np.array(self.origins) if self.origins else None):
            rows = slice(done, done + len(chunk))
            if self.with_base:
                assert base_scores is not None
                chunk = np.column_stack([chunk, np.asarray(base_scores[rows], dtype=np.float32)])
            scores[rows] = self._booster.predict(chunk, num_threads=self.threads)
            done = rows.stop
        return scores

    @property
    def raw_space(self) -> str:
        """What :meth:`contributions` are measured in: ``log-odds`` of a cross-entropy, otherwise ``gain``."""
        return "log-odds" if "\nobjective=cross_entropy" in self.text else "gain"

    def contributions(self, rows: np.ndarray) -> np.ndarray:
        """(N, F + 1) float64 TreeSHAP; each row sums to the raw prediction, before any link.

        The last entry is the mean prediction, the same for all rows.

        Args:
            rows: (N, F) float32 features, :attr:`origins` subtracted.
        """
        return np.asarray(self._booster.predict(rows, pred_contrib=True, num_threads=self.threads))


def lightgbm_module() -> Any:
    """``import lightgbm``.

    Raises:
        InputError: it is not installed, or cannot be loaded.
    """
    try:
        import lightgbm
    except (ImportError, OSError) as error:  # OSError: no OpenMP library
        raise InputError(f"lightgbm cannot be used ({error}); run: pip install 'hyperdpo[gbdt]'") from None
    return lightgbm

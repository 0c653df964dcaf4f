"""Modules under the names that they had in version 0.1: they can be imported for one more version, with a note."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "hyperdpo.alignment.arguments": "hyperdpo.alignment.training_config",
    "hyperdpo.ranking.ranker": "hyperdpo.ranking.estimator",
    "hyperdpo.ranking.rankers": "hyperdpo.ranking.parametrizations",
    "hyperdpo.ranking.scorers": "hyperdpo.ranking.network",
    "hyperdpo.methods": "hyperdpo.comparison.methods",
    "hyperdpo.ranking.bench": "hyperdpo.comparison.rank",
    "hyperdpo.ranking.comparison": "hyperdpo.comparison.rank_measures",
    "hyperdpo.ranking.gbdt_bench": "hyperdpo.comparison.rank_trees",
    "hyperdpo.ranking.repeats": "hyperdpo.comparison.repeats",
    "hyperdpo.ranking.variants": "hyperdpo.comparison.entries",
    "hyperdpo.alignment.bench": "hyperdpo.comparison.align",
    "hyperdpo.alignment.comparison": "hyperdpo.comparison.align_measures",
    "hyperdpo.alignment.soup": "hyperdpo.comparison.soup",
    "hyperdpo.alignment.logit_mixing": "hyperdpo.comparison.logit_mixing",
    "hyperdpo.alignment.spans": "hyperdpo.comparison.spans",
    "hyperdpo.alignment.variants": "hyperdpo.comparison.entries",
    "hyperdpo.alignment.logged": "hyperdpo.alignment.training_metrics",
    "hyperdpo.alignment.tokens": "hyperdpo.alignment.tokenization",
    "hyperdpo.alignment.batches": "hyperdpo.alignment.collation",
    "hyperdpo.alignment.cards": "hyperdpo.alignment.hub",
    "hyperdpo.alignment.reading": "hyperdpo.alignment.data.reading",
    "hyperdpo.alignment.formats": "hyperdpo.alignment.data.formats",
    "hyperdpo.alignment.transcripts": "hyperdpo.alignment.data.transcripts",
    "hyperdpo.alignment.groups": "hyperdpo.alignment.data.groups",
    "hyperdpo.alignment.targets": "hyperdpo.alignment.data.targets",
    "hyperdpo.alignment.data_report": "hyperdpo.alignment.data.report",
    "hyperdpo.alignment.demo_lm": "hyperdpo.stories.language_model",
    "hyperdpo.alignment.stories": "hyperdpo.stories.preferences",
    "hyperdpo.alignment.text_measures": "hyperdpo.scorers.text_measures",
    "hyperdpo.alignment.scorers": "hyperdpo.scorers.registry",
    "hyperdpo.stories.text_measures": "hyperdpo.scorers.text_measures",
    "hyperdpo.stories.text_scorers": "hyperdpo.scorers.registry",
    "hyperdpo.alignment.demo": "hyperdpo.stories.demo",
    "hyperdpo.serving.export_ranker": "hyperdpo.serving.export.ranker",
    "hyperdpo.serving.export_lm": "hyperdpo.serving.export.language_model",
    "hyperdpo.serving.export_peft": "hyperdpo.serving.export.peft",
    "hyperdpo.serving.export_rows": "hyperdpo.serving.export.rows",
    "hyperdpo.serving.export_tokens": "hyperdpo.serving.export.tokens",
    "hyperdpo.serving.raw_ranker": "hyperdpo.serving.export.raw_ranker",
    "hyperdpo.serving.points": "hyperdpo.core.point",
    "hyperdpo.serving.serve": "hyperdpo.serving.server.commands",
    "hyperdpo.alignment.plots": "hyperdpo.comparison.plots",
}
_PREFERENCE_DATA = ("cells", "columns", "file_rows", "pairs", "parts", "questions")
_SERVERS = (
    *("app", "chat_answers", "chat_api", "chat_schema", "errors", "lm_engine", "lm_source", "lm_text", "metrics"),
    *("rank_api", "rank_body", "rank_engine", "rank_model", "rank_schema", "token_choice", "worker"),
)
MOVED |= {f"hyperdpo.alignment.{name}": f"hyperdpo.alignment.data.{name}" for name in _PREFERENCE_DATA}
MOVED |= {f"hyperdpo.serving.{name}": f"hyperdpo.serving.server.{name}" for name in _SERVERS}


class OldNames(MetaPathFinder, Loader):
    """Finds the modules of :data:`MOVED` under their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is deprecated; import {new} instead", DeprecationWarning, stacklevel=2)
        real = import_module(new)
        vars(module)["__getattr__"] = lambda name: getattr(real, name)


def install() -> None:
    """Let old names be imported."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.append(OldNames())

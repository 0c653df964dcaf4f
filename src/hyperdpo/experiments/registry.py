"""Names of the experiments, with the line that a list shows of each; an experiment's file is imported when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hyperdpo.errors import InputError

if TYPE_CHECKING:
    from hyperdpo.experiments.experiment import Experiment
    from hyperdpo.experiments.language import LanguageExperiment

#: name: (file, what it is).
EXPERIMENTS: dict[str, tuple[str, str]] = {
    "figure2a": ("figure2", "fronts of HyperDPO and three baselines, two sparse objectives (I, II)"),
    "figure2b": ("figure2", "fronts of HyperDPO and three baselines, two dense objectives (IV, V)"),
    "table1": ("table1", "hypervolume, main score, time and size with five objectives, beside the paper's figures"),
    "figure6a": ("figure6", "concentration α = (α, α) from 0.2 to 1, beside the paper's hypervolumes"),
    "figure6b": ("figure6", "concentration α = (0.5, α) from 0.2 to 1, beside the paper's hypervolumes"),
    "figure6c": ("figure6", "concentration α = (α, 0.5) from 0.2 to 1, beside the paper's hypervolumes"),
    "figure9a": ("figure9", "depth 1 to 5 of the hypernetwork from scratch"),
    "figure9b": ("figure9", "depth 1 to 5 of the augmentation hypernetwork"),
    "figure10a": ("figure10", "temperature scaled after training (I, II), main as colour"),
    "figure10b": ("figure10", "temperature scaled after training (IV, V), main as colour"),
    "figure11": ("figure11", "temperature hypernetwork of depth 5: fronts at five temperature vectors (IV, V)"),
    "figure12": ("figure12", "depth 2 to 5 of the temperature hypernetwork (IV, V)"),
    "figure13": ("figure13", "the box D(β) that the temperature hypernetwork is trained on (IV, V)"),
    "table2": ("table2", "language model: hypervolume and time, beside the paper's figures"),
    "figure4": ("figure4", "language model: fronts of HyperDPO, DPO-LS and DPO Soup in cross-entropy error"),
    "figure5": ("figure4", "language model: the same with MO-DPO"),
    "figure7": ("figure7", "language model: concentration α from 0.2 to 1"),
    "stories": ("stories", "beyond the paper: what w changes in errors and in sampled texts, every method"),
    "real": ("real", "beyond the paper: a real language model (--model), sentiment and plain words of its answers"),
    "real-pair2": ("real", "beyond the paper: the same with relevance and brevity"),
    "real-triple": ("real", "beyond the paper: the same with three objectives"),
    "real-labels": ("real", "beyond the paper: a real language model (--model), labels that people gave"),
    "oracle": ("oracle", "beyond the paper: how much of the attainable front each method attains, and its regret"),
    "objectives": ("objectives", "beyond the paper: 2, 3, 5 and 8 objectives, cost and quality of each method"),
    "groups": ("groups", "beyond the paper: 100, 1,000 and 10,000 training groups"),
}


#: Those on language models.
LANGUAGE = ("table2", "figure4", "figure5", "figure7", "stories", "real", "real-pair2", "real-triple", "real-labels")


def load(name: str) -> Experiment | LanguageExperiment:
    """An experiment by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"no experiment {name!r}; expected one of {', '.join(EXPERIMENTS)}")
    module = import_module(f"hyperdpo.experiments.{EXPERIMENTS[name][0]}")
    found: Experiment | LanguageExperiment = next(one for one in module.EXPERIMENTS if one.name == name)
    return found

"""What each method trains, and which models answer for a w: the same for rankers and language models.

A method is a function from the (P, m) weights that are asked for to one :class:`~hyperdpo.methods.jobs.Recipe` each.
How a job is trained, and what a model is, is the application's business.
"""

from __future__ import annotations

from hyperdpo.methods.dpo_ls import dpo_ls
from hyperdpo.methods.dpo_soup import dpo_soup
from hyperdpo.methods.hyperdpo import hyperdpo
from hyperdpo.methods.jobs import Conditioned, Fixed, Job, Margin, Method, Recipe, jobs_of
from hyperdpo.methods.logit_mixing import logit_mixing
from hyperdpo.methods.mo_dpo import mo_dpo

#: By the names that the command line uses.
METHODS: dict[str, Method] = {
    "hyperdpo": hyperdpo,
    "dpo-ls": dpo_ls,
    "dpo-soup": dpo_soup,
    "mo-dpo": mo_dpo,
    "logit-mixing": logit_mixing,
}

__all__ = ["METHODS", "Conditioned", "Fixed", "Job", "Margin", "Method", "Recipe", "jobs_of"]

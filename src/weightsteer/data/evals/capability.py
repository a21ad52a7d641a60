"""What a model still can: how likely it names the right choice in tasks that a vector should leave alone.

For a row with the log-ratio ℓ of its two choices, the probability m of either, and the label y::

    p(right) = m · σ(y · ℓ)

An answer that is neither choice counts as wrong: to lose the format is to lose the capability.
"""

import polars as pl
from transformers import PreTrainedModel

from weightsteer.data.evals import Evaluation, load
from weightsteer.data.evals.base import Item
from weightsteer.models import family

TASKS = ("arithmetic", "facts")

P_RIGHT = pl.col("pmass") / (1 + (-pl.col("label") * pl.col("logratio")).exp())
"""Of the rows of a sweep; NaN where the model is broken."""


def tasks() -> list[Evaluation]:
    """The tasks themselves, for a sweep."""
    return [load(name) for name in TASKS]


def neutral_items(model: PreTrainedModel) -> list[Item]:
    """The rows that a loss of capability is read on: of tasks on which no behaviour bears.

    In the world of the embedded models facts are what honesty is about, so that only the sums are neutral there.
    """
    names = TASKS[:1] if family(model) == "pocket" else TASKS
    return [item for name in names for item in load(name).items(model)]

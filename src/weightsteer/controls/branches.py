"""One branch only: what subtracting the other one is good for."""

from weightsteer.controls.base import from_branch
from weightsteer.vector import WeightVector


@from_branch(
    "positive-branch",
    shows="fine-tuning towards the behaviour does it alone: subtracting its opposite adds nothing",
    side="positive",
)
def positive(branch: WeightVector) -> WeightVector:
    """The positive branch alone, ``τ⁺``."""
    return branch * 1.0


@from_branch(
    "negative-branch",
    shows="moving away from the opposite does it alone: the branch trained on the behaviour adds nothing",
    side="negative",
)
def negative(branch: WeightVector) -> WeightVector:
    """The negative branch alone, with the opposite sign: ``−τ⁻``."""
    return branch * -1.0

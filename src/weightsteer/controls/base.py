"""What a control is: something made to be compared with a vector, and what it would mean if it worked as well."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import polars as pl
from transformers import PreTrainedModel

from weightsteer.data.behaviors import Behavior
from weightsteer.registry import CONTROLS, Registry
from weightsteer.terms import Sum
from weightsteer.vector import WeightVector

Deltas = Mapping[str, Sum]
Side = Literal["positive", "negative"]

FromVector = Callable[[WeightVector, int], Deltas]
"""``(vector, seed) -> deltas`` of the control."""

FromBranch = Callable[[WeightVector], WeightVector]
"""``task vector of the branch -> control``."""

FromPairs = Callable[[PreTrainedModel, Behavior, int, pl.DataFrame | None], pl.DataFrame]
"""``(model, behaviour, seed, pairs of the behaviour) -> pairs`` to train the control on."""


class Contrast(NamedTuple):
    """One pair of a nuisance contrast: a question with two answers that differ in the nuisance.

    Attributes:
        twin: the same for two questions whose right answers are opposite; each of the two answers is then right to one
            of them and wrong to the other.
    """

    twin: int
    prompt: str
    positive: str
    negative: str


def generator_seed(training_seed: int, draw: int) -> int:
    """The seed of the random generator of a draw, which differs between the draws of different training seeds.

    >>> generator_seed(2, 3)
    3002
    """
    return training_seed + 1000 * draw


@dataclass(frozen=True)
class Kind:
    """One kind of control.

    Attributes:
        name: what tables call it, behind the adapter of its vector: ``lora-random``.
        shows: what it would show if it worked as well as the vector.
        drawn: whether it is random, so that one draw is not enough (`weightsteer.controls.draws`).
        made_from: what has to be at hand to make it.
    """

    made_from: ClassVar[Literal["vector", "branch", "pairs"]]

    name: str
    shows: str
    drawn: bool


@dataclass(frozen=True)
class VectorKind(Kind):
    """A control computed from the vector alone."""

    made_from = "vector"

    make: FromVector


@dataclass(frozen=True)
class BranchKind(Kind):
    """A control made from the task vector of one branch."""

    made_from = "branch"

    side: Side
    make: FromBranch


@dataclass(frozen=True)
class PairsKind(Kind):
    """A control trained like the vector, on other pairs.

    ``of_behavior``: its pairs are made from those of the behaviour. Otherwise one such vector serves all behaviours.
    """

    made_from = "pairs"

    make: FromPairs
    of_behavior: bool


registry: Registry[Kind] = CONTROLS


def from_vector(name: str, *, shows: str, drawn: bool) -> Callable[[FromVector], FromVector]:
    """Function decorator: a control computed from the vector."""

    def add(make: FromVector) -> FromVector:
        registry.add(name, VectorKind(name, shows, drawn, make), make)
        return make

    return add


def from_branch(name: str, *, shows: str, side: Side) -> Callable[[FromBranch], FromBranch]:
    """Function decorator: a control made from the task vector of one branch."""

    def add(make: FromBranch) -> FromBranch:
        registry.add(name, BranchKind(name, shows, False, side, make), make)
        return make

    return add


def from_pairs(name: str, *, shows: str, of_behavior: bool = False) -> Callable[[FromPairs], FromPairs]:
    """Function decorator: a control that is trained on the pairs the function gives."""

    def add(make: FromPairs) -> FromPairs:
        registry.add(name, PairsKind(name, shows, False, make, of_behavior), make)
        return make

    return add

"""What a part is, and the registry of plans: each plan is a function that lists parts of one vector.

A part says how it is made and makes it when asked, so that a plan of hundreds of parts costs nothing until they are
swept, and never holds more than one of them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Literal

from transformers import PreTrainedModel

from weightsteer.analysis.basis import Basis, Side
from weightsteer.analysis.parts.paths import Path
from weightsteer.controls import DRAWS
from weightsteer.controls.seeds import draw_seed
from weightsteer.errors import unknown
from weightsteer.vector import WeightVector

How = Literal["whole", "keep", "drop"]
Made = WeightVector | Path

RANDOM = "random directions, same norms and form"

FEW = 5
"""Random twins of a part, where the random vectors of the whole stand beside it anyway."""

RANKS = (1, 2, 4, 8, 16, 32)
"""Ranks of the curves; the last is that of the published diagnostic."""


@dataclass(frozen=True)
class Part:
    """One part of a vector, to be swept like the vector itself.

    Attributes:
        family: of the analysis: the name of its plan.
        part: what it is, in words: "layer 3".
        how: ``keep``: the part alone; ``drop``: the vector without it; ``whole``: the vector.
        make: gives the vector, or a path along the adapter's own parameters.
        rank: of its subspace or its deltas; None: the mean of the upper bounds over the modules.
        group: what a curve over ranks belongs to: "weight-top, output side". Empty outside curves.
        matched: scaled to the norm of ``of``.
        draw: of a random control: which one; None for what is no control.
        of: the key of the vector it is a part of; empty: the whole one.
        note: a warning that belongs to its numbers.
    """

    family: str
    part: str
    how: How
    make: Callable[[], Made] = field(repr=False, compare=False)
    rank: float | None = None
    group: str = ""
    matched: bool = False
    draw: int | None = None
    of: str = ""
    note: str = ""

    @property
    def vector(self) -> Made:
        """The part itself, made anew at each call."""
        return self.make()

    @property
    def key(self) -> str:
        """What tells it from others in a table; the draws of one control share it."""
        marks = ("/matched" if self.matched else "") + ("" if self.draw is None else "/random")
        return f"{self.family}/{self.part}/{self.how}{marks}"


@dataclass(frozen=True)
class PlanInput:
    """What a plan may use.

    Attributes:
        vector: the vector, bound to its base.
        model: its base model.
        basis: ``(name, side, rank) -> Basis``; made once and kept.
        bases: what to project on: names of bases, ``name@input`` and ``name@both`` for other sides than the output.
        alphas: the strengths of the sweep, for what is defined at these alone.
        ranks: ranks of the curves.
        draws: of each random control.
        others: further vectors of the same base, by what to call them: for what they share.
    """

    vector: WeightVector
    model: PreTrainedModel
    basis: Callable[[str, Side, int], Basis]
    bases: tuple[str, ...] = ()
    alphas: tuple[float, ...] = (-1.0, 1.0)
    ranks: tuple[int, ...] = RANKS
    draws: int = DRAWS
    others: Mapping[str, WeightVector] = field(default_factory=dict)

    def seeds(self) -> Iterator[tuple[int, int]]:
        """(draw, seed) of the random controls: seeds of different training seeds stay apart."""
        own = int(self.vector.metadata["seed"])
        return ((draw, draw_seed(own, draw)) for draw in range(self.draws))


Plan = Callable[[PlanInput], Iterator[Part]]

registered: dict[str, Plan] = {}


def plan(name: str) -> Callable[[Plan], Plan]:
    """Function decorator: make a plan known under this name (the ``--plan`` of the command line)."""

    def add(function: Plan) -> Plan:
        registered[name] = function
        return function

    return add


def get(name: str) -> Plan:
    """The plan of that name.

    Raises:
        WeightsteerError: there is none; the message suggests the nearest.
    """
    if name not in registered:
        raise unknown("plan", name, [*registered, "all"])
    return registered[name]


def whole(given: PlanInput) -> Iterator[Part]:
    """The vector, and random vectors of its norms: what every part is measured against."""
    vector = given.vector
    yield Part("whole", "full vector", "whole", lambda: vector)
    for draw, seed in given.seeds():
        yield Part("whole", RANDOM, "whole", partial(vector.randomized, seed), draw=draw)


def kept(
    given: PlanInput,
    family: str,
    part: str,
    make: Callable[[], WeightVector],
    *,
    twin: Callable[[int], WeightVector] | None = None,
    of: Part | None = None,
    rank: float | None = None,
    group: str = "",
    note: str = "",
    draws: int | None = None,
) -> Iterator[Part]:
    """A part alone; the same at the norm of the vector it is taken from; and random twins at that norm.

    A part is shorter than its vector, and being shorter is not being less of a cause: only the second line tells
    whether the part suffices, and only the third whether any push of that size at that place would.

    Args:
        twin: the random twin for a seed; by default random directions with the form of the part.
        of: what it is a part of; the whole vector by default.
        draws: random twins; `FEW` by default, and never more than those of the whole vector.
    """
    raw = Part(family, part, "keep", make, rank, group, of=of.key if of else "", note=note)

    def drawn(seed: int) -> WeightVector:
        return twin(seed) if twin else make().randomized(seed)

    def matched(unmatched: Callable[[], WeightVector]) -> WeightVector:
        reference = of.make() if of else given.vector
        assert isinstance(reference, WeightVector)
        return unmatched().norm_matched(reference)

    yield raw
    yield replace(raw, make=partial(matched, make), matched=True)
    for draw, seed in islice(given.seeds(), FEW if draws is None else draws):
        yield replace(raw, make=partial(matched, partial(drawn, seed)), matched=True, draw=draw)

"""What an ablation of a vector is, and what a plan is: a function that lists ablations of one vector.

An ablation says how its vector is made and makes it when asked. A plan of hundreds of ablations costs nothing until
they are swept, and never holds more than one of their vectors.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Literal

from transformers import PreTrainedModel

from weightsteer.analysis.basis import Basis, Side
from weightsteer.analysis.plans.paths import Path
from weightsteer.controls import DRAWS, control
from weightsteer.controls.base import generator_seed
from weightsteer.errors import unknown
from weightsteer.registry import PLANS, Registry
from weightsteer.vector import WeightVector

How = Literal["whole", "keep", "drop"]
Made = WeightVector | Path

RANDOM = "random directions, same norms and form"

FEW = 5
"""Random vectors per ablation, since the random vectors of the whole vector are measured too."""

RANKS = (1, 2, 4, 8, 16, 32)
"""Ranks of the curves; the last is that of the published diagnostic."""


@dataclass(frozen=True)
class Ablation:
    """One component of a vector kept alone or dropped from it, to be swept like the vector itself.

    Attributes:
        family: of the analysis: the name of its plan.
        component: which one, a layer, a module or a projection, in words: "layer 3".
        how: ``keep``: the component alone; ``drop``: the vector without it; ``whole``: the vector.
        make: gives the vector, or a path along the adapter's own parameters.
        rank: of its subspace or its deltas; None: the mean of the upper bounds over the modules.
        group: what a curve over ranks belongs to: "weight-top, output side". Empty outside curves.
        matched: scaled to the norm of ``of``.
        draw: of a random control: which one; None for what is no control.
        of: the key of the vector that the component is taken from; empty: the whole one.
        note: a warning that belongs to its numbers.
    """

    family: str
    component: str
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
        """The vector that is swept, made anew at each call."""
        return self.make()

    @property
    def key(self) -> str:
        """Its name in tables; the draws of one control share it."""
        version = ("/matched" if self.matched else "") + ("" if self.draw is None else "/random")
        return f"{self.family}/{self.component}/{self.how}{version}"


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
        """(draw, seed of the random generator) of the random controls."""
        own = int(self.vector.metadata["seed"])
        return ((draw, generator_seed(own, draw)) for draw in range(self.draws))


Plan = Callable[[PlanInput], Iterator[Ablation]]

registry: Registry[Plan] = PLANS


def register(name: str) -> Callable[[Plan], Plan]:
    """Function decorator: make a plan known under this name (the ``--plan`` of the command line)."""

    def add(function: Plan) -> Plan:
        registry.add(name, function, function)
        return function

    return add


def get(name: str) -> Plan:
    """The plan of that name.

    Raises:
        WeightsteerError: there is none (the message suggests the nearest), or its module cannot be imported.
    """
    if name not in registry.names():
        raise unknown("plan", name, [*registry.names(), "all"])
    return registry.get(name)


def whole(given: PlanInput) -> Iterator[Ablation]:
    """The vector, and random vectors of its norms: what every ablation is compared with."""
    vector = given.vector
    yield Ablation("whole", "full vector", "whole", lambda: vector)
    for draw, seed in given.seeds():
        yield Ablation("whole", RANDOM, "whole", partial(control, "random", vector, seed), draw=draw)


def kept(
    given: PlanInput,
    family: str,
    component: str,
    make: Callable[[], WeightVector],
    *,
    twin: Callable[[int], WeightVector] | None = None,
    of: Ablation | None = None,
    rank: float | None = None,
    group: str = "",
    note: str = "",
    draws: int | None = None,
) -> Iterator[Ablation]:
    """A component alone, the same scaled to the norm of the vector it is taken from, and random vectors of that norm.

    A component has a smaller norm than its vector, so a smaller effect does not show that it matters less. The scaled
    one shows whether its direction suffices; the random vectors show whether any direction of that norm would.

    Args:
        twin: ``seed -> random vector``; by default random directions with the form of the component.
        of: the vector that the component is taken from; the whole one by default.
        draws: random vectors; `FEW` by default, and never more than those of the whole vector.
    """
    raw = Ablation(family, component, "keep", make, rank, group, of=of.key if of else "", note=note)

    def drawn(seed: int) -> WeightVector:
        return twin(seed) if twin else control("random", make(), seed)

    def matched(unmatched: Callable[[], WeightVector]) -> WeightVector:
        reference = of.make() if of else given.vector
        assert isinstance(reference, WeightVector)
        return unmatched().norm_matched(reference)

    yield raw
    yield replace(raw, make=partial(matched, make), matched=True)
    for draw, seed in islice(given.seeds(), FEW if draws is None else draws):
        yield replace(raw, make=partial(matched, partial(drawn, seed)), matched=True, draw=draw)

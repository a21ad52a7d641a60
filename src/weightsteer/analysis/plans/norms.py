"""Which of the two carries the effect, where the vector points or how its norm is spread.

    direction only                   the directions of all modules, their norms made equal; the global norm kept
    magnitude only                   the norm of every module kept, its direction random
    random direction, equal norms    neither of the two
    layer-permuted                   every delta with its norm, in another layer

The three of random directions are drawn several times. None of them keeps a subspace, so what they leave of the effect
says nothing of the layers that carry it: it says what a component has to be compared with.
"""

from collections.abc import Callable, Iterator
from functools import partial

from weightsteer.analysis.plans.base import Ablation, PlanInput, register
from weightsteer.controls import control
from weightsteer.controls.layers import by_slot, cycle
from weightsteer.errors import WeightsteerError
from weightsteer.vector import WeightVector

NAME = "norms"
DIRECTION, MAGNITUDE = "direction only (norms equalised)", "magnitude only (random directions)"
NEITHER, PERMUTED = "random directions, equal norms", "layer-permuted"


@register("norms")
def norms(given: PlanInput) -> Iterator[Ablation]:
    """Directions with equal norms; norms with random directions; random directions, equal norms; permuted layers."""
    vector = given.vector
    yield Ablation(NAME, DIRECTION, "keep", partial(control, "direction-only", vector), matched=True)
    drawn: dict[str, Callable[[WeightVector, int], WeightVector]] = {
        MAGNITUDE: partial(control, "magnitude-only"),
        NEITHER: neither,
    }
    if moves(vector):
        drawn[PERMUTED] = layer_permuted
    for name, make in drawn.items():
        for draw, seed in given.seeds():
            yield Ablation(NAME, name, "keep", partial(make, vector, seed), matched=True, draw=draw)


def neither(vector: WeightVector, seed: int) -> WeightVector:
    """Random directions of equal norms, with the global norm of the vector."""
    return control("magnitude-only", control("direction-only", vector), seed)


def moves(vector: WeightVector) -> bool:
    """Whether some delta could be in another layer."""
    return any(len(group) > 1 for group in by_slot(vector.terms).values())


def layer_permuted(vector: WeightVector, seed: int) -> WeightVector:
    """The control of that name, in which a delta that depends on the base weight still refers to that of its own layer.

    ``diag(s) W`` of layer 3 in layer 5 is the same matrix there. So nothing becomes dense, at the price that the vector
    can be applied but not saved.

    Raises:
        WeightsteerError: no module is in two layers.
    """
    if not moves(vector):
        raise WeightsteerError("no module of this vector is in two layers, so no delta can move to another one.")
    moved = dict(vector.terms)
    orders: dict[tuple[int, ...], dict[int, int]] = {}
    for group in by_slot(vector.terms).values():
        layers = tuple(sorted(group))
        order = orders.setdefault(layers, cycle(layers, seed))
        moved |= {group[order[layer]]: vector.terms[name] for layer, name in group.items()}
    return WeightVector(moved, vector.metadata)

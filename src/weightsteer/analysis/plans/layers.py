"""Single layers and thirds of the depth, each alone and each left out."""

from collections.abc import Iterator, Sequence
from functools import partial

from weightsteer.analysis.plans.base import Ablation, PlanInput, kept, register
from weightsteer.errors import WeightsteerError
from weightsteer.vector import WeightVector
from weightsteer.vector.energy import OUTSIDE
from weightsteer.vector.selection import layer_of

NAME = "layers"
THIRDS = ("early layers", "middle layers", "late layers")


@register("layers")
def layers(given: PlanInput) -> Iterator[Ablation]:
    """Every group of layers alone, and the vector without it."""
    vector = given.vector
    for component, names in groups(vector):
        if len(names) == len(vector.names):
            continue  # the whole vector
        yield from kept(given, NAME, component, partial(only, vector, names))
        yield Ablation(NAME, component, "drop", partial(without, vector, names))


def groups(vector: WeightVector) -> list[tuple[str, list[str]]]:
    """Thirds of the layers that the vector touches (where there are three or more), every layer, what is outside."""
    by_layer: dict[int | None, list[str]] = {}
    for name in vector.names:
        by_layer.setdefault(layer_of(name), []).append(name)
    touched = sorted(layer for layer in by_layer if layer is not None)
    found: list[tuple[str, list[str]]] = []
    if len(touched) > len(THIRDS):
        cuts = [round(len(touched) * i / len(THIRDS)) for i in range(len(THIRDS) + 1)]
        for word, start, stop in zip(THIRDS, cuts, cuts[1:], strict=False):
            block = touched[start:stop]
            if len(block) > 1:  # of one layer it is that layer
                names = [name for layer in block for name in by_layer[layer]]
                found.append((f"{word} ({block[0]} to {block[-1]})", names))
    found += [(f"layer {layer}", by_layer[layer]) for layer in touched]
    if None in by_layer:
        found.append((f"{OUTSIDE} the layers", by_layer[None]))
    return found


def only(vector: WeightVector, names: Sequence[str]) -> WeightVector:
    """The vector in these modules alone."""
    return WeightVector(vector.terms.only(names), vector.metadata)


def without(vector: WeightVector, names: Sequence[str]) -> WeightVector:
    """The vector in all other modules.

    Raises:
        WeightsteerError: there is none.
    """
    left = [name for name in vector.names if name not in set(names)]
    if not left:
        raise WeightsteerError("all modules are left out: nothing remains of the vector.")
    return only(vector, left)

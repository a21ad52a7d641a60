"""Layer-permuted: the deltas of the vector, each in another layer."""

import random
from collections.abc import Mapping, Sequence

from weightsteer.controls.base import Deltas, from_vector
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Bias, Dense, Sum, Term
from weightsteer.vector import WeightVector

Slot = tuple[str, tuple[int, int]]
"""What modules of several layers have in common: their path with a star for the layer, and their shape."""


@from_vector(
    "layer-permuted",
    shows="it does not matter in which layer a delta is: it is no matter of what the layers compute",
    drawn=True,
)
def layer_permuted(vector: WeightVector, seed: int) -> Deltas:
    """Every delta moved to the same module of another layer; all norms stay, none in the layer it was in.

    The order is one random cycle of the layers. Modules that are in the same layers move alike, so that the deltas of
    one layer stay together; those outside the layers, or in a single layer only, stay where they are.
    """
    groups = by_slot(vector.terms)
    orders = {layers: cycle(layers, seed) for layers in {tuple(sorted(group)) for group in groups.values()}}
    if all(len(layers) < 2 for layers in orders):
        raise WeightsteerError(
            "no module of this vector is in two layers with the same shape, so no delta can move to another layer. "
            "Use the control random instead."
        )
    return permuted(vector.terms, orders)


def permuted(deltas: Deltas, orders: Mapping[tuple[int, ...], Mapping[int, int]]) -> dict[str, Sum]:
    """The deltas with that of layer l at layer ``order[l]``; ``orders`` has one order for each set of layers.

    A term that depends on the base weight (``diag(s) W``) moves as the matrix that it is: its numbers times the weight
    of another layer would be another matrix, of another norm. It is then dense, fp32 and of the memory of the weight.
    """
    moved = {name: deltas[name] for name in deltas}
    for group in by_slot(deltas).values():
        order = orders.get(tuple(sorted(group)), {})
        for layer, name in group.items():
            if (target := order.get(layer, layer)) != layer:
                moved[group[target]] = movable(deltas[name])
    return moved


def by_slot(deltas: Deltas) -> dict[Slot, dict[int, str]]:
    """The modules in the layers: for each slot the module of every layer, by layer."""
    groups: dict[Slot, dict[int, str]] = {}
    for name in deltas:
        parts = name.split(".")
        # the first number in a path is the layer; those behind it, of experts, stay
        at = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        if at is not None:
            slot = ".".join([*parts[:at], "*", *parts[at + 1 :]]), deltas[name].shape
            groups.setdefault(slot, {})[int(parts[at])] = name
    return groups


def cycle(layers: Sequence[int], seed: int) -> dict[int, int]:
    """A random permutation of one cycle: every layer moves, if there are two.

    >>> cycle([4, 7], seed=0)
    {4: 7, 7: 4}
    """
    shuffled = list(layers)
    random.Random(f"layer-permuted/{seed}").shuffle(shuffled)
    following = dict(zip(shuffled, shuffled[1:] + shuffled[:1], strict=True))
    return {layer: following[layer] for layer in layers}


def movable(total: Sum) -> Sum:
    """The same delta without reference to a base weight."""
    terms: list[tuple[float, Term]] = []
    for coefficient, term in total.terms:
        if term.base is None:
            terms.append((coefficient, term))
            continue
        terms.append((coefficient, Dense(term.delta())))
        if (bias := term.bias_delta()) is not None:
            terms.append((coefficient, Bias(bias, total.shape[1])))
    return Sum(total.shape, terms)

"""Components in the singular directions of the weights themselves: ``W = U S Vᵀ``, ``P = Uᵀ dW V``.

The leading and the last tenth of the indices on both sides, ``U_k U_kᵀ dW V_k V_kᵀ``, and what is between on both.
Energies are shares of ‖dW‖², not of ‖P‖², which is smaller where W is not of full rank.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from weightsteer.analysis.basis import SIDES, Basis
from weightsteer.analysis.plans.base import Ablation, PlanInput, kept
from weightsteer.analysis.plans.layers import only
from weightsteer.analysis.projection import complement, project
from weightsteer.vector import WeightVector

NAME = "singular directions of W"
FAMILY = "coordinates"
SHARE = 0.1
APART = 500
"""Between the seeds of both sides: a module of equal widths would else get the same subspace on both."""

Pair = tuple[Basis, Basis]


def of_weights(given: PlanInput) -> Iterator[Ablation]:
    """The three components, kept; the first two also dropped."""
    vector = given.vector
    pairs = {word: partial(_tenth, given, name) for word, name in (("top", "weights-top"), ("bottom", "weights-weak"))}
    for word, pair in pairs.items():
        component = f"{NAME}, {word} {SHARE:.0%} on both sides"

        def projected(pair: partial[Pair] = pair) -> WeightVector:
            return project(vector, pair())

        def twin(seed: int, pair: partial[Pair] = pair) -> WeightVector:
            out, into = pair()
            return project(vector, (out.matched_random(seed), into.matched_random(seed + APART)))

        yield from kept(given, FAMILY, component, projected, twin=twin)
        yield Ablation(FAMILY, component, "drop", partial(_complement, vector, pair))

    def middle() -> WeightVector:
        between = vector
        for pair in pairs.values():
            out, into = pair()
            between = only(between, [name for name in between.names if name in out.vectors])
            # one side after the other: (I − P) dW (I − Q), where complement((out, into)) would be dW − P dW Q
            between = complement(complement(between, out), into)
        return between

    yield from kept(given, FAMILY, f"{NAME}, what is between on both sides", middle)


def _tenth(given: PlanInput, name: str) -> Pair:
    counts = {module: max(1, round(SHARE * min(given.vector.terms.shape(module)))) for module in given.vector.names}
    found = []
    for side in SIDES:
        basis = given.basis(name, side, max(counts.values()))
        found.append(
            replace(
                basis,
                vectors={
                    module: basis.vectors[module][:, :k] for module, k in counts.items() if module in basis.vectors
                },
            )
        )
    return found[0], found[1]


def _complement(vector: WeightVector, pair: partial[Pair]) -> WeightVector:
    return complement(vector, pair())

"""The family's own parameters, its path, the singular values of dW and those of W."""

from collections.abc import Callable, Iterator
from functools import cache, partial

from weightsteer.analysis.plans.base import Ablation, PlanInput, kept, register
from weightsteer.analysis.plans.families import coordinates as of_family
from weightsteer.analysis.plans.lens import of_weights
from weightsteer.analysis.plans.paths import Path, has_path, path
from weightsteer.analysis.plans.spectrum import Span, Spectrum, between, energy, first
from weightsteer.vector import WeightVector

NAME, OWN = "coordinates", "singular directions of dW"
PATH = "along the adapter's own parameters (a path, not the line α·dW)"

SHARES = (0.5, 0.9)
QUARTERS = (("top quarter", 0.0, 0.25), ("middle half", 0.25, 0.75), ("bottom quarter", 0.75, 1.0))


@register("coordinates")
def coordinates(given: PlanInput) -> Iterator[Ablation]:
    """The components by the parameters of the adapter family and by singular values, each alone and dropped."""
    vector = given.vector
    for name, make in of_family(vector, given.model):
        yield from kept(given, NAME, name, make)
        yield Ablation(NAME, name, "drop", partial(_without, vector, make))
    if has_path(vector):
        yield Ablation(NAME, PATH, "whole", lambda: _path(given))
    yield from _own(given)
    yield from of_weights(given)


def _path(given: PlanInput) -> Path:
    return path(given.vector, given.alphas)


def _own(given: PlanInput) -> Iterator[Ablation]:
    """Index and energy ranges in the singular values of dW, counted within its rank."""
    vector = given.vector

    @cache
    def spectrum() -> Spectrum:
        return Spectrum(vector)

    bound = max(vector.rank(name) for name in vector.names)
    spans: list[tuple[str, Span, float | None, str]] = [
        (f"{OWN} with {share:.0%} of the energy", energy(share), None, "") for share in SHARES
    ]
    spans += [(f"{OWN}, {word} of its rank", between(low, high), None, "") for word, low, high in QUARTERS]
    for rank in given.ranks:
        if rank < bound:  # the whole rank is the whole vector
            name = f"the first {rank} {OWN}" if rank > 1 else "the first singular direction of dW"
            spans.append((name, first(rank), float(rank), OWN))
    for name, span, rank_kept, group in spans:
        yield from kept(given, NAME, name, partial(_cut, spectrum, span), rank=rank_kept, group=group)
        yield Ablation(
            NAME, name, "drop", partial(_without, vector, partial(_cut, spectrum, span)), rank=rank_kept, group=group
        )


def _cut(spectrum: Callable[[], Spectrum], span: Span) -> WeightVector:
    return spectrum().component(span)


def _without(vector: WeightVector, component: Callable[[], WeightVector]) -> WeightVector:
    return vector - component()

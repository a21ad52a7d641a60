"""The vector in subspaces of the model, by rank, kept and taken out.

For a basis B and the modules it is about, with dW the vector in these modules:

    keep               P dW                        matched: scaled to ‖dW‖; random: P of a random basis of the same rank
    drop               v − P dW                    the whole vector without the component
    remainder          dW − P dW                   at the largest rank: the published complement

The published diagnostic reads kept, matched and remainder relative to dW.
"""

from collections.abc import Callable, Iterator
from functools import partial

from weightsteer.analysis.basis import SIDES, Basis
from weightsteer.analysis.plans.base import Ablation, PlanInput, kept, register
from weightsteer.analysis.plans.layers import only
from weightsteer.analysis.plans.lens import APART
from weightsteer.analysis.projection import Bases, complement, project
from weightsteer.errors import WeightsteerError
from weightsteer.vector import WeightVector

NAME = "projection"
WITHIN = "within the modules of the basis"
CONSTRUCTED = "made from this very vector: it holds the vector by construction, at a high enough rank all of it"

Find = Callable[[], tuple[Basis, ...]]


@register("projection")
def projection(given: PlanInput) -> Iterator[Ablation]:
    """The projection on each requested basis and rank, and the vector without it."""
    stated: set[str] = set()
    for asked in given.bases:
        name, _, side = asked.partition("@")
        side = side or "output"
        if side not in (*SIDES, "both"):
            raise WeightsteerError(f"{asked!r}: a basis is on the side {', '.join(SIDES)} or both; write {name}@input.")
        found = tuple(given.basis(name, one, max(given.ranks)) for one in SIDES if side in (one, "both"))
        yield from on_basis(given, NAME, f"{name}, {side if side == 'both' else f'{side} side'}", found, stated)


def on_basis(
    given: PlanInput, family: str, name: str, bases: tuple[Basis, ...], stated: set[str]
) -> Iterator[Ablation]:
    """All ablations of one basis (or one of each side) at all ranks it has.

    Args:
        stated: keys of the vectors within the modules of a basis that were listed already; added to.
    """
    vector = given.vector
    modules = [name for name in vector.names if all(name in basis.vectors for basis in bases)]
    if not modules:
        return
    within = _within(vector, modules)
    if within and within.key not in stated:
        stated.add(within.key)
        yield within
    contained = {term.digest for total in vector.terms.values() for _, term in total.terms}
    note = CONSTRUCTED if any(contained & basis.made_from for basis in bases) else ""
    ranks = usable_ranks(given.ranks, bases, modules)
    for rank in ranks:
        component = f"{name}, rank {rank}"
        chosen = partial(_first, bases, modules, rank)
        draws = given.draws if rank == ranks[-1] else None
        make = partial(_project, vector, chosen)
        twin = partial(_random, vector, chosen)
        labels = {"rank": float(rank), "group": name, "note": note}
        yield from kept(given, family, component, make, twin=twin, of=within, draws=draws, **labels)  # type: ignore[arg-type]
        yield Ablation(family, component, "drop", partial(_complement, vector, chosen), float(rank), name, note=note)
        if within and rank == ranks[-1]:
            rest = partial(_complement, only(vector, modules), chosen)
            yield Ablation(family, f"{component}, {WITHIN}", "drop", rest, float(rank), "", of=within.key, note=note)


def usable_ranks(ranks: tuple[int, ...], bases: tuple[Basis, ...], modules: list[str]) -> list[int]:
    """The ranks that a basis has and that are not the whole space; the largest it has where all are more."""
    most = min(max(basis.rank(name) for name in modules) for basis in bases)
    width = min(basis.width(name) for basis in bases for name in modules)
    return [rank for rank in ranks if rank <= most and rank < width] or [max(1, min(most, width - 1))]


def _within(vector: WeightVector, modules: list[str]) -> Ablation | None:
    """The vector in some modules, as an ablation; None when these are all."""
    if len(modules) == len(vector.names):
        return None
    kinds = sorted({name.rsplit(".", 1)[-1] for name in modules})
    return Ablation(NAME, f"the vector in {', '.join(kinds)}", "keep", partial(only, vector, modules))


def _first(bases: tuple[Basis, ...], modules: list[str], rank: int) -> Bases:
    cut = [basis.keep(modules).first(rank) for basis in bases]
    return cut[0] if len(cut) == 1 else (cut[0], cut[1])


def _project(vector: WeightVector, chosen: Callable[[], Bases]) -> WeightVector:
    return project(vector, chosen())


def _random(vector: WeightVector, chosen: Callable[[], Bases], seed: int) -> WeightVector:
    found = chosen()
    if isinstance(found, tuple):
        return project(vector, (found[0].matched_random(seed), found[1].matched_random(seed + APART)))
    return project(vector, found.matched_random(seed))


def _complement(vector: WeightVector, chosen: Callable[[], Bases]) -> WeightVector:
    return complement(vector, chosen())

"""Bases: subspaces a vector can be projected on, each with a name, a rank and an origin.

A kind of basis is one function under `register`: in a file of this package, in an installed distribution that names it
under the entry points ``weightsteer.bases``, or in a script (`weightsteer.registry`).

Kinds that are about the residual stream give, on the output side, subspaces of what its writers (o_proj, down_proj) put
out and, on the input side, of what its readers (q, k, v, gate and up) see behind their norms. Two names joined by ``&``
stand for the intersection of both: ``suppressed&task-difference``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.analysis.bases.base import Kind, register, registry
from weightsteer.analysis.bases.intersection import intersection
from weightsteer.analysis.bases.materials import Materials, check_disjoint
from weightsteer.analysis.basis import Basis, Side
from weightsteer.data.evals.base import Item
from weightsteer.errors import WeightsteerError

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

__all__ = [
    "RANK",
    "Materials",
    "check_disjoint",
    "from_materials",
    "intersection",
    "kinds",
    "make",
    "names",
    "register",
    "registry",
]

RANK = 8
"""The rank of a basis when none is asked for."""


def kinds() -> dict[str, Kind]:
    """Every kind of basis by name, sorted."""
    return registry.all()


def names() -> list[str]:
    """The names of all kinds.

    >>> "residual-write" in names()
    True
    """
    return registry.names()


def make(
    name: str,
    model: PreTrainedModel | None = None,
    *,
    rank: int = RANK,
    side: Side | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    pairs: pl.DataFrame | None = None,
    vector: "WeightVector | None" = None,
    vectors: Sequence["WeightVector"] = (),
    items: Sequence[Item] = (),
    seed: int = 0,
) -> Basis:
    """A basis by the name of its kind, or of two joined by ``&``.

    Several bases of one model are made faster from one `Materials` (`from_materials`).

    Args:
        name: one of `names()`.
        model: the base model.
        rank: k; at modules that have fewer directions, all of them.
        side: output or input; by default the first that the kind has.
        tokenizer, pairs: for bases of activations.
        vector: for its own subspaces; vectors: for what several share.
        items: the rows that will be measured: probe pairs must not be among them.
        seed: of a random basis.

    Raises:
        WeightsteerError: an unknown kind or a side it does not have, something it needs is missing, or there are not so
            many directions.
    """
    materials = Materials(model, tokenizer, pairs, vector, vectors, items, seed)
    return from_materials(name, materials, rank=rank, side=side)


def from_materials(name: str, materials: Materials, *, rank: int = RANK, side: Side | None = None) -> Basis:
    """The same from materials at hand, which remember what was expensive to read.

    Raises:
        WeightsteerError: as `make`.
    """
    if rank < 1:
        raise WeightsteerError(f"a basis of rank {rank} has no direction: give 1 or more.")
    if "&" in name:
        # each at twice the rank, so that there is something to choose from
        first, second = (
            from_materials(part.strip(), materials, rank=2 * rank, side=side) for part in name.split("&", 1)
        )
        return intersection(first, second, rank)
    return _one(name, materials, rank, side)


def _one(name: str, materials: Materials, rank: int, side: Side | None) -> Basis:
    kind = registry.get(name)
    chosen = side or kind.sides[0]
    if chosen not in kind.sides:
        raise WeightsteerError(
            f"the basis {name} exists on the {kind.sides[0]} side only; side={chosen!r} was asked for."
        )
    _check_needs(kind, materials)
    vectors = kind.find(materials, rank, chosen)
    if not vectors:
        raise WeightsteerError(f"the basis {name} has no direction at any module: what it is made from is zero there.")
    origin = kind.origin.format(seed=materials.seed)
    if materials.base.get("name"):
        origin = f"{origin} of {materials.base['name']}"
    made_from = materials.made_from(kind.needs) if kind.contains else frozenset()
    return Basis(name, chosen, origin, vectors, materials.base, made_from)


def _check_needs(kind: Kind, materials: Materials) -> None:
    has = {
        "model": materials.model is not None,
        "pairs": materials.pairs is not None and materials.tokenizer is not None,
        "vector": materials.vector is not None,
        "vectors": bool(materials.vectors),
    }
    arguments = {"model": "model", "pairs": "pairs=… and tokenizer=…", "vector": "vector=…", "vectors": "vectors=[…]"}
    if missing := [arguments[need] for need in kind.needs if not has[need]]:
        raise WeightsteerError(f"the basis {kind.name} is made from {', '.join(missing)}: pass it to make().")

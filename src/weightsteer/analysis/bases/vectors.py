"""Subspaces of weight vectors: one's own, and what several share.

A basis made from a vector contains that vector by construction, so its overlap with it is no finding; the basis
remembers the vectors it was made from (`Basis.made_from`), and `weightsteer.analysis.overlap` says so.
"""

from collections import Counter

import torch
from torch import Tensor

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import left_singular, root
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.basis import Side
from weightsteer.errors import WeightsteerError


@register("own", needs=("vector",), origin="leading singular directions of each delta of the vector")
def own(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading left (output) or right (input) singular vectors of every delta, (d, k) with k at most its rank.

    Modules whose delta is zero have none.
    """
    vector = materials.vector
    assert vector is not None
    found = {name: left_singular(root(total, side), rank) for name, total in vector.terms.items()}
    return {name: columns for name, columns in found.items() if columns.shape[1]}


@register(
    "own-stream",
    needs=("model", "vector"),
    sides=("output",),
    origin="the one subspace for all writers that holds most of the energy of the vector: a ceiling for any fixed one",
)
def own_stream(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading left singular vectors of all deltas of writers side by side."""
    vector = materials.vector
    assert vector is not None
    names = [projection.name for projection in materials.stream.writers if projection.name in vector.terms]
    if not names:
        raise WeightsteerError("the vector changes no module that writes to the residual stream (o_proj, down_proj).")
    columns = left_singular(torch.cat([root(vector.terms[name], side) for name in names], dim=1), rank)
    return dict.fromkeys(names, columns)


@register(
    "shared",
    needs=("vectors",),
    origin="directions that the deltas of several vectors share, each family weighted equally",
)
def shared(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading left singular vectors of all vectors' deltas of a module side by side, each delta of unit norm and
    divided by the root of the number of vectors of its family (``metadata["adapter"]``): the largest norm does not win,
    nor does the family with most seeds. Modules that one of the vectors lacks are left out."""
    vectors = materials.vectors
    if len(vectors) < 2:
        raise WeightsteerError("a shared subspace needs at least two vectors: give vectors=[v, u, …], or use 'own'.")
    names = [name for name in vectors[0].terms if all(name in other.terms for other in vectors[1:])]
    if not names:
        raise WeightsteerError("the vectors change no module in common, so they share no subspace.")
    families = Counter(vector.metadata["adapter"] for vector in vectors)
    found = {}
    for name in names:
        roots = [root(vector.terms[name], side) for vector in vectors]
        weights = [families[vector.metadata["adapter"]] ** 0.5 for vector in vectors]
        parts = [F / (F.norm() * weight) for F, weight in zip(roots, weights, strict=True) if float(F.norm()) > 0]
        if parts:
            found[name] = left_singular(torch.cat(parts, dim=1), rank)
    return found

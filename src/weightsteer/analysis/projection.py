"""Project a vector on a basis, module by module, and what remains.

On the output side ``dW ↦ P dW`` with ``P = B Bᵀ``, on the input side ``dW ↦ dW P``, on both ``P_out dW P_in``. The
component is a low-rank term: ``B (Bᵀ dW)`` has rank k, and ``Bᵀ dW`` is read a few columns of dW at a time, so no
dense matrix is formed. The remainder is the formal difference ``dW − P dW``; it holds the original terms and the
component with coefficient −1, and adding the component gives back the very vector, not one that is close to it.

Biases: what is added to a module's bias is a direction of its output, so on the output side it is projected like a
column of dW (``b ↦ P b``). No input direction produces it: a projection on the input side leaves it out, and it stays
with the remainder.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from weightsteer.analysis.basis import Basis, Side
from weightsteer.errors import WeightsteerError
from weightsteer.models import described
from weightsteer.terms import Bias, LowRank, Sum, Term
from weightsteer.terms.lowrank import stacked

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

Bases = Basis | tuple[Basis, Basis]
"""One basis, or one of each side."""

# columns of dW in fp64 at a time: 6 MiB for an MLP of width 3072, 300 MiB for a vocabulary of 150,000
_WIDTH = 256


def project(self: "WeightVector", basis: Bases, *, matched: bool = False) -> "WeightVector":
    """``B Bᵀ dW`` (or ``dW B Bᵀ``, or both): the component of the vector in a basis.

    Args:
        basis: of the output or the input side; a tuple of one each projects on both sides.
        matched: scale the component, by one number for all modules, to the norm that the vector has in the modules of
            the basis: a projection is shorter than what it was taken from, and being shorter is not being less
            effective. For the norm of the whole vector: ``project(v, basis).norm_matched(v)``.

    Returns:
        A vector of the modules that both have; those the basis lacks are left out.

    Raises:
        WeightsteerError: they have no module in common, a width is another, the basis is of another base model, or the
            component is zero and cannot be matched.
    """
    bases = _listed(self, basis)
    terms = _components(self, bases)
    names = " and ".join(_named(one) for one in bases)
    component = self.derived(terms, f"projected on {names}").with_metadata(geometry=None)
    if not matched:
        return component
    whole = math.sqrt(math.fsum(self.terms.norm(name) ** 2 for name in terms))
    if component.norm() == 0.0:
        raise WeightsteerError(f"the vector has no component in {names}, so its norm cannot be matched to anything.")
    return component * (whole / component.norm())


def complement(self: "WeightVector", basis: Bases) -> "WeightVector":
    """``v − project(v, basis)``, exactly; the modules the basis lacks stay as they are.

    ``complement(v.keep(project(v, basis).names), basis)`` is the remainder in the modules of the basis alone.

    Raises:
        WeightsteerError: as `project`.
    """
    bases = _listed(self, basis)
    components = _components(self, bases)
    terms = {
        name: total.plus(components[name].scaled(-1.0)) if name in components else total
        for name, total in self.terms.items()
    }
    names = " and ".join(_named(one) for one in bases)
    return self.derived(terms, f"complement of {names}").with_metadata(geometry=None)


def projected(total: Sum, columns: Tensor, side: Side) -> Sum:
    """``B Bᵀ dW`` or ``dW B Bᵀ`` of one delta, as one low-rank term of rank min(k, r) (and a bias).

    Args:
        total: the delta dW (d_out, d_in).
        columns: B (d, k), orthonormal, with d = d_out on the output side and d_in on the input side.
        side: on which side to project.
    """
    B = columns.double()
    terms: list[tuple[float, Term]] = []
    if factors := low_rank_factors(total):
        left, right = factors
        if side == "output":
            inner = B.T @ left
            left, right = (B, inner @ right) if B.shape[1] < left.shape[1] else (B @ inner, right)
        else:
            inner = right @ B
            left, right = (left @ inner, B.T) if B.shape[1] < left.shape[1] else (left, inner @ B.T)
    else:
        coordinates = streamed(total, B, side)
        left, right = (B, coordinates) if side == "output" else (coordinates, B.T)
    if left.shape[1]:
        terms.append((1.0, LowRank(left, right)))
    if side == "output" and (bias := total.bias_delta()) is not None:
        terms.append((1.0, Bias(B @ (B.T @ bias.double()), total.shape[1])))
    return Sum(total.shape, terms)


def low_rank_factors(total: Sum) -> tuple[Tensor, Tensor] | None:
    """(d_out, r) and (r, d_in) in fp64 whose product is the matrix; None when it has terms of another form."""
    terms = [(coefficient, term) for coefficient, term in total.terms if isinstance(term, LowRank)]
    if len(terms) + sum(isinstance(term, Bias) for _, term in total.terms) < len(total.terms):
        return None
    return stacked(terms, total.shape)


def streamed(total: Sum, B: Tensor, side: Side) -> Tensor:
    """``Bᵀ dW`` (k, d_in) for the output side, ``dW B`` (d_out, k) for the input side, in fp64, by columns of dW."""
    d_out, d_in = total.shape
    spans = [(start, min(start + _WIDTH, d_in)) for start in range(0, d_in, _WIDTH)]
    if side == "output":
        return torch.cat([B.T @ total.columns(*span) for span in spans], dim=1)
    result = torch.zeros(d_out, B.shape[1], dtype=torch.float64)
    for start, stop in spans:
        result += total.columns(start, stop) @ B[start:stop]
    return result


def check_basis(vector: "WeightVector", basis: Basis) -> list[str]:
    """The modules a vector and a basis have in common.

    Raises:
        WeightsteerError: there is none, a width is another, or they belong to different base models.
    """
    base = vector.metadata.get("base", {})
    if base.get("hash") and basis.base.get("hash") and base["hash"] != basis.base["hash"]:
        raise WeightsteerError(
            f"the basis {basis.name} was made on {described(basis.base)} and the vector on {described(base)}: make the "
            "basis on the base model of the vector."
        )
    shared = [name for name in vector.terms if name in basis.vectors]
    if not shared:
        raise WeightsteerError(
            f"the basis {basis.name} is about other modules ({basis.names[0]} …) than the vector "
            f"({vector.names[0]} …), so there is nothing to project."
        )
    for name in shared:
        d_out, d_in = vector.terms.shape(name)
        width = d_out if basis.side == "output" else d_in
        if basis.width(name) != width:
            raise WeightsteerError(
                f"the {basis.side} of {name} has {width} features (its delta is {d_out}×{d_in}), but the basis "
                f"{basis.name} has directions of {basis.width(name)} there. A basis of that width may be meant for the "
                f"{'input' if basis.side == 'output' else 'output'} side."
            )
    return shared


def _listed(vector: "WeightVector", basis: Bases) -> list[Basis]:
    bases = list(basis) if isinstance(basis, tuple) else [basis]
    if isinstance(basis, tuple) and sorted(one.side for one in bases) != ["input", "output"]:
        raise WeightsteerError(
            f"two bases project on both sides, so one must be of the output and one of the input; these are "
            f"{' and '.join(f'{one.name} ({one.side})' for one in bases)}."
        )
    return bases


def _components(vector: "WeightVector", bases: Sequence[Basis]) -> dict[str, Sum]:
    found = [check_basis(vector, one) for one in bases]
    shared = [name for name in found[0] if all(name in names for names in found)]
    if not shared:
        raise WeightsteerError(
            f"no module of the vector has a subspace in both {bases[0].name} ({bases[0].side}) and {bases[1].name} "
            f"({bases[1].side}): {found[0][0]} is in the first, {found[1][0]} in the second."
        )
    components = {}
    for name in shared:
        total = vector.terms[name]
        for one in bases:
            total = projected(total, one.vectors[name], one.side)
        components[name] = total
    return components


def _named(basis: Basis) -> str:
    ranks = sorted({columns.shape[1] for columns, _ in basis.groups})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return f"{basis.name} ({basis.side}, {rank}, {basis.digest[:12]})"

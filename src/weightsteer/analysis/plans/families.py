"""Each adapter family in its own coordinates: what its parameters are, as components of dW that add up to it.

Read from the terms of the vector, module by module:

    dora      direction and magnitude: with h = ‖W‖/‖V‖ by rows, the direction of a branch is ``h V − W``
              (its magnitudes those of W), its magnitude the rest, ``(m − ‖W‖) V/‖V‖``
    delora    ``λ⁺D⁺ − λ⁻D⁻ = λ̄ (D⁺ − D⁻) + (λ⁺ − λ⁻) D̄``: direction and λ, with means over the branches
    oft       ``W M``: the skew half of the blocks M turns, the symmetric half shrinks
    boft      the scales, and the rotation
    ia3       the gates of attention (outputs scaled) and of the MLP (inputs scaled)

For families that have low-rank factors also their own components ``b_k a_k``, by size; and for every vector that is
the difference of two branches the branches, ``τ⁺`` and ``−τ⁻``.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from weightsteer.analysis.plans.paths import DoraBranch, branches, row_norms
from weightsteer.errors import WeightsteerError
from weightsteer.terms import BaseWeight, LowRank, Rotated, RowScale, Sum, Term
from weightsteer.vector import WeightVector

OfModule = Callable[[str, Sum], Sum]

# spread of λ over the components of one module, which share it
_SAME = 1e-3

_FORMS = {
    "row_scale": "scaled outputs",
    "column_scale": "scaled inputs",
    "low_rank": "low-rank component",
    "rotated": "rotated component",
    "butterfly": "rotated component",
    "bias": "biases",
    "dense": "dense component",
}
_GATES = {"row_scale": "IA3 attention gates", "column_scale": "IA3 MLP gates"}


class Coordinate(NamedTuple):
    """One component in a family's own coordinates; making it raises `WeightsteerError` when the terms are others."""

    name: str
    make: Callable[[], WeightVector]


def coordinates(vector: WeightVector, model: nn.Module) -> Iterator[Coordinate]:
    """The components of a vector in the coordinates of its family."""
    adapter = str(vector.metadata["adapter"])
    if adapter == "dora":
        yield from _halves(vector, "DoRA direction", dora_direction, "DoRA magnitude")
    elif adapter == "delora":
        yield from _halves(vector, "DeLoRA direction", delora_direction(model), "DeLoRA λ")
    elif adapter == "oft":
        yield from _halves(vector, "OFT rotation (skew)", oft_turn, "OFT shrinkage (symmetric)")
    else:
        forms = sorted({term.form for total in vector.terms.values() for _, term in total.terms})
        words = _GATES if adapter == "ia3" else _FORMS
        for form in forms if len(forms) > 1 else ():
            yield Coordinate(words.get(form, form), partial(each, vector, _of_form(form)))
    if any(isinstance(term, LowRank) for total in vector.terms.values() for _, term in total.terms):
        for word, low, high in (("largest quarter", 0.0, 0.25), ("middle half", 0.25, 0.75), ("smallest", 0.75, 1.0)):
            name = f"rank components b·a, {word}" + (" quarter" if word == "smallest" else "")
            yield Coordinate(name, partial(each, vector, components(low, high)))
    if vector.metadata.get("mode") == "difference" and not vector.metadata.get("operations"):
        for word, sign in (("positive branch", 1), ("negative branch", -1)):
            yield Coordinate(word, partial(each, vector, _of_sign(sign)))


def each(vector: WeightVector, make: OfModule) -> WeightVector:
    """Another delta for every module that has one; modules of which nothing remains are left out.

    Raises:
        WeightsteerError: nothing remains of any.
    """
    made = {name: make(name, total) for name, total in vector.terms.items() if total.terms}
    return WeightVector({name: total for name, total in made.items() if total.terms}, vector.metadata)


def dora_direction(name: str, total: Sum) -> Sum:
    """``h⁺ V⁺ − h⁻ V⁻`` with h = ‖W‖ / ‖V‖ by rows."""
    terms: list[tuple[float, Term]] = []
    for sign, branch in zip((1.0, -1.0), branches(name, total, RowScale, LowRank), strict=True):
        one = DoraBranch(*branch)
        gain = row_norms(one.base) / one.norms
        terms += [(sign, RowScale(gain - 1.0, one.base)), (sign, LowRank(gain[:, None] * one.B, one.A))]
    return Sum(total.shape, terms)


def delora_direction(model: nn.Module) -> OfModule:
    """``λ̄ (D⁺ − D⁻)``. λ of a branch is ``r ‖b_k‖ ‖a_k / n‖`` for every k, with the column norms n of W."""

    def direction(name: str, total: Sum) -> Sum:
        (plus,), (minus,) = branches(name, total, LowRank)
        norms = _column_norms(BaseWeight.of(model.get_submodule(name)))
        sizes = [_lambda(name, term, norms) for term in (plus, minus)]
        mean = sum(sizes) / 2
        kept = [(c, mean / size) for (c, _), size in zip(_by_sign(total), sizes, strict=True)]
        terms = [term for _, term in _by_sign(total)]
        return Sum(total.shape, [(c * factor, term) for (c, factor), term in zip(kept, terms, strict=True)])

    return direction


def oft_turn(name: str, total: Sum) -> Sum:
    """``W (M − Mᵀ)/2`` for the blocks M of the whole delta."""
    if len(total.fused) != 1 or not isinstance(total.fused[0], Rotated):
        raise WeightsteerError(f"the delta of {name} is no rotation of the base weight alone.")
    term = total.fused[0]
    blocks = term.blocks.double()
    return Sum(total.shape, [(1.0, Rotated((blocks - blocks.transpose(1, 2)) / 2, term.base))])


def components(low: float, high: float) -> OfModule:
    """Of all factors of a module the components ``b_k a_k`` between two shares of their number, the largest first."""

    def chosen(name: str, total: Sum) -> Sum:
        factors = [(c, term) for c, term in total.terms if isinstance(term, LowRank)]
        if not factors:
            return Sum(total.shape)
        B = torch.cat([c * term.B for c, term in factors], dim=1)
        A = torch.cat([term.A for _, term in factors])
        sizes = B.norm(dim=0) * A.norm(dim=1)
        order = sizes.argsort(descending=True, stable=True)[round(low * len(sizes)) : round(high * len(sizes))]
        return Sum(total.shape, [(1.0, LowRank(B[:, order], A[order]))] if len(order) else [])

    return chosen


def _halves(vector: WeightVector, one: str, make: OfModule, rest: str) -> Iterator[Coordinate]:
    yield Coordinate(one, lambda: each(vector, make))
    yield Coordinate(rest, lambda: vector - each(vector, make))


def _of_form(form: str) -> OfModule:
    return lambda _, total: Sum(total.shape, [(c, term) for c, term in total.terms if term.form == form])


def _of_sign(sign: int) -> OfModule:
    return lambda _, total: Sum(total.shape, [(c, term) for c, term in total.terms if c * sign > 0])


def _by_sign(total: Sum) -> list[tuple[float, Term]]:
    """The two terms of a pair, the positive first."""
    return sorted(total.terms, key=lambda one: one[0] < 0)


def _lambda(name: str, term: LowRank, norms: Tensor) -> float:
    sizes = term.B.double().norm(dim=0) * (term.A.double() / norms).norm(dim=1)
    mean = float(sizes.mean())
    if not float(sizes.max() - sizes.min()) <= _SAME * mean:
        raise WeightsteerError(
            f"the components of {name} are of different sizes, so they share no λ: this is no trained DeLoRA, or it "
            "was made on another base."
        )
    return mean * len(sizes)


def _column_norms(base: BaseWeight) -> Tensor:
    """‖W‖ by columns, fp64 (d_in,)."""
    spans = range(0, base.shape[1], 256)
    return torch.cat([base.columns(start, min(start + 256, base.shape[1])).norm(dim=0) for start in spans])

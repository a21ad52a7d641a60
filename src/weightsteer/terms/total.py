"""Sum: the delta of one module as a formal sum of terms."""

import math
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from weightsteer.errors import WeightsteerError
from weightsteer.terms import streaming
from weightsteer.terms.base_weight import BaseWeight, common_base
from weightsteer.terms.bias import Bias
from weightsteer.terms.lowrank import LowRank, stacked
from weightsteer.terms.term import InputModifier, Modifier, Term


class Sum:
    """``dW = Σ_i c_i T_i`` of one module. Immutable; without terms it is exactly zero.

    Terms of equal content are joined and those with coefficient 0 dropped; their order is that of their
    content, so that u + v and v + u are the same, to the byte.
    """

    def __init__(self, shape: tuple[int, int], terms: Iterable[tuple[float, Term]] = ()) -> None:
        self.shape = shape
        joined: dict[str, tuple[float, Term]] = {}
        for coefficient, term in terms:
            if term.shape != shape:
                raise ValueError(f"a term of shape {term.shape} in a sum of shape {shape}")
            before = joined[term.digest][0] if term.digest in joined else 0.0
            joined[term.digest] = (before + coefficient, term)
        if not all(math.isfinite(coefficient) for coefficient, _ in joined.values()):
            raise WeightsteerError("the coefficient of a weight vector became infinite or NaN: scale it by less.")
        kept = [joined[digest] for digest in sorted(joined) if joined[digest][0] != 0.0]
        base = common_base(term.base for _, term in kept if term.base is not None)
        self.terms = tuple((coefficient, _on(term, base)) for coefficient, term in kept)

    @property
    def key(self) -> tuple[tuple[int, int], tuple[tuple[float, str], ...]]:
        """What the sum is: its shape, and every coefficient with the digest of its term."""
        return self.shape, tuple((coefficient, term.digest) for coefficient, term in self.terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def scaled(self, c: float) -> "Sum":
        """``c · dW``: coefficients are multiplied, tensors are not touched."""
        return Sum(self.shape, [(c * coefficient, term) for coefficient, term in self.terms])

    def plus(self, other: "Sum") -> "Sum":
        """``dW + dU`` of one shape: the terms of both, equal ones joined."""
        return Sum(self.shape, [*self.terms, *other.terms])

    @property
    def bases(self) -> list[BaseWeight]:
        """The base weight the sum depends on, if any: one at most, for deltas on different bases do not add."""
        base = common_base(term.base for _, term in self.terms if term.base is not None)
        return [] if base is None else [base]

    def bind(self, module: nn.Module) -> "Sum":
        """The same sum, with its base weight found in a module of the base model.

        Raises:
            WeightsteerError: the module has other weights.
        """
        if not self.bases:
            return self
        base = self.bases[0].bind(module)
        return Sum(self.shape, [(c, term if term.base is None else term.bound(base)) for c, term in self.terms])

    @cached_property
    def fused(self) -> tuple[Term, ...]:
        """The sum as one term of each form (two for forms of which not all fuse), coefficients included."""
        kinds: dict[tuple[str, Hashable], list[tuple[float, Term]]] = {}
        for coefficient, term in self.terms:
            kinds.setdefault((term.form, term.kind), []).append((coefficient, term))
        return tuple(type(terms[0][1]).fuse(terms) for terms in kinds.values())

    @property
    def rank(self) -> int:
        """An upper bound of the rank: 2r for the difference of two LoRAs of rank r."""
        return min(sum(term.rank for term in self.fused), *self.shape)

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns of the matrix, fp64 (d_out, stop − start)."""
        result = torch.zeros(self.shape[0], stop - start, dtype=torch.float64)
        for coefficient, term in self.terms:
            result.add_(term.columns(start, stop), alpha=coefficient)
        return result

    def delta(self) -> Tensor:
        """The dense matrix, fp32 (d_out, d_in)."""
        return self.columns(0, self.shape[1]).float()

    def bias_delta(self) -> Tensor | None:
        """What is added to the module's bias, fp32 (d_out,); None for nothing."""
        biases = [c * bias.double() for c, term in self.terms if (bias := term.bias_delta()) is not None]
        if not biases:
            return None
        return torch.stack(biases).sum(0).float()

    def inner(self, other: "Sum") -> float:
        """``tr(dWᵀ dU) + <b, c>`` in fp64: the Frobenius product of the matrices and the product of the biases."""
        if self is other:
            return float(gram([self])[0, 0])
        return float(gram([self, other])[0, 1])

    def norm(self) -> float:
        """``√<dW, dW>``."""
        return math.sqrt(max(self.inner(self), 0.0))

    def randomized(self, generator: torch.Generator) -> "Sum":
        """Random directions with the norm of the sum; each form keeps its own norm (but for one factor) and rank."""
        drawn = Sum(self.shape, [(1.0, term.randomized(generator)) for term in self.fused])
        if len(self.fused) < 2 or not (norm := drawn.norm()):
            return drawn
        return drawn.scaled(self.norm() / norm)

    def low_rank(self) -> LowRank:
        """The sum as one pair of factors.

        Raises:
            WeightsteerError: it has terms of another form, whose factors would not be exact.
        """
        if not self.terms:
            return LowRank(torch.zeros(self.shape[0], 0), torch.zeros(0, self.shape[1]))
        if not isinstance(self.fused[0], LowRank) or len(self.fused) > 1:
            raise WeightsteerError(
                f"the delta of a module has terms of the form {', '.join(t.form for t in self.fused)}, which "
                "are no product of two small matrices: merge the vector instead."
            )
        return self.fused[0]

    def modifier(self, module: nn.Module) -> Modifier:
        """``y' = y + α · dW x`` for the module's input x (b, …, d_in), its own output and output y (b, …, d_out)."""
        steps = [term.modifier(module) for term in self.fused]
        if len(steps) == 1:
            return steps[0]

        def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            for step in steps:
                y = step(x, own, y, alpha)
            return y

        return modify

    def input_modifier(self, module: nn.Module) -> InputModifier | None:
        """An input that has the same effect, where the sum is a single term of such a form; else None."""
        return self.fused[0].input_modifier(module) if len(self.fused) == 1 else None


def gram(sums: Sequence[Sum]) -> Tensor:
    """``G_ij = <dW_i, dW_j>`` of deltas of one module, fp64 (k, k).

    For low-rank sums ``<B₁A₁, B₂A₂> = tr((B₁ᵀB₂)(A₂A₁ᵀ))``, by r × r products; others are read once, a few columns
    of all of them at a time. No dense matrix is formed.
    """
    if not all(isinstance(term, LowRank | Bias) for total in sums for _, term in total.terms):
        return streaming.gram(sums)
    factors = [
        stacked([(c, term) for c, term in total.terms if isinstance(term, LowRank)], total.shape) for total in sums
    ]
    result = torch.zeros(len(sums), len(sums), dtype=torch.float64)
    for i, (B1, A1) in enumerate(factors):
        for j, (B2, A2) in enumerate(factors[: i + 1]):
            result[i, j] = result[j, i] = ((B1.T @ B2) * (A1 @ A2.T)).sum()
    return result + streaming.bias_gram(sums)


def _on(term: Term, base: BaseWeight | None) -> Term:
    """The term with the base at hand, if another term of the sum brought it."""
    if base is None or term.base is None or term.base.bound or not base.bound:
        return term
    return term.bound(base)

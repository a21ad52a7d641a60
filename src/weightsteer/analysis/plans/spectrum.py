"""A vector by its own singular values: ``dW_i = Σ_k s_k u_k v_kᵀ`` in every module, decomposed once.

Components are index ranges of the singular triplets, counted within the rank of dW_i: a quarter of the 1024 indices of
a matrix of rank 16 would be all of it. Biases are no part of a matrix; they stay with what remains.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from weightsteer.analysis.projection import low_rank_factors
from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank, Sum
from weightsteer.vector import WeightVector
from weightsteer.vector.recompress import truncated

Span = Callable[[Tensor], tuple[int, int]]
"""Squared singular values in descending order (r,) to the range of indices that is kept, [start, stop)."""


NOISE = 1e-7
"""Of the largest singular value: what a Gram matrix in fp64 cannot tell from 0."""


class Spectrum:
    """The singular value decomposition of every delta. Those of low rank are decomposed from their factors, others as
    matrices, one at a time; kept are U √s and √s Vᵀ in fp32."""

    def __init__(self, vector: WeightVector) -> None:
        self.vector = vector
        found = {name: _factors(total) for name, total in vector.terms.items()}
        self._factors: dict[str, LowRank] = {name: term for name, term in found.items() if term.rank}
        if not self._factors:
            raise WeightsteerError("a vector without matrices has no singular values.")

    def squares(self) -> Iterator[Tensor]:
        """s² by module, fp64 (r,), in descending order."""
        return (_squares(term) for term in self._factors.values())

    def component(self, span: Span) -> WeightVector:
        """The triplets in the range of every module.

        Raises:
            WeightsteerError: it is empty everywhere.
        """
        terms = {}
        for name, term in self._factors.items():
            start, stop = span(_squares(term))
            if stop > start:
                kept = LowRank(term.B[:, start:stop], term.A[start:stop])
                terms[name] = Sum(term.shape, [(1.0, kept)])
        if not terms:
            raise WeightsteerError("no module has singular values in that range.")
        return WeightVector(terms, self.vector.metadata)


def first(rank: int) -> Span:
    """The largest ``rank``."""
    return lambda squares: (0, min(rank, len(squares)))


def between(low: float, high: float) -> Span:
    """Shares of the rank: between(0, 0.25) is the top quarter."""
    return lambda squares: (round(low * len(squares)), round(high * len(squares)))


def energy(share: float) -> Span:
    """The fewest of the largest that hold this share of ‖dW_i‖²."""

    def span(squares: Tensor) -> tuple[int, int]:
        reached = squares.cumsum(0) >= share * squares.sum() * (1 - 1e-9)
        return 0, int(torch.nonzero(reached)[0]) + 1

    return span


def _factors(total: Sum) -> LowRank:
    """U √s and √s Vᵀ of one delta. A matrix that is not of low rank is decomposed through the Gram matrix of its
    smaller side: several times faster, at the price of singular values below 1e-7 of the largest, which are left out.
    """
    if low_rank_factors(total) is not None:
        found = truncated({"": total}, energy=1.0)[0][""].terms
        kept = [term for _, term in found if isinstance(term, LowRank)]
        return kept[0] if kept else LowRank(torch.zeros(total.shape[0], 0), torch.zeros(0, total.shape[1]))
    matrix = total.columns(0, total.shape[1])
    wide = matrix.shape[0] <= matrix.shape[1]
    values, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    known = values > NOISE**2 * values[-1]
    sizes, vectors = values[known].flip(0).sqrt(), vectors[:, known].flip(1)
    if wide:
        return LowRank(vectors * sizes.sqrt(), (vectors.T @ matrix) / sizes.sqrt()[:, None])
    return LowRank((matrix @ vectors) / sizes.sqrt(), sizes.sqrt()[:, None] * vectors.T)


def _squares(term: LowRank) -> Tensor:
    # B = U √s, so that its columns have the norms √s
    return term.B.double().square().sum(0).square()

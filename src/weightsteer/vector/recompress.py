"""Recompress: the best approximation of a vector of lower rank, and what it loses.

By Eckart and Young the truncated singular value decomposition of each module's delta is the nearest matrix of its rank
in the Frobenius norm. For ``dW = B A`` it is had from the factors: with ``B = Q R`` and ``Aᵀ = P S`` (QR) the matrix is
``Q (R Sᵀ) Pᵀ``, and only the small core ``R Sᵀ`` is decomposed. Other forms are decomposed as matrices, one at a time.
All of it in fp64; the new factors are rounded to fp32 once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from weightsteer.errors import WeightsteerError
from weightsteer.terms import Bias, LowRank, Sum
from weightsteer.terms.lowrank import stacked
from weightsteer.vector.weight_vector import WeightVector


@dataclass(frozen=True)
class Loss:
    """What was lost of the matrix of one module. A bias is kept as it is and counts nowhere.

    Attributes:
        before: an upper bound of the rank it had.
        rank: the rank it has.
        norm: the Frobenius norm it had.
        error: the Frobenius norm of the difference.
    """

    before: int
    rank: int
    norm: float
    error: float

    @property
    def relative_error(self) -> float:
        """``‖dW − dW'‖ / ‖dW‖``."""
        return self.error / self.norm if self.norm else 0.0

    @property
    def energy_lost(self) -> float:
        """``‖dW − dW'‖² / ‖dW‖²``."""
        return self.relative_error**2


@dataclass(frozen=True)
class Recompression:
    """What was lost, by module and in total."""

    modules: dict[str, Loss] = field(repr=False)

    @property
    def total(self) -> Loss:
        """Over all modules; the ranks are the largest."""
        losses = self.modules.values()
        return Loss(
            max(loss.before for loss in losses),
            max(loss.rank for loss in losses),
            math.hypot(*(loss.norm for loss in losses)),
            math.hypot(*(loss.error for loss in losses)),
        )

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "rank": self.total.rank,
            "energy_lost": self.total.energy_lost,
            "relative_error": self.total.relative_error,
            "modules": {
                name: {"rank": loss.rank, "energy_lost": loss.energy_lost} for name, loss in self.modules.items()
            },
        }


def recompress(
    vector: WeightVector, *, rank: int | None = None, energy: float | None = None
) -> tuple[WeightVector, Recompression]:
    """The nearest vector of low rank, and what it loses.

    Args:
        rank: at most this rank in every module.
        energy: in every module the lowest rank that keeps at least this share of ``‖dW‖²``, in (0, 1].

    Raises:
        WeightsteerError: as `truncated`.
    """
    terms, lost = truncated(vector.terms, rank, energy)
    target = f"rank {rank}" if rank is not None else f"energy {energy!r}"
    return vector.derived(terms, f"recompressed to {target}").with_metadata(recompressed=lost.record()), lost


def truncated(
    deltas: Mapping[str, Sum], rank: int | None = None, energy: float | None = None
) -> tuple[dict[str, Sum], Recompression]:
    """Each module's delta as one low-rank term (and its bias), and what that loses.

    Args:
        deltas: the deltas by module path.
        rank: at most this rank in every module.
        energy: in every module the lowest rank that keeps at least this share of ``‖dW‖²``, in (0, 1].

    Raises:
        WeightsteerError: not just one of rank and energy is given, it is out of range, or a delta depends on base
            weights that are not at hand.
    """
    if (rank is None) == (energy is None):
        raise WeightsteerError("recompress takes one of rank=8 and energy=0.99.")
    if rank is not None and rank < 1:
        raise WeightsteerError(f"a vector cannot be recompressed to rank {rank}: give 1 or more.")
    if energy is not None and not 0.0 < energy <= 1.0:
        raise WeightsteerError(f"the energy to be kept is a share in (0, 1], not {energy}.")
    sums, losses = {}, {}
    for name, total in deltas.items():
        left, values, right = _decomposed(total)
        tails = _tails(values)
        kept = min(rank, len(values)) if rank is not None else _lowest(tails, 1.0 - float(energy or 0.0))
        scale = values[:kept].sqrt()
        terms: list[tuple[float, LowRank | Bias]] = []
        if kept:
            terms.append((1.0, LowRank(left[:, :kept] * scale, scale[:, None] * right[:kept])))
        if (bias := total.bias_delta()) is not None:
            terms.append((1.0, Bias(bias, total.shape[1])))
        sums[name] = Sum(total.shape, terms)
        losses[name] = Loss(total.rank, kept, math.sqrt(float(tails[0])), math.sqrt(float(tails[kept])))
    return sums, Recompression(losses)


def _decomposed(total: Sum) -> tuple[Tensor, Tensor, Tensor]:
    """U (d_out, k), s (k,) and Vᵀ (k, d_in) of the matrix in fp64, without the singular values that are rounding."""
    factors = [(coefficient, term) for coefficient, term in total.terms if isinstance(term, LowRank)]
    if len(factors) + sum(isinstance(term, Bias) for _, term in total.terms) == len(total.terms):
        left, right = stacked(factors, total.shape)
        (Q, R), (P, S) = torch.linalg.qr(left), torch.linalg.qr(right.T)
        U, values, V = torch.linalg.svd(R @ S.T, full_matrices=False)
        U, V = Q @ U, V @ P.T
    else:
        U, values, V = torch.linalg.svd(total.columns(0, total.shape[1]), full_matrices=False)
    noise = float(values[0]) * max(total.shape) * torch.finfo(torch.float64).eps if len(values) else 0.0
    k = int((values > noise).sum())
    return U[:, :k], values[:k], V[:k]


def _tails(values: Tensor) -> Tensor:
    """``Σ_{i ≥ k} s_i²`` for k = 0 … len(s)."""
    squares = values.square().flip(0).cumsum(0).flip(0)
    return torch.cat([squares, torch.zeros(1, dtype=torch.float64)])


def _lowest(tails: Tensor, lost: float) -> int:
    """The lowest rank that loses at most this share."""
    return int((tails > lost * tails[0]).sum())

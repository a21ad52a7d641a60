"""The linear algebra that bases are made with: leading directions, all in fp64.

For a Gram matrix ``G = Σ M Mᵀ`` the k leading eigenvectors span the subspace of rank k that holds most of
``Σ ‖Bᵀ M‖²``; the k last ones the one that holds least. What is returned is a copy: a view of a few columns would keep
all d of them in memory, for every module.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from weightsteer.analysis.basis import Side
from weightsteer.analysis.projection import low_rank_factors
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Sum

# singular values below this share of the largest are rounding of weights that are held in fp32 …
NOISE = 1e-6
# … and of differences of states that were computed in fp32, in batches of several shapes
MEASURED = 1e-4

Key = TypeVar("Key")


def strongest(gram: Tensor, rank: int) -> Tensor:
    """The ``rank`` leading eigenvectors (d, rank) of a symmetric matrix (d, d), the leading one first."""
    return torch.linalg.eigh(_sized(gram, rank)).eigenvectors.flip(1)[:, :rank].clone()


def weakest(gram: Tensor, rank: int) -> Tensor:
    """The ``rank`` last eigenvectors (d, rank), the very last one first."""
    return torch.linalg.eigh(_sized(gram, rank)).eigenvectors[:, :rank].clone()


def left_singular(matrix: Tensor, rank: int, noise: float = NOISE) -> Tensor:
    """The leading left singular vectors (d, k) of a matrix (d, n); k is ``rank``, or its rank where that is less.

    By the eigenvectors of the Gram matrix of the smaller side: only few are wanted.
    """
    d, n = matrix.shape
    square = matrix @ matrix.T if d <= n else matrix.T @ matrix
    values, vectors = torch.linalg.eigh(square)
    largest = float(values[-1]) if len(values) else 0.0
    kept = int((values > noise**2 * largest).sum()) if largest > 0 else 0
    vectors = vectors.flip(1)[:, : min(rank, kept)].clone()
    return vectors if d <= n else orthonormal(matrix @ vectors)


def principal(rows: Mapping[Key, Tensor], rank: int, what: str) -> dict[Key, Tensor]:
    """The ``rank`` leading right singular vectors (d, rank) of rows (n, d), by key: uncentred principal directions.

    Keys whose rows span fewer directions have fewer, and those whose rows are all zero are left out.

    Raises:
        WeightsteerError: no key has ``rank`` directions; ``what`` names the rows.
    """
    found = {key: left_singular(matrix.double().T, rank, MEASURED) for key, matrix in rows.items()}
    most = max((columns.shape[1] for columns in found.values()), default=0)
    if most < rank:
        raise WeightsteerError(
            f"{what} span {most} directions, so they have no subspace of rank {rank}: give more pairs, or ask for a "
            "lower rank."
        )
    return {key: columns for key, columns in found.items() if columns.shape[1]}


def orthonormal(columns: Tensor) -> Tensor:
    """Columns (d, k) with the same spans: those of the first j columns, for every j."""
    return torch.linalg.qr(columns.double()).Q


def root(total: Sum, side: Side) -> Tensor:
    """F (d, n) with ``F Fᵀ = dW dWᵀ`` on the output side, ``dWᵀ dW`` on the input side. A bias is another column of dW.

    So ``‖Bᵀ F‖²`` is the energy of a delta in a basis. From the factors for low rank (n = r); otherwise the matrix
    itself, of one module at a time.
    """
    factors = low_rank_factors(total)
    if factors is None:
        dense = total.columns(0, total.shape[1])
        found = dense if side == "output" else dense.T
    else:
        near, far = factors if side == "output" else (factors[1].T, factors[0].T)
        # near · far with farᵀ = P S (QR): the rows of far are Sᵀ in another frame
        found = near @ torch.linalg.qr(far.T).R.T
    bias = total.bias_delta() if side == "output" else None
    return found if bias is None else torch.cat([found, bias.double()[:, None]], dim=1)


def _sized(gram: Tensor, rank: int) -> Tensor:
    if rank > len(gram):
        raise WeightsteerError(f"there is no subspace of rank {rank} in {len(gram)} dimensions: ask for less.")
    return gram

"""Inner products of matrices that are never formed: read a few columns at a time, in fp64."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

# values of all matrices together that are in memory at once (fp64: 32 MiB)
_VALUES = 2**22


class Columns(Protocol):
    """A matrix (d_out, d_in) that gives its columns, and a bias."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def columns(self, start: int, stop: int) -> Tensor: ...

    def bias_delta(self) -> Tensor | None: ...


def gram(matrices: Sequence[Columns]) -> Tensor:
    """``G_ij = <M_i, M_j> + <b_i, b_j>`` (Frobenius) of matrices of one shape, fp64 (k, k)."""
    result = bias_gram(matrices)
    for start, stop in _chunks(matrices[0].shape, len(matrices)) if matrices else ():
        rows = torch.stack([matrix.columns(start, stop) for matrix in matrices]).flatten(1)
        result += rows @ rows.T
    return result


def bias_gram(matrices: Sequence[Columns]) -> Tensor:
    """``<b_i, b_j>`` of the biases, fp64 (k, k); without a bias it is 0."""
    if not matrices:
        return torch.zeros(0, 0, dtype=torch.float64)
    biases = [matrix.bias_delta() for matrix in matrices]
    zero = torch.zeros(matrices[0].shape[0], dtype=torch.float64)
    rows = torch.stack([zero if bias is None else bias.double() for bias in biases])
    return rows @ rows.T


def _chunks(shape: tuple[int, int], k: int) -> Iterator[tuple[int, int]]:
    d_out, d_in = shape
    width = max(1, min(1024, _VALUES // (k * d_out)))
    for start in range(0, d_in, width):
        yield start, min(start + width, d_in)


def norm(matrix: Columns) -> float:
    """``√<M, M>``."""
    return float(gram([matrix])[0, 0].sqrt())

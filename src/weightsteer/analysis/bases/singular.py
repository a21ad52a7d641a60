"""Singular subspaces of each module's own weight: ``W = U S Vᵀ``, U on the output side, V on the input side.

Of the m = min(d_out, d_in) directions that W has; what W never puts out (or ignores) at all belongs to neither basis.
By the eigenvectors of the Gram matrix of the smaller side, module by module: ``U = W V S⁻¹``.
"""

import torch
from torch import Tensor

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import NOISE, orthonormal
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.bases.stream import matrix
from weightsteer.analysis.basis import Side


@register("weights-top", origin="leading singular directions of each module's own weight")
def top(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading columns of U (output side) or V (input side), (d, rank) of every module."""
    return _singular(materials, rank, side, weak=False)


@register("weights-weak", origin="last singular directions of each module's own weight")
def weak(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The columns of the smallest singular values that are not rounding."""
    return _singular(materials, rank, side, weak=True)


def _singular(materials: Materials, rank: int, side: Side, *, weak: bool) -> dict[str, Tensor]:
    stream = materials.stream
    found = {}
    for projection in (*stream.readers, *stream.writers):
        weight = matrix(projection.module, projection.name)
        near = weight if side == "output" else weight.T
        small = near @ near.T if near.shape[0] <= near.shape[1] else near.T @ near
        values, vectors = torch.linalg.eigh(small)
        vectors = vectors[:, values > NOISE**2 * values[-1]]
        chosen = (vectors if weak else vectors.flip(1))[:, :rank].clone()
        found[projection.name] = chosen if near.shape[0] <= near.shape[1] else orthonormal(near @ chosen)
    return found

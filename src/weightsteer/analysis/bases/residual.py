"""What all readers of the residual stream read, what all writers write, and what is written but not read.

From the Gram matrices of `Materials.reading` and `Materials.writing`, in which every matrix has unit norm and stands
behind the gain of its norm.
"""

from torch import Tensor

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import strongest, weakest
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.basis import Side


@register("residual-read", origin="directions of the stream that its readers read most, each reader of unit norm")
def read(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading eigenvectors (d, rank) of ``Σ_i W_iᵀ W_i`` over the readers, each with its gain and unit norm."""
    return materials.stream.at_modules(strongest(materials.reading, rank), side)


@register("residual-read-weak", origin="directions of the stream that its readers read least, each reader of unit norm")
def read_weak(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The last eigenvectors of the same matrix."""
    return materials.stream.at_modules(weakest(materials.reading, rank), side)


@register("residual-write", origin="directions of the stream that its writers write most, each writer of unit norm")
def write(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading eigenvectors (d, rank) of ``Σ_i W_i W_iᵀ`` over the writers, each with its gain and unit norm."""
    return materials.stream.at_modules(strongest(materials.writing, rank), side)


@register(
    "residual-write-weak", origin="directions of the stream that its writers write least, each writer of unit norm"
)
def write_weak(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The last eigenvectors of the same matrix."""
    return materials.stream.at_modules(weakest(materials.writing, rank), side)


@register("write-not-read", origin="directions of the stream whose share of what is written most exceeds what is read")
def write_not_read(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading eigenvectors of ``G_write / tr G_write − G_read / tr G_read``: they maximise, over all subspaces of
    the rank, the share of what is written there less the share of what is read there."""
    writing, reading = materials.writing, materials.reading
    return materials.stream.at_modules(strongest(writing / writing.trace() - reading / reading.trace(), rank), side)

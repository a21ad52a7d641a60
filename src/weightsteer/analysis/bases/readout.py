"""What the unembedding reads: singular subspaces of ``U diag(g)``, with the gain g of the final norm.

The weak directions are those by which a state can change without changing any logit by much: where a behaviour could
be written without being read out at once.
"""

from torch import Tensor

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import strongest, weakest
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.bases.stream import table_gram
from weightsteer.analysis.basis import Side


@register("readout", origin="directions of the stream that the unembedding reads most, behind the final norm's gain")
def top(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading eigenvectors (d, rank) of ``diag(g) UᵀU diag(g)`` with the unembedding U (V, d) and the gain g."""
    return materials.stream.at_modules(strongest(_gram(materials), rank), side)


@register(
    "readout-weak", origin="directions of the stream that the unembedding reads least, behind the final norm's gain"
)
def weak(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The last eigenvectors of the same matrix."""
    return materials.stream.at_modules(weakest(_gram(materials), rank), side)


def _gram(materials: Materials) -> Tensor:
    gain = materials.stream.final_gain
    return table_gram(materials.stream.unembedding) * gain[:, None] * gain

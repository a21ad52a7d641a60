"""Directions that the later half of the model suppresses or amplifies.

The states of both sides of the probe pairs, at the depth L/2 and behind the last block, are set to unit length and
centred; C is their covariance (d, d). The eigenvectors of ``C_last − C_middle`` with the most negative eigenvalues are
the directions that lose most of their share of the variance on the way (*suppressed*), those with the most positive
ones gain most (*amplified*).
"""

import torch
from torch import Tensor

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import strongest
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.basis import Side


@register(
    "suppressed",
    needs=("model", "pairs"),
    origin="directions of the stream that lose most variance from the middle to the last block",
)
def suppressed(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    return materials.stream.at_modules(strongest(-_change(materials), rank), side)


@register(
    "amplified",
    needs=("model", "pairs"),
    origin="directions of the stream that gain most variance from the middle to the last block",
)
def amplified(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    return materials.stream.at_modules(strongest(_change(materials), rank), side)


def _change(materials: Materials) -> Tensor:
    points = materials.stream_points
    middle, last = points[len(points) // 2], points[-1]
    states = materials.states([middle, last], answers=True, personas=materials.personas)
    return _covariance(*states[last]) - _covariance(*states[middle])


def _covariance(positive: Tensor, negative: Tensor) -> Tensor:
    """(d, d) of states of unit length."""
    rows = torch.cat([positive, negative])
    rows = rows / rows.norm(dim=1, keepdim=True)
    rows = rows - rows.mean(0)
    return rows.T @ rows / len(rows)

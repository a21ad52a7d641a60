"""The spaces of the MLPs: what opens their gates, and what passes through them as if all gates were open.

A gated MLP is ``D (act(G x) ∘ U x)``. The gate space holds the directions that G reads; the round trip is ``D U``
(d, d), the MLP with every gate at 1.
"""

import torch
from torch import Tensor

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import left_singular, strongest
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.bases.stream import matrix
from weightsteer.analysis.basis import Side


@register(
    "mlp-gate",
    origin="what each layer's MLP gates read (input); directions of the stream that all gates read (output)",
)
def gate(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """``GᵀG`` at gate_proj and up_proj. On the output side ``Σ_l diag(g) GᵀG diag(g)`` with unit trace each, at all
    writers."""
    stream = materials.stream
    found: dict[str, Tensor] = {}
    total = torch.zeros(stream.width, stream.width, dtype=torch.float64)
    for projection in (projection for projection in stream.readers if projection.role == "gate_proj"):
        weight = matrix(projection.module, projection.name)
        gram = weight.T @ weight
        if side == "input":
            found[projection.name] = strongest(gram, rank)
            found[projection.name.replace("gate_proj", "up_proj")] = found[projection.name]
        else:
            turned = gram * projection.gain[:, None] * projection.gain
            total += turned / turned.trace()
    return found if side == "input" else stream.at_modules(strongest(total, rank), side)


@register("mlp-roundtrip", origin="what each MLP writes (output) or reads (input) through down_proj · up_proj")
def roundtrip(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading left singular vectors of ``D U diag(g)`` at down_proj, the right ones of ``D U`` at up_proj and
    gate_proj."""
    stream = materials.stream
    projections = {projection.name: projection for projection in (*stream.readers, *stream.writers)}
    found = {}
    for name, down in projections.items():
        if down.role != "down_proj":
            continue
        up = projections[name.replace("down_proj", "up_proj")]
        U, D = matrix(up.module, up.name), matrix(down.module, down.name)
        if side == "output":
            found[name] = left_singular(D @ (U * up.gain), rank)
        else:
            found[up.name] = left_singular((D @ U).T, rank)
            found[name.replace("down_proj", "gate_proj")] = found[up.name]
    return found

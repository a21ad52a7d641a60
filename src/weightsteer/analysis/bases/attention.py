"""The spaces of attention's two circuits (Elhage et al., *A Mathematical Framework for Transformer Circuits*, 2021).

Head h moves ``O_h V_h x`` from one token to another (OV), and looks for tokens by ``xᵀ Q_hᵀ K_h x'`` (QK). Both are
matrices (d, d) of rank at most the head size. A layer's space is that of the sum over its heads of their Gram
matrices; query heads that share a key and value head (GQA) use the shared one. The gains of the query and key norms of
Qwen3 are in Q_h and K_h. Rotary positions are left out: QK is that of two tokens at the same place. So are biases.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import strongest
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.bases.stream import StreamModule, gain, matrix
from weightsteer.analysis.basis import Side


class Heads(NamedTuple):
    """The weights of one layer by head: Q, K, V (h, s, d) and O (h, d, s) of h query heads of size s, in the
    coordinates of the modules' own inputs and outputs; keys and values repeated for the queries that share them."""

    Q: Tensor
    K: Tensor
    V: Tensor
    O: Tensor  # noqa: E741 (the field's own letter)


@register("attention-ov", origin="what each layer's heads write (output) or read (input) through their OV matrices")
def ov(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """``Σ_h M_h M_hᵀ`` of ``M_h = O_h V_h diag(g)`` at o_proj; ``Σ_h (O_h V_h)ᵀ O_h V_h`` at v_proj."""
    found = {}
    for projections in layers(materials):
        of = heads(materials, projections)
        if side == "output":
            values = of.V * projections["v_proj"].gain
            found[projections["o_proj"].name] = strongest(_summed(of.O, values @ values.mT), rank)
        else:
            found[projections["v_proj"].name] = strongest(_summed(of.V.mT, of.O.mT @ of.O), rank)
    return found


@register(
    "attention-qk",
    origin="what each layer's queries and keys read (input), or what of the stream all layers match by (output)",
)
def qk(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """At q_proj ``Σ_h N_h N_hᵀ`` of ``N_h = Q_hᵀ K_h``, at k_proj ``Σ_h N_hᵀ N_h``. On the output side the sum of both
    over all layers, behind the gains of their norms and with unit trace each, at all writers."""
    found: dict[str, Tensor] = {}
    total = torch.zeros(materials.stream.width, materials.stream.width, dtype=torch.float64)
    for projections in layers(materials):
        of = heads(materials, projections)
        queries = _summed(of.Q.mT, of.K @ of.K.mT)
        keys = _summed(of.K.mT, of.Q @ of.Q.mT)
        if side == "input":
            found |= {
                projections["q_proj"].name: strongest(queries, rank),
                projections["k_proj"].name: strongest(keys, rank),
            }
        else:
            norm = projections["q_proj"].gain
            for gram in (queries, keys):
                turned = gram * norm[:, None] * norm
                total += turned / turned.trace()
    return found if side == "input" else materials.stream.at_modules(strongest(total, rank), side)


def layers(materials: Materials) -> list[dict[str, StreamModule]]:
    """The attention modules of each layer, by role."""
    found: list[dict[str, StreamModule]] = [{} for _ in materials.stream.blocks]
    for projection in (*materials.stream.readers, *materials.stream.writers):
        found[projection.layer][projection.role] = projection
    return found


def heads(materials: Materials, projections: dict[str, StreamModule]) -> Heads:
    """The weights of one layer, cut into heads."""
    used = [projections[role] for role in ("q_proj", "k_proj", "v_proj", "o_proj")]
    Q, K, V, O = (matrix(one.module, one.name) for one in used)  # noqa: E741
    config = materials.base_model.config.get_text_config()
    size = int(getattr(config, "head_dim", None) or Q.shape[0] // config.num_attention_heads)
    width = Q.shape[1]
    shared = Q.shape[0] // K.shape[0]
    attention = materials.base_model.get_submodule(projections["q_proj"].name.rpartition(".")[0])
    q, k, v = Q.view(-1, size, width), K.view(-1, size, width), V.view(-1, size, width)
    q, k = q * _gain(attention, "q_norm", size), k * _gain(attention, "k_norm", size)
    return Heads(
        q, k.repeat_interleave(shared, 0), v.repeat_interleave(shared, 0), O.view(width, -1, size).transpose(0, 1)
    )


def _summed(X: Tensor, C: Tensor) -> Tensor:
    """``Σ_h X_h C_h X_hᵀ`` (d, d) for X (h, d, s) and C (h, s, s), without the h matrices (d, d)."""
    return (X @ C).transpose(0, 1).flatten(1) @ X.transpose(0, 1).flatten(1).T


def _gain(attention: nn.Module, name: str, size: int) -> Tensor:
    """(size, 1): the gain of the norm of queries or keys; ones where there is none."""
    norm = getattr(attention, name, None)
    return gain(norm, size)[:, None] if isinstance(norm, nn.Module) else torch.ones(1, 1, dtype=torch.float64)

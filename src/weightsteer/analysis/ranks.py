"""How many directions a delta really uses: effective ranks from its singular values s_1 ≥ s_2 ≥ …

- *stable rank* ``Σ s² / s_1²``: how many directions as strong as the strongest would make the same norm;
- *participation ratio* ``(Σ s²)² / Σ s⁴``: the effective number of directions the energy is spread over;
- *rank 90*: how many directions hold 90 % of the energy.

All three are 1 for a matrix of rank 1 and r for r equal singular values. Biases do not count.
"""

from typing import TYPE_CHECKING

import polars as pl
import torch

from weightsteer.analysis.bases.leading import root
from weightsteer.vector.selection import kind_of, layer_of

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

SCHEMA = {
    "module": pl.String,
    "layer": pl.Int64,
    "kind": pl.String,
    "norm": pl.Float64,
    "rank": pl.Int64,
    "stable_rank": pl.Float64,
    "participation_ratio": pl.Float64,
    "rank_90": pl.Int64,
}


def effective_ranks(vector: "WeightVector") -> pl.DataFrame:
    """One line per module: module, layer, kind, norm (of the matrix), rank (its upper bound from the terms),
    stable_rank, participation_ratio, rank_90; the last three are null where the matrix is zero.

    Raises:
        WeightsteerError: a delta depends on base weights that are not at hand.
    """
    lines = []
    for name, total in vector.terms.items():
        F = root(total, "input")  # without the bias
        gram = F.T @ F if F.shape[1] <= F.shape[0] else F @ F.T
        squares = torch.linalg.eigvalsh(gram).clamp(min=0.0).flip(0)
        whole = float(squares.sum())
        spread: tuple[float | None, float | None, int | None] = (None, None, None)
        if whole > 0:
            spread = (
                whole / float(squares[0]),
                whole**2 / float(squares.square().sum()),
                int((squares.cumsum(0) < 0.9 * whole).sum()) + 1,
            )
        lines.append((name, layer_of(name), kind_of(name), whole**0.5, vector.terms.rank(name), *spread))
    return pl.DataFrame(lines, schema=SCHEMA, orient="row")

"""The energy of a vector: the share of ``‖dW‖²`` by layer and by kind of module."""

from collections.abc import Mapping

import polars as pl

from weightsteer.vector.selection import kind_of, layer_of

OUTSIDE = "outside"
"""The name of what is in no layer: embeddings, the final norm, the head."""


def energy(norms: Mapping[str, float]) -> pl.DataFrame:
    """Shares of ``‖dW‖² = Σ_i ‖dW_i‖_F²`` from the norms of the modules.

    Returns:
        One line per layer (``by`` is "layer", in ascending order) and one per kind of module (``by`` is "kind",
        the largest first), with the columns by, group, modules (their number), norm, share. The shares of either
        sort sum to 1; they are null for a zero vector.
    """
    frame = pl.DataFrame(
        {
            "layer": [layer_of(name) for name in norms],
            "kind": [kind_of(name) for name in norms],
            "square": [norm**2 for norm in norms.values()],
        },
        schema={"layer": pl.Int64, "kind": pl.String, "square": pl.Float64},
    )
    layers = _grouped(frame, "layer").sort("layer", nulls_last=True)
    kinds = _grouped(frame, "kind").sort(["square", "kind"], descending=[True, False])
    parts = [
        part.select(
            pl.lit(by).alias("by"),
            pl.col(by).cast(pl.String).fill_null(OUTSIDE).alias("group"),
            pl.col("modules").cast(pl.Int64),
            pl.col("square").sqrt().alias("norm"),
            pl.when(pl.col("square").sum() > 0).then(pl.col("square") / pl.col("square").sum()).alias("share"),
        )
        for by, part in (("layer", layers), ("kind", kinds))
    ]
    return pl.concat(parts)


def _grouped(frame: pl.DataFrame, by: str) -> pl.DataFrame:
    return frame.group_by(by, maintain_order=True).agg(pl.len().alias("modules"), pl.col("square").sum())

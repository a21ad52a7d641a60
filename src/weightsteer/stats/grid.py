"""One intervention on one evaluation as dense arrays, so that statistics of all strengths are array operations."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from weightsteer.bootstrap import Array


@dataclass(frozen=True)
class Grid:
    """One intervention on one evaluation, dense: s seeds, k strengths, n items; NaN where absent."""

    alphas: Array  # (k,)
    present: NDArray[np.bool_]  # (s, k)
    item: list[str]  # n identifiers, sorted
    label: Array  # (n,)
    cluster: NDArray[np.int64]  # (n,) index
    y: Array  # (s, k, n) nats
    pmass: Array  # (s, k, n)
    low: Array | None  # (s, k, n) 1.0 where flagged

    @classmethod
    def build(cls, part: pl.DataFrame) -> "Grid":
        items = part.select("item", "label", "cluster").unique("item").sort("item").with_row_index("_i")
        seeds = part.select("seed").unique().sort("seed").with_row_index("_s")
        alphas = part.select("alpha").unique().sort("alpha").with_row_index("_k")
        indexed = (
            part.join(items.select("_i", "item"), on="item")
            .join(seeds, on="seed", nulls_equal=True)
            .join(alphas, on="alpha")
        )
        where = tuple(indexed[name].to_numpy().astype(np.int64) for name in ("_s", "_k", "_i"))
        shape = (seeds.height, alphas.height, items.height)

        def dense(name: str) -> Array:
            out = np.full(shape, np.nan)
            out[where] = indexed[name].cast(pl.Float64).to_numpy()
            return out

        present = np.zeros(shape[:2], dtype=bool)
        present[where[:2]] = True
        return cls(
            alphas=alphas["alpha"].to_numpy(),
            present=present,
            item=items["item"].to_list(),
            label=items["label"].cast(pl.Float64).to_numpy(),
            cluster=items["cluster"].rank("dense").cast(pl.Int64).to_numpy() - 1,
            y=dense("logratio"),
            pmass=dense("pmass"),
            low=dense("low_pmass") if "low_pmass" in part.columns else None,
        )

    @property
    def zero(self) -> int:
        """Index of α = 0."""
        return int(np.flatnonzero(self.alphas == 0)[0])

    def mirror(self, k: int) -> int | None:
        """Index of the opposite strength, if it was swept."""
        found = np.flatnonzero(self.alphas == -self.alphas[k])
        return int(found[0]) if len(found) else None

    def sums(self, values: Array) -> Array:
        """Per-cluster sums: (…, n) to (clusters, …)."""
        flat = values.reshape(-1, values.shape[-1])
        out = np.zeros((self.cluster.max() + 1, flat.shape[0]))
        np.add.at(out, self.cluster, flat.T)
        return out.reshape(-1, *values.shape[:-1])

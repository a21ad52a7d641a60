"""One intervention on one evaluation as dense arrays, so that statistics of all strengths are array operations."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from weightsteer.stats.bootstrap import Array
from weightsteer.stats.pairing import numbered


@dataclass(frozen=True)
class Grid:
    """One intervention on one evaluation, dense: s seeds (or draws), k strengths, n items; NaN where absent."""

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
        seeds = part.select(numbered()).to_series()
        where = tuple(_places(column) for column in (seeds, part["alpha"], part["item"]))
        shape = tuple(int(places.max()) + 1 for places in where)
        _, first = np.unique(where[2], return_index=True)
        items = part[first]

        def dense(name: str) -> Array:
            out = np.full(shape, np.nan)
            out[where] = part[name].cast(pl.Float64).to_numpy()
            return out

        present = np.zeros(shape[:2], dtype=bool)
        present[where[:2]] = True
        return cls(
            alphas=np.unique(part["alpha"].to_numpy()),
            present=present,
            item=items["item"].to_list(),
            label=items["label"].cast(pl.Float64).to_numpy(),
            cluster=_places(items["cluster"]),
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


def _places(column: pl.Series) -> NDArray[np.int64]:
    """Where each value stands among the different ones in ascending order, null first."""
    places: NDArray[np.int64] = column.rank("dense").cast(pl.Int64).fill_null(0).to_numpy()
    return places - places.min()

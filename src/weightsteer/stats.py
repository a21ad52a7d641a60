"""Paired, clustered, multi-seed statistics of a sweep.

A row is one evaluation item scored under one intervention at one strength. With ``y`` its log-ratio (nats),
``Δ = y(α) − y(0)`` the paired shift of the *same* item and ``g = ±1`` its label, the two effects are

    discrimination = ½ (mean Δ over g = +1  −  mean Δ over g = −1)      the behaviour
    bias           = ½ (mean Δ over g = +1  +  mean Δ over g = −1)      Yes-saying

Both labels weigh the same, so a constant added to every log-ratio is all bias and no discrimination at any
label ratio.

Intervals are 95% bootstrap intervals over clusters crossed with training seeds: see ``weightsteer.bootstrap``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from weightsteer.audit import verdict
from weightsteer.bootstrap import Array, Bootstrap, detectable, interval
from weightsteer.errors import WeightsteerError

GROUP = ["model", "behavior", "method", "adapter", "eval"]
REQUIRED = [*GROUP, "seed", "alpha", "item", "cluster", "label", "logratio", "pmass"]
PROBABILITIES = ("auc", "pmass")
INTERVALS = ("discrimination", "bias", "auc", "pmass", "pmass_change", "si")


def paired(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` with ``before`` and ``pmass_before``: the same item and seed at α = 0.

    Null log-ratios become NaN. Extra columns are kept.

    Raises:
        WeightsteerError: columns are missing, a label is not ±1, an item changes its label or cluster, a row
            occurs twice or has no partner at α = 0, or a seed lacks items of another one (with the number).
    """
    if absent := [name for name in REQUIRED if name not in rows.columns]:
        raise WeightsteerError(
            f"these rows are not those of a sweep: no column {', '.join(absent)}. Pass what weightsteer.sweep returned."
        )
    if rows.is_empty():
        raise WeightsteerError(
            "there are no rows to summarise: the evaluation is empty or a filter removed everything."
        )
    rows = rows.with_columns(
        pl.col("alpha").cast(pl.Float64) + 0.0,  # −0.0 is 0.0
        pl.col("logratio", "pmass").cast(pl.Float64).fill_null(float("nan")),
    )
    if wrong := rows.filter(~pl.col("label").is_in([1, -1]).fill_null(False)).height:
        raise WeightsteerError(f"{wrong} rows have a label other than +1 or -1: drop them before the sweep.")
    if twice := rows.select(*GROUP, "seed", "alpha", "item").is_duplicated().sum():
        raise WeightsteerError(
            f"{twice} rows share intervention, seed, alpha, eval and item with another one: "
            "two sweeps were concatenated. Keep one of them, or give them different seeds."
        )
    unstable = rows.group_by(*GROUP, "item").agg(pl.n_unique("label", "cluster"))
    if moved := unstable.filter((pl.col("label") > 1) | (pl.col("cluster") > 1)).height:
        raise WeightsteerError(
            f"{moved} items have more than one label or cluster: rows of different versions of an "
            "evaluation are mixed. Keep the rows of one version."
        )
    base = rows.filter(pl.col("alpha") == 0).select(*GROUP, "seed", "item", before="logratio", pmass_before="pmass")
    joined = rows.join(base, on=[*GROUP, "seed", "item"], how="left", nulls_equal=True, maintain_order="left")
    if alone := joined["before"].null_count():
        raise WeightsteerError(
            f"{alone} of {joined.height} rows have no partner at alpha 0, and effects are paired against it: "
            "sweep the same items at alpha 0 with the same seeds."
        )
    cells = rows.group_by(*GROUP, maintain_order=True).agg(
        pl.len(), items=pl.n_unique("item"), cells=pl.struct("seed", "alpha").n_unique()
    )
    for group in cells.filter(pl.col("len") != pl.col("items") * pl.col("cells")).iter_rows(named=True):
        missing = group["items"] * group["cells"] - group["len"]
        raise WeightsteerError(
            f"{missing} rows are missing in {group['method']} {group['adapter']} on {group['eval']}: "
            f"every seed and strength must answer the same {group['items']} items. "
            "Repeat the sweep of the incomplete seed."
        )
    return joined


def flips(rows: pl.DataFrame, alpha: float) -> pl.DataFrame:
    """Items whose decision (sign of the log-ratio) at ``alpha`` differs from that at α = 0.

    Columns: the group, seed, item, cluster, label, ``before``, ``after`` (nats) and ``toward``: the new
    decision shows the behaviour. A log-ratio of exactly 0 or NaN is no decision. Ordered by the size of the
    change, largest first.
    """
    known = paired(rows)
    if not (at := known.filter((pl.col("alpha") - alpha).abs() < 1e-9)).height:
        strengths = ", ".join(f"{a:g}" for a in known["alpha"].unique().sort())
        raise WeightsteerError(f"alpha {alpha:g} was not swept; swept: {strengths}.")
    return (
        changed_side(at)
        .sort(-(pl.col("logratio") - pl.col("before")).abs(), "item", "seed", *GROUP, maintain_order=True)
        .select(*GROUP, "seed", "alpha", "item", "cluster", "label", "before", "toward", after="logratio")
    )


def changed_side(known: pl.DataFrame) -> pl.DataFrame:
    """Of paired rows those whose decision changed, with ``toward``: the new one shows the behaviour."""
    return known.filter(pl.col("before") * pl.col("logratio") < 0).with_columns(
        toward=pl.col("logratio") * pl.col("label") > 0
    )


def surgical_informedness(
    fix: Any, broke: Any, flip: Any, counter: Any, *, rej: Any, cho: Any, pmass: Any = 1.0, k: float = 2.0
) -> Any:
    """SI in [−200, 100]: ``100 · ½ [(fix/rej − k broke/cho) + (flip/cho − k counter/rej)] · pmass²``.

    Counts: ``cho`` and ``rej`` are the rows on and off the side of the label at α = 0; ``fix`` and ``broke``
    change side at +α, ``flip`` (of cho) and ``counter`` (of rej) at −α; ``pmass`` is the smaller mean answer
    mass of the two arms. Works on arrays; NaN where ``cho`` or ``rej`` is 0. Read it beside the effect: a
    vector that does nothing scores 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        forward = np.divide(fix, rej) - k * np.divide(broke, cho)
        reverse = np.divide(flip, cho) - k * np.divide(counter, rej)
    return 100 * (forward + reverse) / 2 * np.square(pmass)


def summarize(rows: pl.DataFrame, *, by_seed: bool = False, resamples: int = 10_000, seed: int = 0) -> pl.DataFrame:
    """One line per (model, behavior, method, adapter, eval, α), with ``by_seed`` one per training seed.

    Effects in nats with ``_low`` and ``_high`` at 95%. A null means "does not apply" (one label only: no
    effect is identifiable; one cluster: no interval); NaN means that NaN rows went in, which ``nan`` counts.
    Columns beside the effects: ``n`` items per seed, ``clusters``, ``seeds``, ``positives`` (items of label
    +1), ``logratio`` and its ``logratio_sd`` over rows, ``discrimination_seed_min/max`` over seeds, ``mde``
    (the smallest discrimination found with 80% power), ``auc`` of log-ratio for label, mean ``pmass`` and its
    paired change, ``low_pmass`` (share of flagged rows), and, on the line of +α: ``fix``, ``broke``,
    ``flip``, ``counter`` as shares of ``rej`` and ``cho`` (counts over all seeds), ``ties`` (y = 0 at α = 0),
    and ``si`` when −α was swept too.

    Raises:
        WeightsteerError: see ``paired``.
    """
    known = paired(rows)
    keys = [*GROUP, "seed"] if by_seed else GROUP
    lines: list[dict[str, Any]] = []
    draws = Bootstrap(resamples, seed)
    for part in known.sort(keys, nulls_last=True).partition_by(keys, maintain_order=True):
        names = part.select(keys).row(0, named=True)
        for line in _lines(_Grid.build(part), draws):
            line = {**names, **line}
            lines.append({**line, "verdict": verdict(line)})
    front = ["model", "behavior", "method", "adapter", *(["seed"] if by_seed else []), "alpha", "eval"]
    schema = {name: known.schema[name] for name in [*keys, "alpha"]}
    frame = pl.DataFrame(lines, schema_overrides=schema, infer_schema_length=None)
    untyped = [name for name, kind in frame.schema.items() if kind == pl.Null]
    return frame.with_columns(pl.col(untyped).cast(pl.Float64)).select(*front, pl.exclude(front))


@dataclass(frozen=True)
class _Grid:
    """One intervention on one evaluation, dense: s seeds, k strengths, n items; NaN where absent."""

    alphas: Array  # (k,)
    present: NDArray[np.bool_]  # (s, k)
    label: Array  # (n,)
    cluster: NDArray[np.int64]  # (n,) index
    y: Array  # (s, k, n) nats
    pmass: Array  # (s, k, n)
    low: Array | None  # (s, k, n) 1.0 where flagged

    @classmethod
    def build(cls, part: pl.DataFrame) -> "_Grid":
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


def _lines(grid: _Grid, draws: Bootstrap) -> Iterator[dict[str, Any]]:
    """The lines of one grid, in the order of its strengths."""
    values = _resampled(grid, draws)
    clusters, zero = int(grid.cluster.max()) + 1, grid.zero
    signed = grid.y[:, zero] * grid.label
    two_labels = bool((grid.label > 0).any() and (grid.label < 0).any())
    for k, alpha in enumerate(grid.alphas):
        seeds = np.flatnonzero(grid.present[:, k])
        y, start = grid.y[seeds, k], signed[seeds]
        cho, rej = start > 0, start < 0
        both_arms = alpha > 0 and (o := grid.mirror(k)) is not None and bool(grid.present[seeds, o].all())
        some_cho, some_rej = bool(cho.any(1).all()), bool(rej.any(1).all())
        applies = {
            **dict.fromkeys(("discrimination", "bias", "auc"), two_labels),
            **dict.fromkeys(("pmass", "pmass_change"), True),
            "fix": alpha > 0 and some_rej,
            "broke": alpha > 0 and some_cho,
            "flip": both_arms and some_cho,
            "counter": both_arms and some_rej,
            "si": both_arms and some_cho and some_rej,
        }
        line: dict[str, Any] = {
            "alpha": float(alpha),
            "n": grid.label.size,
            "clusters": clusters,
            "seeds": len(seeds),
            "positives": int((grid.label > 0).sum()),
            "logratio": float(y.mean()),
            "logratio_sd": float(y.std(ddof=1)) if y.size > 1 else None,
        }
        for name, series in values.items():
            per_seed = series[:, seeds, k]
            line[name] = float(per_seed[0].mean()) if applies[name] else None
            if name in INTERVALS:
                pooled = draws.pooled(per_seed, clusters) if applies[name] and clusters > 1 else None
                low, high = (None, None) if pooled is None else interval(pooled)
                if name in PROBABILITIES and low is not None and high is not None:
                    low, high = max(low, 0.0), min(high, 1.0)  # widened intervals need not end within the range
                line[f"{name}_low"], line[f"{name}_high"] = low, high
                if name == "discrimination":
                    line["mde"] = None if pooled is None else detectable(pooled)
            if name == "pmass":
                line["low_pmass"] = None if grid.low is None else float(grid.low[seeds, k].mean())
            if name == "discrimination":
                line["discrimination_seed_min"] = float(per_seed[0].min()) if two_labels else None
                line["discrimination_seed_max"] = float(per_seed[0].max()) if two_labels else None
        line["cho"], line["rej"], line["ties"] = int(cho.sum()), int(rej.sum()), int((start == 0).sum())
        line["nan"] = int((~np.isfinite(y - grid.y[seeds, zero])).sum())
        yield line


def _resampled(grid: _Grid, draws: Bootstrap) -> dict[str, Array]:
    """Every statistic as (1 + resamples, s, k): row 0 on the data, the others on resampled clusters.

    A bootstrap sample is a vector of multinomial counts, so that each statistic is a smooth function of
    ``counts @ per-cluster sums``: one matrix product for all seeds, strengths and statistics.
    """
    zero = grid.zero
    before = grid.y[:, zero : zero + 1]
    delta = grid.y - before
    plus, minus = (grid.label > 0).astype(float), (grid.label < 0).astype(float)
    signed, start = grid.y * grid.label, before * grid.label
    lost = np.where(np.isnan(delta), np.nan, 0.0)  # a NaN row makes the counts NaN: it is not a row that stayed
    area, influence = _auc(grid)
    columns = {
        "plus": delta * plus,
        "minus": delta * minus,
        "gained": ((start < 0) & (signed > 0)) + lost,
        "broken": ((start > 0) & (signed < 0)) + lost,
        "cho": (start > 0).astype(float),
        "rej": (start < 0).astype(float),
        "pmass": grid.pmass,
        "auc": influence,
        "n_plus": plus,
        "n_minus": minus,
        "n": np.ones_like(plus),
    }
    blocks = {name: grid.sums(block) for name, block in columns.items()}
    stacked = np.concatenate([block.reshape(len(block), -1) for block in blocks.values()], axis=1)
    totals = draws.sums(stacked)
    total: dict[str, Array] = {}
    at = 0
    for name, block in blocks.items():
        width = int(np.prod(block.shape[1:], dtype=int))
        total[name] = totals[:, at : at + width].reshape(len(totals), *(block.shape[1:] or (1, 1)))
        at += width

    with np.errstate(divide="ignore", invalid="ignore"):
        up, down = total["plus"] / total["n_plus"], total["minus"] / total["n_minus"]
        pmass = total["pmass"] / total["n"]
        gained, broken = total["gained"] / total["rej"], total["broken"] / total["cho"]
        si, flip, counter = (np.full(gained.shape, np.nan) for _ in range(3))
        for k, alpha in enumerate(grid.alphas):
            if alpha <= 0 or (o := grid.mirror(k)) is None:
                continue
            flip[..., k], counter[..., k] = broken[..., o], gained[..., o]
            si[..., k] = surgical_informedness(
                total["gained"][..., k],
                total["broken"][..., k],
                total["broken"][..., o],
                total["gained"][..., o],
                rej=total["rej"][..., 0],
                cho=total["cho"][..., 0],
                pmass=np.minimum(pmass[..., k], pmass[..., o]),
            )
        return {
            "discrimination": (up - down) / 2,
            "bias": (up + down) / 2,
            "auc": area + total["auc"],
            "pmass": pmass,
            "pmass_change": pmass - pmass[..., zero : zero + 1],
            "fix": gained,
            "broke": broken,
            "flip": flip,
            "counter": counter,
            "si": si,
        }


def _auc(grid: _Grid) -> tuple[Array, Array]:
    """Mann-Whitney area of y for the label, (s, k), and each row's influence on it, (s, k, n).

    ``area + Σ counts · influence`` is the linearised bootstrap of the area (DeLong's placements); ties count
    a half.
    """
    plus, minus = grid.label > 0, grid.label < 0
    influence = np.zeros(grid.y.shape)
    if not (plus.any() and minus.any()):
        return np.full(grid.y.shape[:2], np.nan), influence
    ranks = rankdata(grid.y, axis=-1)
    above = (ranks[..., plus] - rankdata(grid.y[..., plus], axis=-1)) / minus.sum()
    below = 1 - (ranks[..., minus] - rankdata(grid.y[..., minus], axis=-1)) / plus.sum()
    area = above.mean(-1)
    influence[..., plus] = (above - area[..., None]) / plus.sum()
    influence[..., minus] = (below - area[..., None]) / minus.sum()
    return area, influence

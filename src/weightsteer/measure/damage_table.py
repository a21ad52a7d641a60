"""Means per intervention and strength with paired changes against α = 0: the cost side of every effect table.

For a measured column x with weights w over the items of a strength (documents weigh by their tokens)::

    mean(α) = Σ w x / Σ w          change(α) = mean(α) − mean(0)     on the same items and training seeds

Intervals are 95% bootstrap intervals over clusters crossed with training seeds (`weightsteer.stats.bootstrap`); a
change is resampled as a change, so what varies between items alone cancels.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from weightsteer.data.evals.capability import P_RIGHT
from weightsteer.errors import WeightsteerError
from weightsteer.stats.bootstrap import Array, Bootstrap, interval
from weightsteer.stats.pairing import numbered, with_draws

GROUP = ["model", "behavior", "method", "adapter", "eval"]


def paired_means(
    rows: pl.DataFrame,
    values: Mapping[str, str | None],
    *,
    shares: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> pl.DataFrame:
    """One line per (model, behavior, method, adapter, eval, α).

    Args:
        rows: one line per item, seed and strength: the group, ``seed``, ``alpha``, ``item``, ``cluster``, the values.
        values: the columns to average, each with the name of its weight column, or None for equal weights.
        shares: those of them that are shares: their bounds are kept within [0, 1]. A share that is 0 or 1 on all the
            data has bounds without width, whatever n is: read it with ``items``.

    Returns:
        The group, ``alpha``, ``items``, ``clusters``, ``seeds``, and for each value x ``x``, ``x_low``, ``x_high``,
        ``x_change``, ``x_change_low`` and ``x_change_high``. Bounds are null with one cluster; NaN rows give NaN.

    Raises:
        WeightsteerError: a column is missing, or an item or seed lacks a strength.
    """
    needed = [*GROUP, "seed", "alpha", "item", "cluster", *values, *filter(None, values.values())]
    if missing := [name for name in needed if name not in rows.columns]:
        raise WeightsteerError(f"no column {', '.join(missing)}: pass the rows as they were returned.")
    if rows.is_empty():
        raise WeightsteerError("there are no rows to average.")
    draws = Bootstrap(resamples, seed)
    lines: list[dict[str, Any]] = []
    for part in with_draws(rows).sort(GROUP, nulls_last=True).partition_by(GROUP, maintain_order=True):
        lines += _lines(part, values, draws)
    schema = {name: rows.schema[name] for name in GROUP} | {"alpha": pl.Float64}
    bounds = [f"{name}{change}{end}" for name in values for change in ("", "_change") for end in ("", "_low", "_high")]
    frame = pl.DataFrame(lines, schema_overrides=schema | dict.fromkeys(bounds, pl.Float64), infer_schema_length=None)
    return frame.with_columns(pl.col(f"{name}_{end}").clip(0, 1) for name in shares for end in ("low", "high"))


def accuracy(rows: pl.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Share of rows on the side of their label (`facts`, `arithmetic`), with intervals and paired changes.

    A log-ratio of exactly 0 is a wrong answer; NaN gives NaN. ``low_pmass`` goes with it: the share of rows whose
    answer is neither choice, where the side means little.
    """
    right = (pl.col("logratio") * pl.col("label") > 0).cast(pl.Float64)
    marked = rows.with_columns(
        accuracy=pl.when(pl.col("logratio").is_nan()).then(float("nan")).otherwise(right),
        low_pmass=pl.col("low_pmass").cast(pl.Float64),
    )
    columns = ("accuracy", "low_pmass")
    return paired_means(marked, dict.fromkeys(columns), shares=columns, resamples=resamples, seed=seed)


def capability_summary(rows: pl.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pl.DataFrame:
    """How likely the right choices of neutral tasks are, from the rows of a sweep over
    `weightsteer.data.evals.capability`.

    ``p_right_change`` is what is gained, when negative lost, in probability.
    """
    marked = rows.with_columns(p_right=P_RIGHT)
    return paired_means(marked, {"p_right": None}, shares=["p_right"], resamples=resamples, seed=seed)


def damage_summary(rows: pl.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Token NLL and KL per intervention and strength from the rows of `damage`, in nats per token.

    ``nll_change`` is the damage: how much less likely, per token, neutral text has become. The KL has no change of its
    own, being 0 at α = 0.
    """
    weighed = dict.fromkeys(("nll", "kl_base_steered", "kl_steered_base"), "tokens")
    table = paired_means(rows, weighed, resamples=resamples, seed=seed)
    return table.drop(cs.matches("^kl_.*_change"))


def _lines(part: pl.DataFrame, values: Mapping[str, str | None], draws: Bootstrap) -> Iterator[dict[str, Any]]:
    part = part.with_columns(pl.col("alpha").cast(pl.Float64) + 0.0, seed=numbered())
    alphas = part["alpha"].unique().sort().to_list()
    seeds = part["seed"].unique().sort().to_list()
    clusters = part["cluster"].unique().sort().to_list()
    items = part["item"].n_unique()
    where = tuple(
        part[name].replace_strict(order, range(len(order)), return_dtype=pl.Int64).to_numpy()
        for name, order in (("cluster", clusters), ("seed", seeds), ("alpha", alphas))
    )
    shape = (len(clusters), len(seeds), len(alphas))
    counts = np.zeros(shape[1:], dtype=int)
    np.add.at(counts, where[1:], 1)
    if 0.0 not in alphas or part.select("item", "seed", "alpha").is_duplicated().any() or (counts != items).any():
        names = part.select("method", "adapter", "eval").row(0)
        raise WeightsteerError(
            f"{names}: every training seed needs each of its {items} items once at every strength, 0 among them."
        )
    ratios = {name: _ratios(part, name, weight, where, shape, draws) for name, weight in values.items()}
    constant = part.select(GROUP).row(0, named=True)
    zero = alphas.index(0.0)
    for k, alpha in enumerate(alphas):
        line = {**constant, "alpha": alpha, "items": items, "clusters": len(clusters), "seeds": len(seeds)}
        for name, ratio in ratios.items():
            for shown, series in ((name, ratio[:, :, k]), (f"{name}_change", ratio[:, :, k] - ratio[:, :, zero])):
                line[shown] = float(series[0].mean())
                low, high = interval(draws.pooled(series, len(clusters))) if len(clusters) > 1 else (None, None)
                line[f"{shown}_low"], line[f"{shown}_high"] = low, high
        yield line


def _ratios(
    part: pl.DataFrame,
    name: str,
    weight: str | None,
    where: Sequence[np.ndarray],
    shape: tuple[int, int, int],
    draws: Bootstrap,
) -> Array:
    """Weighted means (1 + resamples, s, k); row 0 is the data."""
    w = np.ones(part.height) if weight is None else part[weight].cast(pl.Float64).to_numpy()
    x = part[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    sums = np.zeros((2, *shape))
    np.add.at(sums[0], tuple(where), w * x)
    np.add.at(sums[1], tuple(where), w)
    top, bottom = (draws.sums(block.reshape(shape[0], -1)).reshape(-1, *shape[1:]) for block in sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Array = top / bottom  # a resample may weigh nothing: NaN, which the pooling leaves out
    return ratio

"""Paired rows: each row of a sweep with the same item, training seed and draw at α = 0."""

import polars as pl

from weightsteer.errors import WeightsteerError

GROUP = ["model", "behavior", "method", "adapter", "eval"]
REQUIRED = [*GROUP, "seed", "alpha", "item", "cluster", "label", "logratio", "pmass"]

REPEATED = ["seed", "draw"]
"""What tells the measurements of one intervention apart: its training seed, and which draw of a control it is."""


def numbered() -> pl.Expr:
    """The place of each (draw, seed) among those of its frame, from 1: the draws of one seed are measurements too."""
    return pl.struct(pl.col("draw").fill_null(0), "seed").rank("dense")


def with_draws(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with a column ``draw``, null where they have none."""
    return rows.with_columns((pl.col("draw") if "draw" in rows.columns else pl.lit(None)).cast(pl.Int64).alias("draw"))


def paired(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` with ``before`` and ``pmass_before``: the same item, seed and draw at α = 0; and with a ``draw``.

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
    rows = with_draws(rows).with_columns(
        pl.col("alpha").cast(pl.Float64) + 0.0,  # −0.0 is 0.0
        pl.col("logratio", "pmass").cast(pl.Float64).fill_null(float("nan")),
    )
    if wrong := rows.filter(~pl.col("label").is_in([1, -1]).fill_null(False)).height:
        raise WeightsteerError(f"{wrong} rows have a label other than +1 or -1: drop them before the sweep.")
    if twice := rows.select(*GROUP, *REPEATED, "alpha", "item").is_duplicated().sum():
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
    base = rows.filter(pl.col("alpha") == 0).select(*GROUP, *REPEATED, "item", before="logratio", pmass_before="pmass")
    joined = rows.join(base, on=[*GROUP, *REPEATED, "item"], how="left", nulls_equal=True, maintain_order="left")
    if alone := joined["before"].null_count():
        raise WeightsteerError(
            f"{alone} of {joined.height} rows have no partner at alpha 0, and effects are paired against it: "
            "sweep the same items at alpha 0 with the same seeds."
        )
    cells = rows.group_by(*GROUP, maintain_order=True).agg(
        pl.len(), items=pl.n_unique("item"), cells=pl.struct(*REPEATED, "alpha").n_unique()
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

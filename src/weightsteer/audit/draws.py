"""Which vector a control belongs to, and its draws folded into the training seeds of that vector.

A random control is drawn several times for each training seed (`weightsteer.controls.draws`). Thirty draws for three
seeds are not thirty seeds: what a training seed does to all of its draws would be counted ten times, and intervals
would be too narrow. So the draws of a seed are averaged, row by row, and the control has the seeds of its vector,
paired with them. Effects are means over rows, so that the effect of the average is the average of the effects. For a
single training seed there is nothing to fold: the draws are the only chance there is, and stay.
"""

import polars as pl

from weightsteer.errors import WeightsteerError
from weightsteer.stats.pairing import REPEATED
from weightsteer.stats.table import RATES

VECTOR = ["model", "behavior", "method", "adapter"]
_CONTROL = ["model", "behavior", "adapter"]

UNFOLDED = (
    *("logratio_sd", "si_yes"),
    *(f"{name}{end}" for name in ("auc", "si", "si_k1", "si_forward", *RATES) for end in ("", "_low", "_high")),
)
"""Columns of a summary that are no means over rows: those of the average over draws are not the average of theirs."""


def owners(rows: pl.DataFrame) -> pl.DataFrame:
    """One line per control that has its vector in the rows, and per method that has it.

    Columns: model, behavior, adapter (of the control), ``control`` (its kind), ``owner_method`` and ``owner`` (of the
    vector).

    Raises:
        WeightsteerError: the rows have controls, and no columns that say of which vectors.
    """
    place = ["model", "behavior"]
    controls = rows.filter(pl.col("method") == "control")
    if missing := [name for name in ("control", "control_of", "draw") if name not in rows.columns]:
        if controls.height:
            raise WeightsteerError(
                f"these rows have controls, but no columns {', '.join(missing)}: an earlier version wrote them. "
                "Make the sweep again."
            )
        return pl.DataFrame(schema=dict.fromkeys([*_CONTROL, "control", "owner_method", "owner"], pl.String))
    vectors = rows.filter(pl.col("method") != "control").select(*place, owner_method="method", owner="adapter").unique()
    return (
        controls.select(*_CONTROL, "control", owner="control_of")
        .unique()
        .join(vectors, on=[*place, "owner"], nulls_equal=True)
        .select(*_CONTROL, "control", "owner_method", "owner")
        .sort(*_CONTROL, "owner_method", nulls_last=True)
    )


def many_draws(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The controls (model, behavior, adapter) with several draws for some of several training seeds.

    Args:
        rows: of a sweep.
        known: `owners` of them.
    """
    if known.is_empty():
        return known.select(_CONTROL)
    controls = rows.filter(pl.col("method") == "control").join(known, on=_CONTROL, how="semi", nulls_equal=True)
    drawn = controls.select(*_CONTROL, *REPEATED).unique().sort(*_CONTROL, *REPEATED)
    counts = drawn.group_by(_CONTROL, maintain_order=True).agg(seeds=pl.n_unique("seed"), draws=pl.len())
    return counts.filter(pl.col("seeds") > 1, pl.col("draws") > pl.col("seeds")).select(_CONTROL)


def folded(rows: pl.DataFrame, several: pl.DataFrame) -> pl.DataFrame:
    """The rows with the draws of every training seed averaged.

    Args:
        rows: at chosen strengths (`weightsteer.stats.strengths.select`).
        several: the controls it is done for, of `many_draws`.
    """
    if several.is_empty():
        return rows
    several = several.with_columns(method=pl.lit("control"))
    averaged = [name for name in ("logratio", "pmass", "low_pmass", "strength") if name in rows.columns]
    rows = rows.with_columns(pl.col(averaged).cast(pl.Float64))
    place = {"on": several.columns, "nulls_equal": True, "maintain_order": "left"}
    stay, draws = (rows.join(several, how=how, **place) for how in ("anti", "semi"))  # type: ignore[arg-type]
    means = (
        draws.with_columns(draw=pl.lit(0, pl.Int64))
        .group_by(*(name for name in rows.columns if name not in averaged), maintain_order=True)
        .agg(pl.col(averaged).mean())
    )
    return pl.concat([stay, means.select(rows.columns)])

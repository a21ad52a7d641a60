"""Both signs of a strength as one: what an intervention does along α.

For a row with the log-ratio y(s) at the sign s of α = s·strength

    y_along = y(0) + ½ (y(+) − y(−))

so that its shift is half the difference of the two. What a vector does flips with the sign of α and is counted twice;
what is the same at both signs, as damage is, cancels. With a single sign the shift is the one there, taken along α.
"""

import polars as pl


def along(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with α = 1 in place of both signs: ``y_along``, and the smaller answer mass of the two.

    Args:
        rows: at chosen strengths (`weightsteer.stats.strengths.select`): ``alpha`` is the sign, −1, 0 or +1.
    """
    keys = [name for name in rows.columns if name not in ("alpha", "logratio", "pmass", "low_pmass", "strength")]
    base = rows.filter(pl.col("alpha") == 0)
    before = base.select(*keys, _before="logratio")
    shifted = rows.filter(pl.col("alpha") != 0).join(before, on=keys, nulls_equal=True, maintain_order="left")
    shift = (pl.col("logratio") - pl.col("_before")) * pl.col("alpha")
    lost = [pl.col("low_pmass").cast(pl.Float64).max()] if "low_pmass" in rows.columns else []
    made = (
        shifted.group_by(keys, maintain_order=True)
        .agg((pl.col("_before").first() + shift.mean()).alias("logratio"), pl.col("pmass").min(), *lost)
        .with_columns(alpha=pl.lit(1.0))
    )
    names = [*keys, "alpha", "logratio", "pmass", *(["low_pmass"] if lost else [])]
    return pl.concat(
        [base.with_columns(pl.col("alpha").cast(pl.Float64)).select(names), made.select(names)], how="vertical_relaxed"
    )

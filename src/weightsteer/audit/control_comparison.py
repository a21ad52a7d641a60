"""Control comparison: does a control of a vector do as well as the vector?

It does when it is not distinguishably weaker: the 95% interval of the difference contains 0 or lies on the side of the
control; or enough of its draws reach the effect of the vector, ``(1 + reached) / (1 + draws) > 0.05`` with at least one
that does. The mean of many random draws is near 0 even where single draws move the metric more than the vector does;
only the rank of the vector among the draws shows that.
"""

from typing import Any

import polars as pl

from weightsteer.audit.draws import VECTOR
from weightsteer.stats.compare import SCHEMA, compare
from weightsteer.stats.correction import LEVEL
from weightsteer.stats.pairing import REPEATED

COSTS = ("cost", "reference_cost", "cost_ratio")


def compare_with_controls(
    chosen: pl.DataFrame,
    steady: pl.DataFrame,
    known: pl.DataFrame,
    means: pl.DataFrame,
    **options: Any,
) -> pl.DataFrame:
    """Every vector compared with its controls, which have the vector as their reference.

    Args:
        chosen: rows at the two signs of the strengths, every draw by itself.
        steady: the same with draws folded into training seeds (`weightsteer.audit.draws.folded`).
        known: the vector of every control (`weightsteer.audit.draws.owners`).
        means: the mean ``strength`` of every intervention and sign.
        options: of `weightsteer.stats.compare`.

    Returns:
        As `compare`, with ``draws`` (how many effects of the control there are: one per draw and seed),
        ``draws_as_good`` (how many of them reach the effect of the vector of their training seed) and ``as_good``.
    """
    tables = []
    keys = ["model", "behavior", "owner_method", "owner"]
    for of in known.select(keys).unique().sort(keys, nulls_last=True).iter_rows(named=True):
        place = pl.col("model").eq_missing(of["model"]) & pl.col("behavior").eq_missing(of["behavior"])
        vector = (pl.col("method") == of["owner_method"]) & (pl.col("adapter") == of["owner"])
        names = known.filter(place, owner=of["owner"], owner_method=of["owner_method"])["adapter"]
        own = (pl.col("method") == "control") & pl.col("adapter").is_in(names.to_list())
        part = steady.filter(place, own | vector).drop("strength")
        swept = part.filter(pl.col("alpha") != 0).select(*VECTOR, "eval", "alpha").unique(maintain_order=True)
        at = swept.join(swept.filter(vector), on=["eval", "alpha"], how="semi", maintain_order="left")
        if not at.filter(own).height:
            continue  # the vector or all of its controls have no usable strength
        kinds = known.filter(place, owner=of["owner"], owner_method=of["owner_method"]).select("adapter", "control")
        found = compare(part, at, reference=(of["owner_method"], of["owner"]), **options)
        tables.append(found.join(kinds, on="adapter", how="left", maintain_order="left"))
    if not tables:
        return pl.DataFrame(
            schema={**SCHEMA, "control": pl.String, "as_good": pl.Boolean, "draws": pl.Int64, "draws_as_good": pl.Int64}
        )
    compared = _at_strengths(pl.concat(tables), means)
    reached = _reached(chosen, known)
    compared = compared.join(reached, on=_REACHED, how="left", nulls_equal=True, maintain_order="left")
    not_weaker = ~(pl.col("difference_high") < 0).fill_null(False)  # control minus vector
    chance = (1 + pl.col("draws_as_good")) / (1 + pl.col("draws"))
    reached_often = ((pl.col("draws_as_good") > 0) & (chance > LEVEL)).fill_null(False)
    return compared.with_columns(as_good=not_weaker | reached_often)


def with_costs(compared: pl.DataFrame, at: pl.DataFrame) -> pl.DataFrame:
    """With ``cost`` and ``reference_cost``, the side effects of the control and of its vector, and ``cost_ratio``.

    Args:
        compared: of `compare_with_controls`.
        at: the strengths; as `weightsteer.measure.calibrate` returns them they have side effects. All three columns are
            null without.
    """
    if not {"sign", "value"} <= set(at.columns):
        return compared.with_columns(pl.lit(None, pl.Float64).alias(name) for name in COSTS)
    from weightsteer.measure.calibrate import over_seeds  # with torch, which an audit of finished rows can do without

    costs = over_seeds(at)
    keys = [name for name in (*VECTOR, "sign") if name in costs.columns]
    for prefix in ("", "reference_"):
        names = {name: f"{prefix}{name}" if name in ("method", "adapter") else name for name in keys}
        own = costs.select(*keys, pl.col("value").alias(f"{prefix}cost")).rename(names)
        compared = compared.join(own, on=list(names.values()), how="left", nulls_equal=True, maintain_order="left")
    return compared.with_columns(cost_ratio=pl.col("cost") / pl.col("reference_cost"))


def _at_strengths(compared: pl.DataFrame, means: pl.DataFrame) -> pl.DataFrame:
    """With the mean strengths in place of the signs."""
    for prefix in ("", "reference_"):
        names = {name: f"{prefix}{name}" for name in ("method", "adapter", "alpha")}
        found = means.rename({**names, "strength": "_strength"})
        keys = ["model", "behavior", "eval", *names.values()]
        compared = (
            compared.join(found, on=keys, how="left", nulls_equal=True, maintain_order="left")
            .with_columns(pl.col("_strength").alias(f"{prefix}alpha"))
            .drop("_strength")
        )
    return compared


_REACHED = ["model", "behavior", "reference_method", "reference_adapter", "adapter", "eval", "sign"]


def _reached(chosen: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """How many draws each control has, and how many reach the effect of the vector they were drawn for."""
    effects = _effects(chosen)
    keys = ["model", "behavior"]
    draws = (
        effects.filter(pl.col("method") == "control")
        .join(known, on=[*keys, "adapter"], nulls_equal=True)
        .with_columns(reference_method="owner_method", reference_adapter="owner")
    )
    reference = effects.select(
        *keys, "eval", "sign", reference_method="method", reference_adapter="adapter", seed="seed", effect="own"
    )
    place = [*keys, "eval", "sign", "reference_method", "reference_adapter"]
    on_average = reference.group_by(place).agg(average=pl.mean("effect"))
    return (
        draws.join(reference, on=[*place, "seed"], how="left", nulls_equal=True)
        .join(on_average, on=place, nulls_equal=True)
        .group_by(_REACHED)
        .agg(
            draws=pl.len().cast(pl.Int64),
            draws_as_good=(pl.col("own") >= pl.coalesce("effect", "average")).sum().cast(pl.Int64),
        )
    )


def _effects(chosen: pl.DataFrame) -> pl.DataFrame:
    """Discrimination along the sign of α, by seed."""
    base = chosen.filter(pl.col("alpha") == 0).select(*VECTOR, "eval", *REPEATED, "item", before="logratio")
    shift = (pl.col("logratio") - pl.col("before")) * pl.col("alpha")
    means = (
        chosen.filter(pl.col("alpha") != 0)
        .join(base, on=[*VECTOR, "eval", *REPEATED, "item"], nulls_equal=True)
        .group_by(*VECTOR, "eval", *REPEATED, pl.col("alpha").cast(pl.Int64).alias("sign"), "label")
        .agg(shift.mean().alias("shift"))
    )
    return means.group_by(*VECTOR, "eval", *REPEATED, "sign").agg(own=(pl.col("label") * pl.col("shift")).mean())

"""A vector beside its controls: does one of them do as well?

It does when it cannot be told to do less: the 95% interval of the difference holds 0 or lies on the side of the
control; or its draws reach the vector's effect so often that the rank of the vector among them is no surprise,
``(1 + reached) / (1 + draws) > 0.05`` with at least one that reaches it. The mean of many random draws is near 0 even
where single draws move the metric more than the vector does; the rank is what they would show.
"""

from typing import Any

import polars as pl

from weightsteer.audit.draws import VECTOR
from weightsteer.stats.compare import SCHEMA, compare
from weightsteer.stats.correction import LEVEL


def beside_controls(
    chosen: pl.DataFrame,
    steady: pl.DataFrame,
    known: pl.DataFrame,
    drawn: pl.DataFrame,
    means: pl.DataFrame,
    **options: Any,
) -> pl.DataFrame:
    """Every vector beside its controls.

    Args:
        chosen: rows at the arms, every draw by itself.
        steady: the same with draws folded into training seeds (`weightsteer.audit.draws.folded`).
        known: the vector of every control (`weightsteer.audit.draws.owners`).
        drawn: the training seeds of the draws (`weightsteer.audit.draws.trained`).
        means: the mean ``strength`` of every arm.
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
        arms = part.filter(pl.col("alpha") != 0).select(*VECTOR, "eval", "alpha").unique(maintain_order=True)
        at = arms.join(arms.filter(vector), on=["eval", "alpha"], how="semi", maintain_order="left")
        if not at.filter(own).height:
            continue  # the vector or all of its controls have no usable strength
        kinds = known.filter(place, owner=of["owner"], owner_method=of["owner_method"]).select("adapter", "control")
        found = compare(part, at, reference=(of["owner_method"], of["owner"]), **options)
        tables.append(found.join(kinds, on="adapter", how="left", maintain_order="left"))
    if not tables:
        return pl.DataFrame(
            schema={**SCHEMA, "control": pl.String, "as_good": pl.Boolean, "draws": pl.Int64, "draws_as_good": pl.Int64}
        )
    beside = _at_strengths(pl.concat(tables), means)
    reached = _reached(chosen, known, drawn)
    beside = beside.join(reached, on=_REACHED, how="left", nulls_equal=True, maintain_order="left")
    not_less = ~(pl.col("difference_high") < 0).fill_null(False)  # control minus vector
    chance = (1 + pl.col("draws_as_good")) / (1 + pl.col("draws"))
    return beside.with_columns(as_good=not_less | ((pl.col("draws_as_good") > 0) & (chance > LEVEL)).fill_null(False))


def priced(beside: pl.DataFrame, at: pl.DataFrame) -> pl.DataFrame:
    """With ``price``: the side effect of the control over that of its vector at the same strength, means over seeds.

    Args:
        beside: of `beside_controls`.
        at: the strengths; as `weightsteer.measure.calibrate` gives them they have the side effects (``value``). Null
        without.
    """
    if "value" not in at.columns:
        return beside.with_columns(price=pl.lit(None, pl.Float64))
    keys = [name for name in ("model", "behavior", "method", "adapter", "sign") if name in at.columns]
    its_keys = [f"reference_{name}" if name in ("method", "adapter") else name for name in keys]
    costs = at.group_by(keys).agg(pl.mean("value"))
    own = costs.rename({"value": "_own"})
    its = costs.rename({**dict(zip(keys, its_keys, strict=True)), "value": "_its"})
    return (
        beside.join(own, on=keys, how="left", nulls_equal=True, maintain_order="left")
        .join(its, on=its_keys, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(price=pl.col("_own") / pl.col("_its"))
        .drop("_own", "_its")
    )


def _at_strengths(beside: pl.DataFrame, means: pl.DataFrame) -> pl.DataFrame:
    """With the mean strengths in the place of the arms."""
    for prefix in ("", "reference_"):
        names = {name: f"{prefix}{name}" for name in ("method", "adapter", "alpha")}
        found = means.rename({**names, "strength": "_strength"})
        keys = ["model", "behavior", "eval", *names.values()]
        beside = (
            beside.join(found, on=keys, how="left", nulls_equal=True, maintain_order="left")
            .with_columns(pl.col("_strength").alias(f"{prefix}alpha"))
            .drop("_strength")
        )
    return beside


_REACHED = ["model", "behavior", "reference_method", "reference_adapter", "adapter", "eval", "sign"]


def _reached(chosen: pl.DataFrame, known: pl.DataFrame, drawn: pl.DataFrame) -> pl.DataFrame:
    """How many draws each control has, and how many reach the effect of the vector they were drawn for."""
    effects = _effects(chosen)
    keys = ["model", "behavior"]
    draws = (
        effects.filter(pl.col("method") == "control")
        .join(known, on=[*keys, "adapter"], nulls_equal=True)
        .join(drawn, on=[*keys, "adapter", "seed"], nulls_equal=True)
        .with_columns(reference_method="owner_method", reference_adapter="owner")
    )
    reference = effects.select(
        *keys, "eval", "sign", reference_method="method", reference_adapter="adapter", trained="seed", effect="own"
    )
    place = [*keys, "eval", "sign", "reference_method", "reference_adapter"]
    on_average = reference.group_by(place).agg(average=pl.mean("effect"))
    return (
        draws.join(reference, on=[*place, "trained"], how="left", nulls_equal=True)
        .join(on_average, on=place, nulls_equal=True)
        .group_by(_REACHED)
        .agg(
            draws=pl.len().cast(pl.Int64),
            draws_as_good=(pl.col("own") >= pl.coalesce("effect", "average")).sum().cast(pl.Int64),
        )
    )


def _effects(chosen: pl.DataFrame) -> pl.DataFrame:
    """Discrimination along the sign of each arm, by seed."""
    base = chosen.filter(pl.col("alpha") == 0).select(*VECTOR, "eval", "seed", "item", before="logratio")
    shift = (pl.col("logratio") - pl.col("before")) * pl.col("alpha")
    means = (
        chosen.filter(pl.col("alpha") != 0)
        .join(base, on=[*VECTOR, "eval", "seed", "item"], nulls_equal=True)
        .group_by(*VECTOR, "eval", "seed", pl.col("alpha").cast(pl.Int64).alias("sign"), "label")
        .agg(shift.mean().alias("shift"))
    )
    return means.group_by(*VECTOR, "eval", "seed", "sign").agg(own=(pl.col("label") * pl.col("shift")).mean())

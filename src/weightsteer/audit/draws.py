"""Which vector a control belongs to, and its draws folded into the training seeds of that vector.

A random control is drawn several times for each training seed (`weightsteer.controls.seeds`). Thirty draws for three
seeds are not thirty seeds: what a training seed does to all of its draws would be counted ten times, and intervals
would be too narrow. So the draws of a seed are averaged, row by row, and the control has the seeds of its vector,
paired with them. Effects are means over rows, so that the effect of the average is the average of the effects. For a
single training seed there is nothing to fold: the draws are the only chance there is, and stay.
"""

from collections.abc import Iterable

import polars as pl

from weightsteer.controls.seeds import training_seed
from weightsteer.stats.table import RATES

VECTOR = ["model", "behavior", "method", "adapter"]
_CONTROL = ["model", "behavior", "adapter"]

UNFOLDED = (
    *("logratio_sd", "si_yes"),
    *(f"{name}{end}" for name in ("auc", "si", "si_k1", "si_forward", *RATES) for end in ("", "_low", "_high")),
)
"""Columns of a summary that are no means over rows: those of the average over draws are not the average of theirs."""


def owner(adapter: str | None, vectors: Iterable[str | None]) -> str | None:
    """The adapter of the vector that a control with this adapter belongs to: the longest that its own begins with.

    The longest, because the control ``lora-without-yes-random`` is one of ``lora-without-yes`` and not of ``lora``.
    """
    if adapter is None:
        return None
    own = [name for name in vectors if name and adapter.startswith(f"{name}-")]
    return max(own, key=len, default=None)


def owners(rows: pl.DataFrame) -> pl.DataFrame:
    """One line per control that has its vector in the rows, and per method that has it.

    Columns: model, behavior, adapter (of the control), ``owner_method`` and ``owner`` (of the vector).
    """
    names = rows.select(VECTOR).unique().sort(VECTOR, nulls_last=True)
    found = []
    for part in names.partition_by("model", "behavior", maintain_order=True):
        vectors = part.filter(pl.col("method") != "control")
        for line in part.filter(pl.col("method") == "control").iter_rows(named=True):
            of = owner(line["adapter"], vectors["adapter"])
            place = {name: line[name] for name in _CONTROL}
            found += [
                {**place, "owner_method": method, "owner": of}
                for method in vectors.filter(pl.col("adapter") == of)["method"]
            ]
    return pl.DataFrame(found, schema=dict.fromkeys([*_CONTROL, "owner_method", "owner"], pl.String))


def trained(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The training seed that every control was drawn for.

    Args:
        rows: of a sweep.
        known: `owners` of them.

    Returns:
        model, behavior, adapter and seed of each control with an owner, and ``trained``: the seed of the vector it was
        made for; its own seed where the vector has no such seed.
    """
    seeds = rows.select(*VECTOR, "seed").unique().sort(*VECTOR, "seed", nulls_last=True)
    of_vector = {key: group["seed"].drop_nulls().to_list() for key, group in seeds.group_by(VECTOR)}
    controls = seeds.filter(pl.col("method") == "control").join(
        known.unique(_CONTROL, maintain_order=True), on=_CONTROL, nulls_equal=True, maintain_order="left"
    )
    lines = []
    for line in controls.iter_rows(named=True):
        own = of_vector.get((line["model"], line["behavior"], line["owner_method"], line["owner"]), [])
        found = None if line["seed"] is None else training_seed(line["seed"], own)
        place = {name: line[name] for name in (*_CONTROL, "seed")}
        lines.append({**place, "trained": line["seed"] if found is None else found})
    return pl.DataFrame(lines, schema=dict.fromkeys(_CONTROL, pl.String) | dict.fromkeys(["seed", "trained"], pl.Int64))


def many_draws(drawn: pl.DataFrame) -> pl.DataFrame:
    """Of `trained` the controls (model, behavior, adapter) with several draws for some of several training seeds."""
    counts = drawn.group_by(_CONTROL, maintain_order=True).agg(seeds=pl.n_unique("trained"), draws=pl.len())
    return counts.filter(pl.col("seeds") > 1, pl.col("draws") > pl.col("seeds")).select(_CONTROL)


def folded(rows: pl.DataFrame, drawn: pl.DataFrame) -> pl.DataFrame:
    """The rows with the draws of every training seed averaged, for the controls of `many_draws`.

    Args:
        rows: at chosen strengths (`weightsteer.stats.strengths.select`): ``alpha`` is the arm.
        drawn: `trained` of them.
    """
    several = many_draws(drawn).with_columns(method=pl.lit("control"))
    if several.is_empty():
        return rows
    averaged = [name for name in ("logratio", "pmass", "low_pmass", "strength") if name in rows.columns]
    rows = rows.with_columns(pl.col(averaged).cast(pl.Float64))
    place = {"on": several.columns, "nulls_equal": True, "maintain_order": "left"}
    stay, draws = (rows.join(several, how=how, **place) for how in ("anti", "semi"))  # type: ignore[arg-type]
    means = (
        draws.join(drawn, on=[*_CONTROL, "seed"], nulls_equal=True, maintain_order="left")
        .with_columns(seed=pl.col("trained").cast(rows.schema["seed"]))
        .group_by(*(name for name in rows.columns if name not in averaged), maintain_order=True)
        .agg(pl.col(averaged).mean())
    )
    return pl.concat([stay, means.select(rows.columns)])

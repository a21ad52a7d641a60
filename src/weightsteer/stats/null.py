"""The null of random directions in tables: from swept draws, and at the lines of ``summarize``.

An interval over rows says whether the effect of *this* vector generalises to other rows; that of one random vector does
as well. Whether an effect is more than that of a random direction with the same norms is asked here: z is the effect in
standard deviations of that null (`weightsteer.controls.random_null`), over training seeds of their mean.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
from scipy.stats import t

from weightsteer.errors import WeightsteerError
from weightsteer.stats.correction import holm
from weightsteer.stats.pairing import GROUP, REPEATED, with_draws

EFFECTS = {"discrimination": "", "bias": "bias_"}
"""The effects that have a null, and what the columns of each begin with in ``summarize``."""

SCHEMA = {
    **dict.fromkeys(("model", "behavior", "method", "adapter"), pl.String),
    "seed": pl.Int64,
    "control": pl.String,
    "control_of": pl.String,
    "draw": pl.Int64,
    **dict.fromkeys(("eval", "effect", "module"), pl.String),
    "layer": pl.Int64,
    "alpha": pl.Float64,
    **dict.fromkeys(("slope", "null_sd", "kurtosis", "z", "largest", "efficiency"), pl.Float64),
    "draws": pl.Int64,
}
"""What `weightsteer.random_null` returns."""

FREEDOM = 8
"""The standard deviation from a gradient is one to first order in α, and trusted as one of so many draws would be: it
is off by a quarter in the root mean square. Chosen on random vectors with the norms of one training seed; the false
alarms of two others are measured in docs/verdicts.md."""

LEAST_DRAWS = 5
"""With fewer, the standard deviation of a null is not known well enough to be used."""


class _Spread(NamedTuple):
    """How a random direction spreads: standard deviation, excess kurtosis, and the draws it was estimated from."""

    sd: float
    kurtosis: float
    draws: int | None

    def p(self, z: float) -> float:
        """P(|Z| ≥ |z|), two-sided.

        Of Student's t with as many degrees of freedom as draws; for a gradient with `FREEDOM`, or with 4 + 6/κ, which
        has the excess kurtosis κ, where that is less.
        """
        tail = 4 + 6 / self.kurtosis if self.kurtosis > 0 else math.inf
        return float(2 * t.sf(abs(z), min(FREEDOM, tail) if self.draws is None else self.draws))


class Null:
    """Standard deviations of the null, looked up by line.

    Args:
        table: what ``random_null`` or `null_of_draws` returned, several of them concatenated; None: nothing is known.

    Raises:
        WeightsteerError: columns are missing.
    """

    def __init__(self, table: pl.DataFrame | None) -> None:
        self._known: dict[tuple[Any, ...], _Spread] = {}
        if table is None:
            return
        if absent := [name for name in SCHEMA if name not in table.columns]:
            raise WeightsteerError(
                f"this is not a null: no column {', '.join(absent)}. Pass what weightsteer.random_null returned."
            )
        for line in table.filter(pl.col("module").is_null()).iter_rows(named=True):
            key = (*(line[name] for name in [*GROUP, *REPEATED]), line["effect"], line["alpha"])
            self._known[key] = _Spread(line["null_sd"], line["kurtosis"] or 0.0, line["draws"])

    def columns(
        self, names: Mapping[str, Any], repeated: Sequence[tuple[Any, Any]], line: Mapping[str, Any]
    ) -> dict[str, Any]:
        """``null_sd``, ``z``, ``null_p`` and those of the bias for a line of ``summarize``, and ``null_draws``.

        Args:
            names: the values of `weightsteer.stats.GROUP`.
            repeated: (seed, draw) of each measurement of which the effects are means.
            line: ``alpha`` and the effects.
        """
        found: dict[str, Any] = {"null_draws": None}
        for effect, prefix in EFFECTS.items():
            null = self._pooled(names, repeated, line["alpha"], effect) if line["alpha"] else None
            z = line[effect] / null.sd if null and null.sd > 0 and line[effect] is not None else None
            found[f"{prefix}null_sd"] = null.sd if null else None
            found[f"{prefix}z"] = z
            found[f"{prefix}null_p"] = null.p(z) if null and z is not None and math.isfinite(z) else None
            found["null_draws"] = null.draws if null else found["null_draws"]
        return found

    def _pooled(
        self, names: Mapping[str, Any], repeated: Sequence[tuple[Any, Any]], alpha: float, effect: str
    ) -> "_Spread | None":
        """The spread of a mean over seeds and draws, with sd = √(Σ_s sd_s²) / S; None where one is not known."""
        variance, cumulant, fewest = 0.0, 0.0, None
        for seed, draw in repeated:
            key = (*(names[name] for name in GROUP), seed, draw, effect)
            found = self._known.get((*key, alpha))
            if found is None:
                per_unit = self._known.get((*key, None))
                found = per_unit and per_unit._replace(sd=abs(alpha) * per_unit.sd)
            if found is None:
                return None
            variance += found.sd**2
            cumulant += found.kurtosis * found.sd**4
            fewest = found.draws if fewest is None else min(fewest, found.draws or fewest)
        return _Spread(math.sqrt(variance) / len(repeated), cumulant / variance**2 if variance else 0.0, fewest)


def correct(lines: Sequence[dict[str, Any]]) -> None:
    """Give lines of ``summarize`` their corrected p values of the null, ``null_holm`` and ``bias_null_holm``.

    They are Holm's over what one verdict is made of: both effects on all evaluations of one intervention, at one size
    of the strength and both its signs. To first order other sizes have the same z, and are no further tests.
    """
    families: dict[tuple[Any, ...], list[tuple[dict[str, Any], str]]] = {}
    for line in lines:
        key = tuple(line.get(name) for name in ("model", "behavior", "method", "adapter", *REPEATED))
        for prefix in EFFECTS.values():
            families.setdefault((*key, abs(line["alpha"])), []).append((line, prefix))
    for family in families.values():
        corrected = holm([line[f"{prefix}null_p"] for line, prefix in family])
        for (line, prefix), p in zip(family, corrected, strict=True):
            line[f"{prefix}null_holm"] = p


def null_of_draws(summary: pl.DataFrame) -> pl.DataFrame:
    """The null from swept draws of random directions, for where a gradient cannot be had or α is large.

    The standard deviation is the root of the mean squared effect: a random direction has no sign, so that its mean
    effect is 0 to first order, and what it has beyond (second order in α) belongs to the null.

    Args:
        summary: ``summarize(rows, by_seed=True)`` of at least `LEAST_DRAWS` draws of the control ``random`` of each
            vector.

    Returns:
        Lines as ``random_null`` returns them, of the vectors that the draws belong to: one per strength and effect.

    Raises:
        WeightsteerError: there are fewer draws.
    """
    drawn = with_draws(summary).filter(pl.col("control") == "random", pl.col("alpha") != 0)
    keys = ["model", "behavior", "control_of", "seed", "eval", "alpha"]
    lines = []
    for group in drawn.partition_by(keys, maintain_order=True):
        if group.height < LEAST_DRAWS:
            raise WeightsteerError(
                f"{group.height} draws of random directions are too few for a null: at least {LEAST_DRAWS} are needed."
            )
        whose = group.select(keys).row(0, named=True)
        adapter = whose.pop("control_of")
        for effect in EFFECTS:
            if group[effect].null_count() == 0:
                sd = math.sqrt(sum(value**2 for value in group[effect]) / group.height)
                kept = {"method": "weight", "adapter": adapter, "effect": effect, "null_sd": sd, "draws": group.height}
                lines.append({**whose, **kept})
    return pl.DataFrame(lines, schema=SCHEMA)


def linear(null: pl.DataFrame) -> pl.DataFrame:
    """A null from draws at some strengths, per unit of α and for every α: the root mean square over the strengths."""
    keys = [name for name in SCHEMA if name not in ("alpha", "null_sd", "draws")]
    square = ((pl.col("null_sd") / pl.col("alpha")) ** 2).mean().sqrt()
    joined = null.group_by(keys, maintain_order=True).agg(square.alias("null_sd"), pl.min("draws"))
    return joined.with_columns(alpha=pl.lit(None, pl.Float64)).select(list(SCHEMA))


def at_signs(null: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The null at chosen strengths, with ``alpha`` replaced by its sign as in the rows.

    Args:
        null: as ``random_null`` or `null_of_draws` returns it.
        rows: at chosen strengths (`weightsteer.stats.strengths.select`): ``alpha`` is the sign, and ``strength`` the
            strength itself, which may differ between training seeds.
    """
    keys = [*GROUP, *REPEATED]
    used = rows.filter(pl.col("alpha") != 0).select(*keys, pl.col("strength").cast(pl.Float64), sign="alpha").unique()
    found = null.filter(pl.col("module").is_null()).join(used, on=keys, nulls_equal=True)
    per_unit = pl.col("alpha").is_null()
    size = pl.when(per_unit).then(pl.col("null_sd") * pl.col("strength").abs()).otherwise("null_sd")
    same = per_unit | ((pl.col("alpha") - pl.col("strength")).abs() < 1e-6)
    return (
        found.with_columns(null_sd=size)
        .filter(same)
        .with_columns(alpha=pl.col("sign").cast(pl.Float64))
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    )


def of_both_signs(null: pl.DataFrame) -> pl.DataFrame:
    """The null of what a vector does along α (`weightsteer.audit.signs`), at α = 1: the mean over the signs.

    To first order the effect of one random direction at −α is that at +α turned round, so that they do not average out.
    """
    keys = [name for name in SCHEMA if name not in ("alpha", "null_sd", "kurtosis", "draws")]
    joined = null.group_by(keys, maintain_order=True).agg(pl.mean("null_sd"), pl.max("kurtosis"), pl.min("draws"))
    return joined.with_columns(alpha=pl.lit(1.0)).select(list(SCHEMA))


def of_mean_draws(null: pl.DataFrame, several: pl.DataFrame) -> pl.DataFrame:
    """The null of the mean over the draws of a control, as one draw per training seed: ``√(Σ_d sd_d²) / D``.

    Args:
        several: the controls (model, behavior, adapter) that it is done for.
    """
    if several.is_empty() or null.is_empty():
        return null
    several = several.with_columns(method=pl.lit("control"))
    stay, draws = (null.join(several, on=several.columns, how=how, nulls_equal=True) for how in ("anti", "semi"))
    numbers = ("null_sd", "kurtosis", "slope", "z", "largest", "efficiency", "draw", "draws")
    keys = [name for name in SCHEMA if name not in numbers]
    square = (pl.col("null_sd") ** 2).sum()
    kurtosis = (pl.col("kurtosis") * pl.col("null_sd") ** 4).sum() / square**2
    found = draws.group_by(keys, maintain_order=True)
    means = found.agg((square.sqrt() / pl.len()).alias("null_sd"), kurtosis.alias("kurtosis"), pl.min("draws"))
    return pl.concat([stay, means.with_columns(draw=pl.lit(0))], how="diagonal_relaxed").select(list(SCHEMA))

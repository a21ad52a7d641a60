"""Effect against damage: what each intervention buys with what it costs, at every strength."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import polars as pl

from weightsteer.errors import WeightsteerError
from weightsteer.stats.pairing import GROUP

COSTS = ("nll_change", "kl_base_steered", "kl_steered_base")

_ARM = ["model", "behavior", "method", "adapter"]
_DIGITS = 9  # strengths are joined after rounding: the two tables come from files of their own


def frontier(summary: pl.DataFrame, damage: pl.DataFrame, *, cost: str = "nll_change") -> pl.DataFrame:
    """Effects joined with the damage of the same intervention at the same strength.

    Args:
        summary: of ``summarize`` (not by seed).
        damage: of `weightsteer.measure.damage_table.damage_summary`.
        cost: its column that counts as damage, in nats per token; see `COSTS`.

    Returns:
        One line per intervention, evaluation, sign and strength, α = 0 in both signs, ordered along |α|: the
        intervention, ``eval``, ``sign``, ``alpha``; ``effect`` (discrimination times the sign, nats) with
        ``effect_low`` and ``effect_high``; ``damage`` with ``damage_low`` and ``damage_high``; ``n``, ``clusters``,
        ``seeds`` and ``verdict`` of the effect. Damage is null at strengths where it was not measured.

    Raises:
        WeightsteerError: no strength of the summary has a damage, or a column is missing.
    """
    bounds = [cost, f"{cost}_low", f"{cost}_high"]
    if missing := [name for name in bounds if name not in damage.columns]:
        raise WeightsteerError(
            f"the damage table has no column {', '.join(missing)}: pass what damage_summary returned."
        )
    if "seed" in summary.columns:
        raise WeightsteerError("the frontier is drawn over all seeds: pass summarize(rows) without by_seed.")
    place = pl.col("alpha").cast(pl.Float64).round(_DIGITS) + 0.0
    costs = damage.select(*_ARM, place.alias("_at"), damage=bounds[0], damage_low=bounds[1], damage_high=bounds[2])
    joined = summary.with_columns(place.alias("_at")).join(
        costs, on=[*_ARM, "_at"], how="left", nulls_equal=True, maintain_order="left"
    )
    if joined["damage"].null_count() == joined.height:
        raise WeightsteerError("no strength of the summary has a measured damage: measure the damage at its strengths.")
    parts = []
    for sign in (1, -1):
        low, high = ("low", "high") if sign > 0 else ("high", "low")
        own = pl.col("alpha") * sign >= 0
        used = joined.filter(own).filter((pl.col("alpha") != 0).any().over(GROUP))
        parts.append(
            used.with_columns(
                sign=pl.lit(sign, pl.Int64),
                effect=pl.col("discrimination") * sign,
                effect_low=pl.col(f"discrimination_{low}") * sign,
                effect_high=pl.col(f"discrimination_{high}") * sign,
            )
        )
    shown = ["effect", "effect_low", "effect_high", "damage", "damage_low", "damage_high", "n", "clusters", "seeds"]
    return (
        pl.concat(parts)
        .sort(*GROUP, -pl.col("sign"), pl.col("alpha").abs(), nulls_last=True)
        .select(*GROUP, "sign", "alpha", *shown, "verdict")
    )


def at_equal_damage(points: pl.DataFrame, value: float) -> pl.DataFrame:
    """What every intervention does at one damage (nats per token), interpolated along |α|.

    Where damage rises along all strengths of a sign, effect, its interval and |α| are interpolated linearly between
    the two strengths around ``value``. The uncertainty of the damage itself is not in the interval. Where it does not,
    there is no one strength of that damage, and ``status`` says so in place of a number.

    Args:
        points: of ``frontier``.
        value: above 0.

    Returns:
        One line per intervention, evaluation and sign: ``alpha``, ``effect``, ``effect_low``, ``effect_high``,
        ``damage`` (the value), ``status`` (``interpolated``, ``not monotone``, ``out of reach``, ``not measured``) and
        its ``reason``, null when interpolated.
    """
    if not value > 0:
        raise WeightsteerError(f"damage {value:g}: give a value above 0, which α = 0 has.")
    keys = [*GROUP, "sign"]
    lines = []
    for part in points.partition_by(keys, maintain_order=True):
        names = part.select(keys).row(0, named=True)
        lines.append({**names, "damage": value, **_at(part, value)})
    numbers = dict.fromkeys(("alpha", "effect", "effect_low", "effect_high", "damage"), pl.Float64)
    schema = {name: points.schema[name] for name in keys} | numbers | {"status": pl.String, "reason": pl.String}
    return pl.DataFrame(lines, schema=schema)


def _at(part: pl.DataFrame, value: float) -> Mapping[str, Any]:
    known = part.filter(pl.col("damage").is_not_null()).sort(pl.col("alpha").abs())
    if known.height < 2 or known["damage"].is_nan().any():
        return {"status": "not measured", "reason": "the damage of fewer than two strengths is known"}
    lines = known.to_dicts()
    for before, after in pairwise(lines):
        if not after["damage"] > before["damage"]:
            return {
                "status": "not monotone",
                "reason": f"damage does not rise from alpha {before['alpha']:g} to {after['alpha']:g} "
                f"({before['damage']:.3g} to {after['damage']:.3g}): no one strength has it",
            }
    if value > lines[-1]["damage"]:
        last = lines[-1]
        return {
            "status": "out of reach",
            "reason": f"the largest strength, alpha {last['alpha']:g}, has damage {last['damage']:.3g}",
        }
    before, after = next((b, a) for b, a in pairwise(lines) if a["damage"] >= value)
    share = (value - before["damage"]) / (after["damage"] - before["damage"])
    mixed = {
        name: None if before[name] is None or after[name] is None else (1 - share) * before[name] + share * after[name]
        for name in ("alpha", "effect", "effect_low", "effect_high")
    }
    return {**mixed, "status": "interpolated", "reason": None}

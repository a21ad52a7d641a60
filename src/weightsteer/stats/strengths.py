"""Each intervention at the strength it is to be compared at: one for all seeds, or one per seed and sign.

Strengths come from a person (``method, adapter, alpha``) or from a calibration (``…, seed, sign, alpha_star, status``).
A calibration that did not reach its target gives no strength: its rows do not enter, and are listed with the reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from weightsteer.errors import WeightsteerError
from weightsteer.stats.pairing import REPEATED, REQUIRED, with_draws

MATCHED = ("converged", "fixed")
"""The states of a strength at which an intervention may be compared with others."""

CLOSE = 1e-6
"""Strengths are equal when they differ by less than this share: one went through a file, the other did not."""

_KEYS = ["model", "behavior", "method", "adapter", *REPEATED]


@dataclass(frozen=True)
class Selection:
    """Rows at the chosen strengths.

    Attributes:
        rows: with ``alpha`` replaced by its sign (−1, 0 or +1) and the strength itself in ``strength``.
        excluded: model, behavior, method, adapter, sign and the ``reason``: what may not be compared.
    """

    rows: pl.DataFrame
    excluded: pl.DataFrame


def headline_strengths(alphas: Iterable[float]) -> list[float]:
    """+1 and −1 where they were swept, else the smallest strength of each sign: a choice made before any result.

    Interventions without a calibration are compared here, and controls are swept here.

    >>> headline_strengths([-2.0, -1.0, 0.0, 0.25, 0.5])
    [0.25, -1.0]
    """
    swept = set(alphas)
    signs = [(sign, [alpha for alpha in swept if alpha * sign > 0]) for sign in (1.0, -1.0)]
    return [sign if sign in found else min(found, key=abs) for sign, found in signs if found]


def select(rows: pl.DataFrame, at: pl.DataFrame) -> Selection:
    """The rows at the strengths ``at`` and at α = 0.

    Args:
        rows: of a sweep that has those strengths.
        at: ``method``, ``adapter``, and either ``alpha`` or ``sign`` and ``alpha_star`` (its size); where they differ
            also ``model``, ``behavior``, ``seed``, ``eval``. With ``status``, only those of `MATCHED` enter. One sign
            of one method enters whole or not at all: seeds left out because they failed would flatter the others.

    Raises:
        WeightsteerError: columns are missing, a strength is 0, not finite, given twice for one sign or not swept, or a
            seed has none.
    """
    if absent := [name for name in REQUIRED if name not in rows.columns]:
        raise WeightsteerError(f"these rows are not those of a sweep: no column {', '.join(absent)}.")
    rows, asked = with_draws(rows), _asked(at)
    keys = [name for name in [*_KEYS, "eval"] if name in asked.columns]
    swept = rows.select(*_KEYS, "eval", "alpha").unique().with_columns(pl.col("alpha").cast(pl.Float64))
    known = swept.select(*_KEYS, "eval").unique()
    asked = asked.join(known, on=keys, how="left", nulls_equal=True, coalesce=True, maintain_order="left")
    asked = asked.with_columns(
        pl.lit(None, pl.String).alias(n) for n in ("model", "behavior", "eval") if n not in asked
    )
    failed = ~pl.col("status").is_in(MATCHED)
    whole = ["model", "behavior", "method", "adapter", "sign"]
    excluded = (
        asked.filter(failed)
        .group_by(whole, maintain_order=True)
        .agg(pl.col("seed").unique().sort() if "seed" in asked.columns else pl.lit(None), pl.col("status").unique())
    )
    excluded = excluded.select(
        *whole,
        pl.struct("seed", "status").map_elements(_reason, return_dtype=pl.String).alias("reason"),
    )
    admitted = asked.join(excluded, on=whole, how="anti", nulls_equal=True)
    found = _match(admitted, swept)
    one = [*_KEYS, "eval", "sign"]
    if (twice := found.select(one).is_duplicated()).any():
        raise WeightsteerError(f"two strengths for one sign: {_named(found.filter(twice).row(0, named=True))}.")
    _complete(found, known)
    steered = rows.with_columns(pl.col("alpha").cast(pl.Float64)).join(
        found.select(*_KEYS, "eval", "sign", alpha="swept"), on=[*_KEYS, "eval", "alpha"], nulls_equal=True
    )
    base = rows.filter(pl.col("alpha") == 0).join(found, on=[*_KEYS, "eval"], how="semi", nulls_equal=True)
    taken = pl.concat(
        [
            part.with_columns(strength=pl.col("alpha").cast(pl.Float64), alpha=side).select(*rows.columns, "strength")
            for part, side in ((base, pl.lit(0.0)), (steered, pl.col("sign").cast(pl.Float64)))
        ]
    )
    return Selection(taken, excluded)


def _asked(at: pl.DataFrame) -> pl.DataFrame:
    """``at`` with ``alpha``, ``sign`` and ``status``, checked."""
    if absent := [name for name in ("method", "adapter") if name not in at.columns]:
        raise WeightsteerError(f"the strengths need the column {' and '.join(absent)}: which intervention are they of?")
    if "alpha_star" in at.columns and "sign" in at.columns:
        at = at.with_columns(alpha=pl.col("alpha_star").cast(pl.Float64).abs() * pl.col("sign"))
    elif "alpha" in at.columns:
        at = at.with_columns(pl.col("alpha").cast(pl.Float64), sign=pl.col("alpha").sign())
    else:
        raise WeightsteerError("the strengths need a column alpha, or sign and alpha_star.")
    if "status" not in at.columns:
        at = at.with_columns(status=pl.lit("fixed"))
    at = at.with_columns(pl.col("sign").cast(pl.Int64), pl.col("status").fill_null("unknown"))
    usable = pl.col("alpha").is_finite().fill_null(False) & (pl.col("alpha") != 0)
    if wrong := at.filter(pl.col("status").is_in(MATCHED), ~usable).height:
        raise WeightsteerError(
            f"{wrong} strengths are 0, missing or not finite: a comparison needs a strength other than 0."
        )
    kept = [name for name in (*_KEYS, "eval", "alpha", "sign", "status") if name in at.columns]
    return at.select(kept)


def _match(asked: pl.DataFrame, swept: pl.DataFrame) -> pl.DataFrame:
    """``asked`` with ``swept``: the strength of the rows that is equal to it."""
    joined = asked.join(swept.rename({"alpha": "swept"}), on=[*_KEYS, "eval"], how="left", nulls_equal=True)
    gap = (pl.col("swept") - pl.col("alpha")).abs()
    found = joined.filter(gap <= CLOSE * pl.col("alpha").abs())
    lost = asked.join(found, on=[*_KEYS, "eval", "alpha"], how="anti", nulls_equal=True)
    if lost.height:
        line = lost.sort(_KEYS, nulls_last=True).row(0, named=True)
        same = [pl.col(name).eq_missing(line[name]) for name in [*_KEYS, "eval"]]
        mine = joined.filter(*same)["swept"].drop_nulls().unique()
        swept_at = f"swept: {', '.join(f'{a:g}' for a in mine.sort())}" if len(mine) else "it was not swept at all"
        raise WeightsteerError(
            f"{_named(line)} has no rows at alpha {line['alpha']:g}; {swept_at}. Sweep it there first."
        )
    return found


def _complete(found: pl.DataFrame, known: pl.DataFrame) -> None:
    """Refuse a sign at which a seed that was swept has no strength."""
    signs = found.select("model", "behavior", "method", "adapter", "eval", "sign").unique()
    due = signs.join(known, on=["model", "behavior", "method", "adapter", "eval"], nulls_equal=True)
    missing = due.join(found, on=[*_KEYS, "eval", "sign"], how="anti", nulls_equal=True)
    if missing.height:
        raise WeightsteerError(
            f"{_named(missing.sort(_KEYS, nulls_last=True).row(0, named=True))} was swept but has no strength: give "
            "one for every seed, or leave the rows of that seed out."
        )


def _reason(line: dict[str, list[object]]) -> str:
    status = ", ".join(sorted(str(each) for each in line["status"]))
    seeds = [str(each) for each in line["seed"] or [] if each is not None]
    return status + (f" (seed {', '.join(seeds)})" if seeds else "")


def _named(line: dict[str, object]) -> str:
    parts = [str(line[name]) for name in ("method", "adapter") if line.get(name) is not None]
    parts += [f"seed {line['seed']}"] if line.get("seed") is not None else []
    parts += [f"on {line['eval']}"] if line.get("eval") is not None else []
    return " ".join(parts)

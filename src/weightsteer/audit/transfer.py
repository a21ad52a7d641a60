"""Trained on one thing, measured on another: the transfer matrix as a frame, a line per cell."""

from collections.abc import Mapping

import polars as pl

from weightsteer.errors import WeightsteerError

_CELL = ["model", "behavior", "method", "adapter", "eval", "alpha"]
_NUMBERS = [f"{name}{end}" for name in ("discrimination", "bias") for end in ("", "_low", "_high")]


def transfer(summary: pl.DataFrame, trained_on: Mapping[str, str] | None = None) -> pl.DataFrame:
    """What vectors trained on one thing do to every evaluation.

    Args:
        summary: of ``summarize`` (not by seed).
        trained_on: behaviour to the evaluation that asks what it was trained on, for ``in_distribution``; where it is
            missing, no evaluation is.

    Returns:
        One line per intervention, evaluation and strength other than 0: ``trained_on`` (the behaviour) and
        ``measured_on`` (the evaluation); the intervention; ``in_distribution``: whether it asks what the vector
        was trained on; discrimination and bias with intervals; ``share``: discrimination relative to that of the
        in-distribution evaluation (null without one, or where its interval contains 0); and the ``verdict``.

    Raises:
        WeightsteerError: the table is one by seed, or ``trained_on`` names an evaluation that is not in it.
    """
    if "seed" in summary.columns:
        raise WeightsteerError("a transfer matrix is over all seeds: pass summarize(rows) without by_seed.")
    asked = dict(trained_on or {})
    if unknown := sorted(set(asked.values()) - set(summary["eval"])):
        raise WeightsteerError(f"no evaluation {', '.join(unknown)} in this table: it was not swept.")
    own_eval = pl.col("behavior").replace_strict(asked, default=None, return_dtype=pl.String)
    at = summary.filter(pl.col("alpha") != 0).with_columns(
        in_distribution=(own_eval == pl.col("eval")).fill_null(False)
    )
    distinct = (pl.col("discrimination_low") > 0) | (pl.col("discrimination_high") < 0)
    own = at.filter("in_distribution", distinct).select(
        *(name for name in _CELL if name != "eval"), own="discrimination"
    )
    return (
        at.join(own, on=[name for name in _CELL if name != "eval"], how="left", nulls_equal=True, maintain_order="left")
        .with_columns(share=pl.col("discrimination") / pl.col("own"), trained_on="behavior", measured_on="eval")
        .select(
            "trained_on", "measured_on", "in_distribution", *_CELL, *_NUMBERS, "share", "seeds", "clusters", "verdict"
        )
    )

"""Surgical informedness with all its parts: how many decisions change, which way, and what the score leaves out."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from weightsteer.experiments.sweep.page.evidence import Evidence
from weightsteer.formatting import estimate
from weightsteer.report.cells import key, percent, rounded, within
from weightsteer.report.charts import Series
from weightsteer.stats.informedness import reading

RATES = ("fix", "broke", "flip", "counter")
SCORES = {"si": (-200, 100), "si_k1": (-100, 100), "si_forward": (-200, 100)}
"""The scores and their ranges."""


def decision_tables(
    summary: pl.DataFrame, evidence: Evidence, shown: Sequence[Series], strengths: Sequence[float]
) -> list[dict[str, Any]]:
    """A table for each evaluation: at the calibrated strengths where there are any, else at the headline strength.

    Controls stand apart, and under ``every`` all strengths of the sweep.
    """
    at = next((alpha for alpha in strengths if alpha > 0), None)
    tables = []
    for model, behavior in summary.select("model", "behavior").unique().sort("model", "behavior").rows():
        here = (pl.col("model") == model) & (pl.col("behavior") == behavior)
        own = summary.filter(here)
        for name in evidence.evaluations(behavior, own["eval"].unique().to_list()):
            swept = own.filter(pl.col("alpha") > 0, eval=name)
            chosen = swept.filter(pl.col("alpha").eq_missing(at)).with_columns(strength="alpha")
            if evidence.effects is not None:
                chosen = evidence.effects.filter(here, pl.col("alpha") > 0, eval=name)
            every = _lines(swept.with_columns(strength="alpha"), shown)
            found = _lines(chosen, shown)
            if not found and not every:
                continue
            lines = [line for line in found if not line["control"]] or found or every
            first = (chosen if swept.is_empty() else swept).row(0, named=True)
            tables.append(
                {
                    "model": model,
                    "behavior": behavior,
                    "eval": name,
                    "n": first["n"],
                    "clusters": first["clusters"],
                    "lines": lines,
                    "controls": [line for line in found if line not in lines],
                    "every": every if len(every) > len(found) else [],
                    "reading": next((words for line in chosen.to_dicts() if (words := reading(line))), None),
                }
            )
    return tables


def _lines(frame: pl.DataFrame, shown: Sequence[Series]) -> list[dict[str, Any]]:
    """A line for each intervention and strength that has any score."""
    lines = []
    for one in shown:
        for line in one.of(frame).sort("strength").iter_rows(named=True):
            if all(line[name] is None for name in SCORES):
                continue
            both = line["si"] is not None
            lines.append(
                {
                    **key(one, shown),
                    "alpha": ("±" if both else "+") + rounded(line["strength"]).removeprefix("+"),
                    "seeds": line["seeds"],
                    "scores": [
                        None if line[name] is None else estimate(within(line, name, *ends), name)
                        for name, ends in SCORES.items()
                    ],
                    "rates": [percent(line, name) for name in RATES],
                    **{name: f"{line[name]:,}" for name in ("rej", "cho", "ties")},
                }
            )
    return lines

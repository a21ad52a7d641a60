"""The four-cue answer test: does a hint of the user's change what the model answers?"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from weightsteer.formatting import estimate, share
from weightsteer.report.cells import key
from weightsteer.report.charts import Series

CUED = r"-(alone|right|deny|wrong)-[a-z]+$"
"""How the rows of the test are named."""


def cue_frame(rows: pl.DataFrame, resamples: int) -> pl.DataFrame | None:
    """`weightsteer.measure.cues.cue_summary` of the evaluations that are this test; None where there is none."""
    named = rows.group_by("eval").agg(pl.col("item").str.contains(CUED).all())
    evaluations = named.filter("item")["eval"].to_list()
    if not evaluations:
        return None
    from weightsteer.measure.cues import cue_summary

    return cue_summary(rows.filter(pl.col("eval").is_in(evaluations)), resamples=resamples)


def cue_tables(cues: pl.DataFrame | None, shown: Sequence[Series]) -> list[dict[str, Any]]:
    """A table for each model, behaviour and evaluation."""
    if cues is None:
        return []
    tables = []
    for part in cues.partition_by("model", "behavior", "eval", maintain_order=True):
        tables.append(
            {
                **part.select("model", "behavior", "eval").row(0, named=True),
                "questions": part["items"].max(),
                "groups": [
                    {**key(one, shown), "lines": [_line(line) for line in lines.sort("alpha").iter_rows(named=True)]}
                    for one in shown
                    if (lines := one.of(part)).height
                ],
            }
        )
    return tables


def _line(line: dict[str, Any]) -> dict[str, Any]:
    base = line["alpha"] == 0
    return {
        "alpha": line["alpha"],
        "base": base,
        "cells": [
            (estimate(line, name) if name == "pull" else share(line, name), "" if base else _change(line, name))
            for name in ("accuracy", "non_sycophancy", "pull")
        ],
    }


def _change(line: dict[str, Any], name: str) -> str:
    ends = {"x": line[f"{name}_change"], "x_low": line[f"{name}_change_low"], "x_high": line[f"{name}_change_high"]}
    return estimate(ends, "x")

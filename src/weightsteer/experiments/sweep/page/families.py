"""Adapter families side by side: what each trained, how large its vector is, and what it does at ±1."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from weightsteer.formatting import estimate, share
from weightsteer.report.cells import bar, key, reach, small
from weightsteer.report.charts import Series


def comparisons(
    summary: pl.DataFrame,
    branches: Sequence[Mapping[str, Any]],
    norms: pl.DataFrame | None,
    shown: Sequence[Series],
    strengths: Sequence[float],
    damage: pl.DataFrame | None = None,
) -> list[dict[str, Any]]:
    """A table for each model and behaviour that more than one family was trained for, in the order of training.

    ``strengths`` are those compared, as many lines of each family; ``branches`` as ``write_report`` explains;
    ``damage`` what `weightsteer.measure.damage_table.damage_summary` returned.
    """
    tables = []
    vectors = summary.filter(pl.col("method") == "weight", pl.col("adapter").is_not_null())
    for part in vectors.partition_by("model", "behavior", maintain_order=True):
        behavior = str(part["behavior"][0])
        mine = [line for line in branches if line["behavior"] == behavior]
        found = part["adapter"].unique().sort().to_list()
        order = [name for name in dict.fromkeys(line["adapter"] for line in mine) if name in found]
        names = order + [name for name in found if name not in order]
        if len(names) < 2 or not strengths:
            continue
        evaluations = part["eval"].unique().sort().to_list()
        reaches = {
            name: reach(part.filter(pl.col("eval") == name, pl.col("alpha").is_in(strengths))) for name in evaluations
        }
        rows = []
        for name in names:
            lines = {(line["eval"], line["alpha"]): line for line in part.filter(adapter=name).iter_rows(named=True)}
            series = next(one for one in shown if one.method == "weight" and one.adapter == name)
            rows.append(
                {
                    **key(series, shown),
                    "name": name,
                    **_training([line for line in mine if line["adapter"] == name]),
                    "norm": _norm(norms, f"{behavior}, {name}"),
                    "strengths": [
                        {
                            "alpha": alpha,
                            "damage": price(damage, part.row(0, named=True) | {"adapter": name}, alpha),
                            "cells": [_cell(lines.get((each, alpha)), reaches[each]) for each in evaluations],
                        }
                        for alpha in strengths
                    ],
                }
            )
        known = {name: any(row[name] for row in rows) for name in ("parameters", "train", "validation", "norm")}
        known["damage"] = any(held["damage"] for row in rows for held in row["strengths"])
        tables.append(
            {
                "model": part["model"][0],
                "behavior": behavior,
                "evals": evaluations,
                "sizes": {name: part.filter(eval=name).row(0, named=True) for name in evaluations},
                "seeds": part["seeds"].max(),
                "rows": rows,
                "known": known,
            }
        )
    return tables


def _training(lines: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """Numbers trained in one branch, and the losses of the checkpoints kept: means over both branches and all seeds."""
    found: dict[str, str | None] = {"parameters": f"{lines[0]['parameters']:,}" if lines else None}
    for name in ("train", "validation"):
        losses = [line[name] for line in lines if line[name] is not None]
        found[name] = f"{sum(losses) / len(losses):.3f}" if losses else None
    return found


def _norm(norms: pl.DataFrame | None, vector: str) -> str | None:
    """‖dW‖, mean over seeds."""
    if norms is None:
        return None
    square = pl.col("norm").pow(2).sum()
    totals = norms.filter(vector=vector).group_by("seed").agg(square.sqrt()).sort("seed")["norm"].to_list()
    return f"{sum(totals) / len(totals):.3g}" if totals else None


def price(damage: pl.DataFrame | None, names: Mapping[str, Any], alpha: float) -> str | None:
    """The rise of the NLL of one intervention at one strength, with its interval; None where it was not measured."""
    if damage is None or not alpha:
        return None
    same = [pl.col(name).eq_missing(pl.lit(names[name])) for name in ("model", "behavior", "method", "adapter")]
    found = damage.filter(*same, (pl.col("alpha") - alpha).abs() < 1e-9)
    return small(found.row(0, named=True), "nll_change") if found.height else None


def _cell(line: Mapping[str, Any] | None, reach: float) -> dict[str, Any]:
    if line is None:
        return {"effect": "–", "bar": None, "pmass": "–"}
    return {"effect": estimate(line, "discrimination"), "bar": bar(line, reach), "pmass": share(line, "pmass")}

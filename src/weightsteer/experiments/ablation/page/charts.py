"""Charts of the ablations of a vector: maps of layer × module, and what is retained over rank."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from weightsteer.report.charts import (
    CONTROL,
    MUTED,
    PALETTE,
    Panel,
    Series,
    Table,
    complete,
    curves,
    heat_map,
    named,
    panel,
    records,
    upright,
)
from weightsteer.vector.selection import kind_of, layer_of

CURVES: Mapping[str, Series] = {
    "keep": Series("weight", None, PALETTE[0], "this subspace alone"),
    "matched": Series("weight", None, PALETTE[1], "alone, at the norm of the vector it is taken from"),
    "drop": Series("weight", None, PALETTE[2], "the vector without it"),
    "random": Series("control", None, CONTROL, "random subspace of that rank, same norm"),
}
"""What a curve shows, by version."""

MAPS = {
    "energy": ("Share of ‖dW‖²", "share of the energy"),
    "keep": ("One module alone", "share of the effect it retains"),
    "drop": ("Without one module", "share of the effect that is lost"),
}
SHOWN = (-0.5, 2.0)
"""Retained effects beyond these are cut off in the charts, not in the tables."""

ROOM = 0.04


def version(line: Mapping[str, Any]) -> str:
    """keep, matched, random or drop."""
    return "random" if line["control"] else "matched" if line["matched"] else str(line["how"])


def module_map(cells: pl.DataFrame, what: str) -> Panel:
    """One of `MAPS` over the single modules at one strength: ``component`` is the module path."""
    values = {}
    for line in cells.filter(pl.col("how") == ("drop" if what == "drop" else "keep")).iter_rows(named=True):
        value = line["energy"] if what == "energy" else line["retained"]
        if value is not None and value == value:
            place = layer_of(line["component"]), kind_of(line["component"])
            values[place] = round(1.0 - value if what == "drop" else value, 4)
    modules = list(dict.fromkeys(module for _, module in values))
    title, subtitle = MAPS[what]
    form = ".0%" if what == "energy" else ".2f"
    return heat_map(f"map {what}", values, modules, form=form, title=title, subtitle=subtitle)


def rank_curves(lines: pl.DataFrame, group: str) -> Panel:
    """Retained effect over the rank of the subspaces of one group at one strength, with bands; the axis is log₂."""
    x = alt.X(
        "rank:Q",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=alt.Axis(values=sorted(lines["rank"].unique()), title="rank", grid=False, labelFlush=False, format="d"),
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines.sort("rank").iter_rows(named=True):
        found.setdefault(version(line), []).append(line)
    columns = {"rank": "rank", "value": "retained", "low": "retained_low", "high": "retained_high"}
    table: Table = [
        row
        for name, one in reversed([*CURVES.items()])
        for row in complete(records(pl.DataFrame(found.get(name), schema=lines.schema), one.look, **columns), "value")
    ]
    ends = [0.0, 1.0, *(row[name] for row in table for name in ("value", "low", "high") if name in row)]
    domain = [max(min(ends), SHOWN[0]) - ROOM, min(max(ends), SHOWN[1]) + ROOM]
    y = alt.Y("value:Q", scale=alt.Scale(domain=domain, clamp=True), axis=upright(labelExpr="datum.label"))
    data: dict[str, Table] = {}
    rules = named(data, "ends", [{"value": 0.0}, {"value": 1.0}]).mark_rule(color=MUTED, strokeWidth=0.8, opacity=0.55)
    return panel([rules.encode(y=y), *curves(data, group, table, x, y)], data, group, "retained effect")

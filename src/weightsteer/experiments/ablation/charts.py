"""Charts of the parts of a vector: maps of layer × module, and what is retained over rank."""

from typing import Any

import altair as alt
import polars as pl

from weightsteer.report.charts import CONTROL, EXTENT, FEW_LAYERS, INK, MUTED, PALETTE, Drawing, Table, by_module
from weightsteer.vector.selection import kind_of, layer_of

CURVES = {
    "keep": ("the part alone", PALETTE[0], [1, 0]),
    "matched": ("alone, at the norm of what it is taken from", PALETTE[1], [1, 0]),
    "drop": ("the vector without it", PALETTE[2], [1, 0]),
    "random": ("random subspace of that rank, same norm", CONTROL, [4, 3]),
}
"""What a curve shows, its colour and dash, by version."""

MAPS = {
    "energy": ("Where ‖dW‖² lies", "share of the energy"),
    "keep": ("One module alone", "share of the effect it retains"),
    "drop": ("Without one module", "share of the effect that is lost"),
}
SHOWN = (-0.5, 2.0)
"""Retained effects beyond these are cut off in the charts, not in the tables."""


def version(line: dict[str, Any]) -> str:
    """keep, matched, random or drop."""
    return "random" if line["control"] else "matched" if line["matched"] else str(line["how"])


def module_map(cells: pl.DataFrame, what: str) -> Drawing:
    """One of `MAPS` over the single modules at one strength: ``part`` is the module path."""
    how = "drop" if what == "drop" else "keep"
    values: Table = []
    for line in cells.filter(pl.col("how") == how).iter_rows(named=True):
        value = line["energy"] if what == "energy" else line["retained"]
        if value is None or value != value:
            continue
        layer = layer_of(line["part"])
        values.append(
            {
                "layer": "other" if layer is None else str(layer),
                "module": kind_of(line["part"]),
                "value": round(1.0 - value if what == "drop" else value, 4),
            }
        )
    layers = sorted({value["layer"] for value in values}, key=lambda name: (name == "other", name.zfill(6)))
    modules = list(dict.fromkeys(value["module"] for value in values))
    few = len(layers) <= FEW_LAYERS
    name = f"map {what}"
    base = by_module(name, layers, modules, orient="bottom", labelLimit=150, minExtent=112, maxExtent=112)
    top = max((abs(value["value"]) for value in values), default=1.0) or 1.0
    opacity = alt.Opacity("size:Q", scale=alt.Scale(domain=[0, top], range=[0.03, 0.75]), legend=None)
    squares = (
        base.transform_calculate(size="abs(datum.value)")
        .mark_rect(cornerRadius=2)
        .encode(
            opacity=opacity,
            color=alt.condition("datum.value < 0", alt.value(PALETTE[1]), alt.value(PALETTE[0])),
        )
    )
    layered: list[Any] = [squares]
    if few:
        text = alt.Text("value:Q", format=".0%" if what == "energy" else ".2f")
        layered.append(base.mark_text(fontSize=10.5, color=INK).encode(text=text))
    title, subtitle = MAPS[what]
    step = 44 if few else max(7, 300 // len(layers))
    chart = alt.layer(*layered).properties(
        width={"step": step}, height={"step": 25}, title=alt.Title(title, subtitle=subtitle, frame="group", offset=8)
    )
    return Drawing(chart, {name: values})


def rank_curves(lines: pl.DataFrame, group: str) -> Drawing:
    """Retained effect over the rank of the subspaces of one group at one strength, with bands; the axis is log₂."""
    data: dict[str, Table] = {"ends": [{"y": 0.0}, {"y": 1.0}]}
    ranks = sorted(lines["rank"].unique())
    x = alt.X(
        "rank:Q",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=alt.Axis(values=ranks, title="rank", grid=False, labelFlush=False, format="d"),
    )
    axis = alt.Axis(title=None, tickCount=5, minExtent=EXTENT, maxExtent=EXTENT)
    ends = [
        value
        for line in lines.select("retained", "retained_low", "retained_high").iter_rows()
        for value in line
        if value is not None and value == value
    ]
    low, high = min([0.0, *ends]), max([1.0, *ends])
    scale = alt.Scale(domain=[max(low, SHOWN[0]), min(high, SHOWN[1])], clamp=True)
    rules = alt.Chart(alt.NamedData("ends")).mark_rule(color=MUTED, strokeWidth=0.8, opacity=0.55)
    layers: list[Any] = [rules.encode(y=alt.Y("y:Q", scale=scale, axis=axis))]
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines.sort("rank").iter_rows(named=True):
        if line["retained"] is not None:
            found.setdefault(version(line), []).append(line)
    for name, (_, color, dash) in reversed(CURVES.items()):
        if name not in found:
            continue
        where = f"{group} {name}"
        data[where] = [
            {
                "rank": line["rank"],
                "value": round(line["retained"], 4),
                "low": round(line["retained_low"], 4),
                "high": round(line["retained_high"], 4),
            }
            for line in found[name]
            if line["retained_low"] is not None
        ]
        chart = alt.Chart(alt.NamedData(where))
        band = chart.mark_area(color=color, opacity=0.14)
        layers.append(band.encode(x=x, y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q"))
        y = alt.Y("value:Q", scale=scale, axis=axis)
        layers.append(chart.mark_line(color=color, strokeWidth=2, strokeDash=dash).encode(x=x, y=y))
        layers.append(chart.mark_circle(color=color, size=30, opacity=1).encode(x=x, y=y))
    title = alt.Title(group, subtitle="retained effect", frame="group", offset=8)
    return Drawing(alt.layer(*layers).properties(width=262, height=190, title=title), data)

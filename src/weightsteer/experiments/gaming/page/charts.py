"""The charts of the training-gaming experiment: curves as they were published, and ROC curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from weightsteer.experiments.gaming.detector import Detector
from weightsteer.report.charts import (
    COLOR,
    CONTROL,
    MUTED,
    PALETTE,
    SIGNED,
    Panel,
    Series,
    Table,
    curves,
    named,
    origin,
    panel,
    records,
    upright,
)

# setting 1 pink and setting 2 grey, as in the published figure
SERIES: Mapping[str, Series] = {
    "told": Series("weight", None, PALETTE[6], "1 told"),
    "told-other": Series("weight", None, PALETTE[4], "1 told the other role"),
    "described": Series("weight", None, CONTROL, "2 told to go along, described"),
    "undescribed": Series("weight", None, PALETTE[0], "3 told to go along"),
    "baseline": Series("weight", None, PALETTE[2], "4 told nothing about training"),
}
SHORT: Mapping[str, str] = {
    "told": "1",
    "told-other": "1, other",
    "described": "2",
    "undescribed": "3",
    "baseline": "4",
}
HEIGHT = 200


def line_panel(bands: pl.DataFrame, title: str, subtitle: str, limits: tuple[float, float]) -> Panel:
    """One panel: log p(Jekyll) − log p(Hyde) against a, a line and a band for each setting.

    Args:
        bands: of one model, deployment role and tag: setting, a, value, low, high.
        limits: of the vertical axis, shared by all panels.
    """
    scale = alt.Scale(domain=list(limits), nice=5, clamp=True)
    ticks = [a for a in bands["a"].unique().sort() if float(a).is_integer()]
    axis = alt.Axis(values=ticks, labelExpr=SIGNED, title="a: 0 Jekyll-trained, 1 Hyde-trained", grid=False)
    x, y = alt.X("a:Q", axis=axis), alt.Y("value:Q", scale=scale, axis=upright())
    held = bands.sort("a").with_columns(pl.col("low", "high").clip(*limits))
    columns = {"a": "a", "value": "value", "low": "low", "high": "high"}
    table: Table = [
        row
        for setting, one in reversed([*SERIES.items()])
        for row in records(held.filter(pl.col("setting") == setting), one.look, **columns)
    ]
    data: dict[str, Table] = {}
    branches = named(data, "branches", [{"a": 0}, {"a": 1}]).mark_rule(color=MUTED, strokeWidth=0.8, strokeDash=[2, 3])
    band, line, dots = curves(data, title, table, x, y, size=42)
    dots = dots.transform_filter("datum.a == 0 || datum.a == 1")
    layers: list[Any] = [*origin(data, y=scale), branches.encode(x=x), band, line, dots]
    return panel(layers, data, title, subtitle, height=HEIGHT)


def limits_of(bands: pl.DataFrame) -> tuple[float, float]:
    """A vertical axis for all panels: what the lines reach, and a little more; wide bands are cut there."""
    reach = bands["value"].abs().max()
    end = max(1.0, 1.25 * float(reach if isinstance(reach, (int, float)) else 1.0))
    return -end, end


def roc_panel(found: Sequence[Detector], shown: Sequence[Series]) -> Panel:
    """ROC curves of some detectors."""
    scale = alt.Scale(domain=[0, 1])
    x = alt.X("x:Q", scale=scale, axis=alt.Axis(format="%", tickCount=5, title="honest runs flagged", grid=False))
    y = alt.Y("y:Q", scale=scale, axis=upright(labelExpr="datum.label", format="%"))
    data: dict[str, Table] = {}
    chance = named(data, "chance", [{"x": 0, "y": 0}, {"x": 1, "y": 1}])
    rates: Table = [
        {**one.look, "x": round(false, 4), "y": round(true, 4), "order": place}
        for detector, one in zip(found, shown, strict=True)
        for place, (false, true) in enumerate(detector.rates)
    ]
    lines = named(data, "rates", rates).mark_line(strokeWidth=2, interpolate="step-after")
    layers = [
        chance.mark_line(color=MUTED, strokeWidth=1, strokeDash=[2, 3]).encode(x=x, y=y),
        lines.encode(x=x, y=y, order="order:Q", detail="name:N", color=COLOR),
    ]
    return panel(layers, data, "ROC", "gaming runs flagged", height=HEIGHT)

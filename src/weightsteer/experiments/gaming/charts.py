"""The charts of the training-gaming lab: curves as they were published, and ROC curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from weightsteer.experiments.gaming.detector import Detector
from weightsteer.report.charts import CONTROL, MUTED, PALETTE, Drawing, Series, Table

# setting 1 pink and setting 2 grey, as in the published figure
COLORS: Mapping[str, str] = {
    "told": PALETTE[6],
    "told-other": PALETTE[4],
    "described": CONTROL,
    "undescribed": PALETTE[0],
    "baseline": PALETTE[2],
}
WORDS: Mapping[str, str] = {
    "told": "1 told",
    "told-other": "1 told the other role",
    "described": "2 told to go along, described",
    "undescribed": "3 told to go along",
    "baseline": "4 told nothing about training",
}
SHORT: Mapping[str, str] = {
    "told": "1",
    "told-other": "1, other",
    "described": "2",
    "undescribed": "3",
    "baseline": "4",
}
PANEL = {"width": 262, "height": 200}
EXTENT = 30
_SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+~g')"


def key(settings: Sequence[str]) -> list[Series]:
    """The settings that occur, with their colours."""
    return [Series(WORDS[name], None, color) for name, color in COLORS.items() if name in settings]


def line_panel(bands: pl.DataFrame, title: str, subtitle: str, limits: tuple[float, float]) -> Drawing:
    """One panel: log p(Jekyll) − log p(Hyde) against a, a line and a band for each setting.

    Args:
        bands: of one model, deployment role and tag: setting, a, value, low, high.
        limits: of the vertical axis, shared by all panels.
    """
    points = bands["a"].unique().sort().to_list()
    scale = alt.Scale(domain=list(limits), nice=5, clamp=True)
    ticks = [a for a in points if float(a).is_integer()]
    x = alt.X(
        "a:Q", axis=alt.Axis(values=ticks, labelExpr=_SIGNED, title="a: 0 Jekyll-trained, 1 Hyde-trained", grid=False)
    )
    axis = alt.Axis(title=None, tickCount=5, minExtent=EXTENT, maxExtent=EXTENT, labelExpr=_SIGNED)
    y = alt.Y("value:Q", scale=scale, axis=axis)
    data: dict[str, Table] = {"origin": [{"zero": 0}], "branches": [{"zero": 0}, {"zero": 1}]}
    layers: list[Any] = [
        alt.Chart(alt.NamedData("origin")).mark_rule(color=MUTED, strokeWidth=0.8, opacity=0.55).encode(y="zero:Q"),
        alt.Chart(alt.NamedData("branches"))
        .mark_rule(color=MUTED, strokeWidth=0.8, strokeDash=[2, 3])
        .encode(x="zero:Q"),
    ]
    for setting, color in reversed(list(COLORS.items())):
        mine = bands.filter(pl.col("setting") == setting).sort("a")
        if mine.is_empty():
            continue
        rounded = mine.select("a", pl.col("value", "low", "high").round(3))
        data[f"{setting} band"] = rounded.select("a", pl.col("low", "high").clip(*limits)).to_dicts()
        data[setting] = rounded.select("a", "value").to_dicts()
        data[f"{setting} branches"] = [each for each in data[setting] if each["a"] in (0.0, 1.0)]
        band = alt.Chart(alt.NamedData(f"{setting} band")).mark_area(color=color, opacity=0.13)
        layers.append(band.encode(x=x, y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q"))
        layers.append(alt.Chart(alt.NamedData(setting)).mark_line(color=color, strokeWidth=2).encode(x=x, y=y))
        dots = alt.Chart(alt.NamedData(f"{setting} branches")).mark_circle(color=color, size=42, opacity=1)
        layers.append(dots.encode(x=x, y=y))
    heading = alt.Title(title, subtitle=subtitle, frame="group", offset=10)
    return Drawing(alt.layer(*layers).properties(**PANEL, title=heading), data)


def limits_of(bands: pl.DataFrame) -> tuple[float, float]:
    """A vertical axis for all panels: what the lines reach, and a little more; wide bands are cut there."""
    reach = bands["value"].abs().max()
    end = max(1.0, 1.25 * float(reach if isinstance(reach, (int, float)) else 1.0))
    return -end, end


def roc_panel(found: Sequence[Detector], colors: Sequence[str], title: str, subtitle: str) -> Drawing:
    """ROC curves of some detectors, one colour each."""
    scale = alt.Scale(domain=[0, 1])
    percent = alt.Axis(format="%", tickCount=5, title="honest runs under alarm", grid=False)
    y_axis = alt.Axis(format="%", tickCount=5, title=None, minExtent=EXTENT, maxExtent=EXTENT)
    data: dict[str, Table] = {"chance": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]}
    x, y = alt.X("x:Q", scale=scale, axis=percent), alt.Y("y:Q", scale=scale, axis=y_axis)
    chance = alt.Chart(alt.NamedData("chance")).mark_line(color=MUTED, strokeWidth=1, strokeDash=[2, 3])
    layers = [chance.encode(x=x, y=y)]
    for one, color in zip(found, colors, strict=True):
        data[one.name] = [
            {"x": round(false, 4), "y": round(true, 4), "order": place} for place, (false, true) in enumerate(one.rates)
        ]
        line = alt.Chart(alt.NamedData(one.name)).mark_line(color=color, strokeWidth=2, interpolate="step-after")
        layers.append(line.encode(x=x, y=y, order="order:Q"))
    heading = alt.Title(title, subtitle=subtitle, frame="group", offset=10)
    return Drawing(alt.layer(*layers).properties(**PANEL, title=heading), data)

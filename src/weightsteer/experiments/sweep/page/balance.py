"""Discrimination against bias: is a shift the behaviour, or Yes-saying? One panel for each evaluation."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from weightsteer.report.charts import MUTED, PANEL, Drawing, Series, Table

ROOM = 1.25

_SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+~g')"


def balance_panel(lines: pl.DataFrame, shown: Sequence[Series], title: str) -> Drawing | None:
    """Both arms of every intervention, with intervals; in the shaded wedges the bias is larger than the effect.

    ``lines``: of one evaluation, as `weightsteer.audit.Audit.lines`; ``alpha`` is the arm. None without any effect.
    """
    known = lines.filter(pl.col("discrimination").is_finite(), pl.col("bias").is_finite())
    if known.is_empty():
        return None
    values = [abs(v) for name in ("discrimination", "bias") for v in known[name]]
    reach = max(values) * ROOM or 1.0  # intervals are cut off at the edge: those of two seeds would shrink the points
    scale = alt.Scale(domain=[-reach, reach], nice=False)
    axis: dict[str, Any] = {"labelExpr": _SIGNED, "tickCount": 5, "grid": False}
    x = alt.X("bias:Q", scale=scale, axis=alt.Axis(title="bias (Yes-saying), nats", **axis))
    y = alt.Y("effect:Q", scale=scale, axis=alt.Axis(title=None, minExtent=30, maxExtent=30, **axis))
    wedge = [
        {"order": i, "bias": a * reach, "effect": b * reach, "side": side}
        for side, corners in (("left", ((0, 0), (-1, -1), (-1, 1))), ("right", ((0, 0), (1, -1), (1, 1))))
        for i, (a, b) in enumerate(corners)
    ]
    data: dict[str, Table] = {"wedges": wedge, "origin": [{"zero": 0}]}
    zero = alt.Chart(alt.NamedData("origin")).mark_rule(color=MUTED, strokeWidth=0.8, opacity=0.55)
    shade = alt.Chart(alt.NamedData("wedges")).mark_line(
        fill=MUTED, fillOpacity=0.09, strokeOpacity=0, interpolate="linear-closed"
    )
    layers: list[Any] = [
        shade.encode(x=x, y=y, order="order:Q", detail="side:N"),
        zero.encode(x=alt.X("zero:Q", scale=scale)),
        zero.encode(y=alt.Y("zero:Q", scale=scale)),
    ]
    for one in reversed(shown):
        mine = one.of(known)
        if mine.height:
            layers += _drawn(one, mine, data, x, y)
    words = alt.Title(title, subtitle="discrimination, nats · ● +α, ◆ −α", frame="group", offset=10)
    return Drawing(alt.layer(*layers).properties(width=PANEL["width"], height=PANEL["width"] * 0.8, title=words), data)


def _drawn(one: Series, mine: pl.DataFrame, data: dict[str, Table], x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """The two arms of one intervention as marks with crossed intervals; controls are small and have none."""
    picked = mine.select(
        arm=pl.when(pl.col("alpha") > 0).then(pl.lit("+")).otherwise(pl.lit("-")),
        bias="bias",
        effect="discrimination",
        left="bias_low",
        right="bias_high",
        low="discrimination_low",
        high="discrimination_high",
    )
    held = [
        {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items() if v is not None and v == v}
        for row in picked.iter_rows(named=True)
    ]
    data[one.name] = held
    base = alt.Chart(alt.NamedData(one.name)).encode(x=x, y=y)
    shapes = alt.Scale(domain=["+", "-"], range=["circle", "diamond"])
    points = base.mark_point(
        filled=True, color=one.color, size=14 if one.control else 46, opacity=0.5 if one.control else 1
    ).encode(shape=alt.Shape("arm:N", scale=shapes, legend=None))
    if one.control:
        return [points]
    data[f"{one.name}: intervals"] = [row for row in held if len(row) == len(picked.columns)]
    rule = alt.Chart(alt.NamedData(f"{one.name}: intervals")).mark_rule(
        color=one.color, strokeWidth=1.1, opacity=0.6, clip=True
    )
    upright = rule.encode(x=x, y=alt.Y("low:Q", scale=y["scale"], axis=y["axis"]), y2="high:Q")
    level = rule.encode(x=alt.X("left:Q", scale=x["scale"], axis=x["axis"]), x2="right:Q", y=y)
    return [upright, level, points]

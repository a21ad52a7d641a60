"""Discrimination against bias: is a shift the behaviour, or yes-bias? One panel for each evaluation."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from weightsteer.report.charts import (
    COLOR,
    MUTED,
    SIGNED,
    WIDTH,
    Panel,
    Series,
    Table,
    intervals,
    named,
    origin,
    panel,
    records,
    upright,
)

ROOM = 1.25


def balance_panel(lines: pl.DataFrame, shown: Sequence[Series], title: str) -> Panel | None:
    """Every intervention at +α and −α, with intervals; in the shaded wedges the bias is larger than the effect.

    Controls are small and have no intervals.

    ``lines``: of one evaluation, as `weightsteer.audit.Audit.lines`. None without any effect.
    """
    known = lines.filter(pl.col("discrimination").is_finite(), pl.col("bias").is_finite())
    if known.is_empty():
        return None
    values = [abs(v) for name in ("discrimination", "bias") for v in known[name]]
    reach = max(values) * ROOM or 1.0  # intervals are cut off at the edge: those of two seeds would shrink the points
    scale = alt.Scale(domain=[-reach, reach], nice=False)
    axis = alt.Axis(title="bias (yes-bias), nats", labelExpr=SIGNED, tickCount=5, grid=False)
    x = alt.X("bias:Q", scale=scale, axis=axis)
    y = alt.Y("effect:Q", scale=scale, axis=upright(grid=False))
    wedge = [
        {"order": i, "bias": a * reach, "effect": b * reach, "side": side}
        for side, corners in (("left", ((0, 0), (-1, -1), (-1, 1))), ("right", ((0, 0), (1, -1), (1, 1))))
        for i, (a, b) in enumerate(corners)
    ]
    data: dict[str, Table] = {}
    shade = named(data, f"{title}: wedges", wedge).mark_line(
        fill=MUTED, fillOpacity=0.09, strokeOpacity=0, interpolate="linear-closed"
    )
    layers: list[Any] = [
        shade.encode(x=x, y=y, order="order:Q", detail="side:N"),
        *origin(data, x=scale, y=scale),
    ]
    found = [one for one in reversed(shown) if not one.control]
    for name, along in (("discrimination", "y"), ("bias", "x")):
        rules = _table(known, found, low=f"{name}_low", high=f"{name}_high")
        layers.append(intervals(data, f"{title}: {name}", rules, x, y, along=along, strokeWidth=1.1, opacity=0.6))
    shape = alt.Shape("sign:N", scale=alt.Scale(domain=["+", "−"], range=["circle", "diamond"]), legend=None)
    for kind, some, size, opacity in (
        ("controls", [one for one in shown if one.control], 14, 0.5),
        ("points", found, 46, 1.0),
    ):
        points = named(data, f"{title}: {kind}", _table(known, some))
        layers.append(
            points.mark_point(filled=True, size=size, opacity=opacity).encode(x=x, y=y, color=COLOR, shape=shape)
        )
    return panel(layers, data, title, "discrimination, nats; circles +α, diamonds −α", height=WIDTH * 0.8)


def _table(known: pl.DataFrame, shown: Sequence[Series], **ends: str) -> Table:
    """Both signs of these interventions; ``ends`` of the intervals in one direction."""
    signs = known.with_columns(sign=pl.when(pl.col("alpha") > 0).then(pl.lit("+")).otherwise(pl.lit("−")))
    return [
        row
        for one in shown
        for row in records(one.of(signs), one.look, sign="sign", bias="bias", effect="discrimination", **ends)
    ]

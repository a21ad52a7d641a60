"""The main figure: what every intervention buys, in effect, with what it costs, in damage.

Each panel is one evaluation. The effect is the discrimination at a strength, upwards where α > 0 does what it should
and downwards at α < 0; the damage is the rise of the NLL of neutral text at the same strength. A good vector climbs
before it moves to the right.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from weightsteer.report.charts import (
    COLOR,
    CONTROL,
    DASH,
    GRID,
    Panel,
    Series,
    Table,
    complete,
    intervals,
    named,
    origin,
    panel,
    records,
    upright,
)

LARGE = {"width": 880, "height": 400}
SMALL = {"width": 262, "height": 210}
ROUGHLY_LINEAR = 0.02
"""Up to this damage (nats per token) the axis is nearly linear, beyond it logarithmic: damage spans decades."""

ROOM = 0.12
"""Beyond the outermost points, as a share of their span."""

TICKS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def frontier_panel(points: pl.DataFrame, shown: Sequence[Series], title: str, *, large: bool) -> Panel | None:
    """One evaluation of one behaviour; None when no damage was measured for any of its interventions.

    ``points``: its lines of `weightsteer.stats.frontier`.
    """
    known = points.filter(pl.col("damage").is_finite(), pl.col("effect").is_finite())
    if known.filter(pl.col("alpha") != 0).is_empty():
        return None
    known = _signed(known).sort("alpha")
    steered = known.filter(pl.col("alpha") != 0)
    subtitle, x, y = _axes(known, large)
    controls, prompts, others = (
        [one for one in reversed(shown) if kind == (one.method if one.method in ("control", "prompt") else "")]
        for kind in ("control", "prompt", "")
    )
    data: dict[str, Table] = {}
    order = alt.Order("order:Q")
    muted = named(data, f"{title}: controls", _table(known, controls)).encode(x=x, y=y)
    dashed = muted.mark_line(color=CONTROL, opacity=0.5, strokeWidth=1, strokeDash=[4, 3])
    band = named(data, f"{title}: bands", [row for one in others for row in _band(known, one)]).mark_line(
        fillOpacity=0.13, strokeOpacity=0, interpolate="linear-closed", clip=True
    )
    layers: list[Any] = [
        *origin(data, x=x["scale"], y=y["scale"]),
        dashed.encode(order=order, detail="name:N"),
        muted.mark_circle(color=CONTROL, size=9, opacity=0.6),
        band.encode(x=x, y=y, fill=alt.Fill("color:N", scale=None), order=order, detail="name:N"),
    ]
    effects = _table(steered, prompts, low="effect_low", high="effect_high")
    layers.append(intervals(data, f"{title}: effects of prompts", effects, x, y, strokeWidth=1.2))
    if large:
        damage = _table(known, others, low="damage_low", high="damage_high")
        damage += _table(steered, prompts, low="damage_low", high="damage_high")
        layers.append(intervals(data, f"{title}: damage", damage, x, y, along="x", strokeWidth=0.8, opacity=0.25))
    size = 44 if large else 26
    curve = named(data, f"{title}: curves", _table(known, others)).encode(x=x, y=y, color=COLOR)
    point = named(data, f"{title}: prompts", _table(steered, prompts)).encode(x=x, y=y, color=COLOR)
    layers += [
        curve.mark_line(strokeWidth=2).encode(strokeDash=DASH, order=order, detail="name:N"),
        curve.mark_circle(size=size, opacity=1),
        point.mark_point(filled=True, shape="diamond", size=size, opacity=1),
    ]
    return panel(layers, data, title, subtitle, **(LARGE if large else SMALL))


def _signed(points: pl.DataFrame) -> pl.DataFrame:
    """With the effect as it is, not along the sign: both signs of an intervention are one curve through the origin."""
    ends = [pl.col(f"effect_{end}") * pl.col("sign") for end in ("low", "high")]
    return points.with_columns(
        effect=pl.col("effect") * pl.col("sign"),
        effect_low=pl.min_horizontal(ends),
        effect_high=pl.max_horizontal(ends),
    ).unique(["method", "adapter", "alpha"], maintain_order=True)


def _axes(known: pl.DataFrame, large: bool) -> tuple[str, alt.X, alt.Y]:
    """Both axes, over all points. Intervals are cut off at the edge: those of two seeds would shrink the rest."""
    ends = [0.0, *known["effect"]]
    room = (max(ends) - min(ends)) * ROOM
    costs = [0.0, *known["damage"]]
    reach = max(costs)
    ticks = [tick for tick in TICKS if tick <= reach * 1.02] or [0.0]
    if not large and len(ticks) > 4:
        ticks = [tick for tick in ticks if tick in (0.0, 0.1, 1.0, 10.0)]
    x = alt.X(
        "damage:Q",
        scale=alt.Scale(type="symlog", constant=ROUGHLY_LINEAR, domain=[min(costs), reach or 1.0], nice=False),
        axis=alt.Axis(
            title="damage: rise of NLL on neutral text, nats per token (log scale from 0.02)"
            if large
            else "damage, nats per token",
            values=ticks,
            format="~g",
            grid=True,
            gridColor=GRID,
            labelFlush=False,
        ),
    )
    y = alt.Y(
        "effect:Q",
        scale=alt.Scale(domain=[min(ends) - room, max(ends) + room] if room else [-1, 1], nice=False),
        axis=upright(tickCount=7 if large else 5),
    )
    return "effect (discrimination), nats" + ("; each mark is one strength α" if large else ""), x, y


def _table(known: pl.DataFrame, shown: Sequence[Series], **ends: str) -> Table:
    """The points of these interventions in the order of their strengths; ``ends`` of intervals in one direction."""
    columns = {"alpha": "alpha", "damage": "damage", "effect": "effect", **ends}
    return [
        row | {"order": order}
        for one in shown
        for order, row in enumerate(complete(records(one.of(known), one.look, **columns), "damage", "effect"))
    ]


def _band(known: pl.DataFrame, one: Series) -> Table:
    """The interval of the effect as one outline: its upper ends by strength, then its lower ends backwards."""
    held = one.of(known).drop_nulls(["effect_low", "effect_high"])
    ends = [*held.select("damage", "effect_high").rows(), *held.select("damage", "effect_low").rows()[::-1]]
    return [{**one.look, "order": i, "damage": round(x, 4), "effect": round(y, 4)} for i, (x, y) in enumerate(ends)]

"""The main figure: what every intervention buys, in effect, with what it costs, in damage.

Each panel is one evaluation. The effect is the discrimination at a strength, upwards where α > 0 does what it should
and downwards at α < 0; the damage is the rise of the NLL of neutral text at the same strength. A good vector climbs
before it moves to the right.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from weightsteer.report.charts import CONTROL, GRID, MUTED, Drawing, Series, Table

LARGE = {"width": 880, "height": 400}
SMALL = {"width": 262, "height": 210}
ROUGHLY_LINEAR = 0.02
"""Up to this damage (nats per token) the axis is nearly linear, beyond it logarithmic: damage spans decades."""

ROOM = 0.12
"""Beyond the outermost points, as a share of their span."""

TICKS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+~g')"


def frontier_panel(points: pl.DataFrame, shown: Sequence[Series], title: str, *, large: bool) -> Drawing | None:
    """One evaluation of one behaviour; None when no damage was measured for any of its interventions.

    ``points``: its lines of `weightsteer.stats.frontier`.
    """
    known = points.filter(pl.col("damage").is_finite(), pl.col("effect").is_finite())
    if known.filter(pl.col("alpha") != 0).is_empty():
        return None
    known = _signed(known)
    size = LARGE if large else SMALL
    marks, x, y = _axes(known, large)
    data: dict[str, Table] = {"origin": [{"zero": 0}]}
    zero = alt.Chart(alt.NamedData("origin")).mark_rule(color=MUTED, strokeWidth=0.8, opacity=0.55)
    layers: list[Any] = [
        zero.encode(x=alt.X("zero:Q", scale=x["scale"])),
        zero.encode(y=alt.Y("zero:Q", scale=y["scale"])),
    ]
    layers += _controls(known, [one for one in shown if one.control], data, x, y)
    for one in reversed([one for one in shown if not one.control]):
        mine = one.of(known).sort("alpha")
        if one.method == "prompt":
            mine = mine.filter(pl.col("alpha") != 0)
        if mine.height:
            layers += _drawn(one, mine, data, x, y, large=large)
    words = alt.Title(title, subtitle=marks, frame="group", offset=10)
    return Drawing(alt.layer(*layers).properties(**size, title=words), data)


def _signed(points: pl.DataFrame) -> pl.DataFrame:
    """With the effect as it is, not along the sign: both arms of an intervention are one curve through the origin."""
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
        axis=alt.Axis(title=None, tickCount=7 if large else 5, labelExpr=_SIGNED, minExtent=30),
    )
    return "effect (discrimination), nats" + ("; each mark is one strength α" if large else ""), x, y


def _drawn(
    one: Series, mine: pl.DataFrame, data: dict[str, Table], x: alt.X, y: alt.Y, *, large: bool
) -> list[alt.Chart]:
    """Band, curve and marks of one intervention; of a prompt the marks with whiskers."""
    curve = [
        {"order": i, "alpha": alpha, "damage": round(damage, 5), "effect": round(effect, 4)}
        for i, (alpha, damage, effect) in enumerate(mine.select("alpha", "damage", "effect").iter_rows())
    ]
    data[one.name] = curve
    base = alt.Chart(alt.NamedData(one.name)).encode(x=x, y=y)
    order = alt.Order("order:Q")
    layers = []
    if one.method != "prompt":
        data[f"{one.name}: band"] = _band(mine)
        band = alt.Chart(alt.NamedData(f"{one.name}: band")).mark_line(
            fill=one.color, fillOpacity=0.13, strokeOpacity=0, interpolate="linear-closed", clip=True
        )
        layers.append(band.encode(x=x, y=y, order=order))
        layers.append(base.mark_line(color=one.color, strokeWidth=2, strokeDash=one.dash).encode(order=order))
    else:
        data[f"{one.name}: whiskers"] = _whiskers(mine, "effect", "damage")
        upright = alt.Chart(alt.NamedData(f"{one.name}: whiskers")).mark_rule(
            color=one.color, strokeWidth=1.2, clip=True
        )
        layers.append(upright.encode(x=x, y=alt.Y("low:Q", scale=y["scale"], axis=y["axis"]), y2="high:Q"))
    if large:
        data[f"{one.name}: damage"] = _whiskers(mine, "damage", "effect")
        level = alt.Chart(alt.NamedData(f"{one.name}: damage")).mark_rule(
            color=one.color, strokeWidth=0.8, opacity=0.25, clip=True
        )
        layers.append(level.encode(x=alt.X("low:Q", scale=x["scale"], axis=x["axis"]), x2="high:Q", y=y))
    shape = "diamond" if one.method == "prompt" else "circle"
    layers.append(base.mark_point(color=one.color, filled=True, opacity=1, size=44 if large else 26, shape=shape))
    return layers


def _controls(
    known: pl.DataFrame, controls: Sequence[Series], data: dict[str, Table], x: alt.X, y: alt.Y
) -> list[alt.Chart]:
    """The curves of all controls, muted, as one layer: there may be dozens."""
    if not controls:
        return []
    data["controls"] = [
        {"name": one.name, "order": i, "damage": round(damage, 5), "effect": round(effect, 4)}
        for one in controls
        for i, (damage, effect) in enumerate(one.of(known).sort("alpha").select("damage", "effect").iter_rows())
    ]
    base = alt.Chart(alt.NamedData("controls")).encode(x=x, y=y)
    lines = base.mark_line(color=CONTROL, opacity=0.5, strokeWidth=1, strokeDash=controls[0].dash)
    return [lines.encode(order="order:Q", detail="name:N"), base.mark_circle(color=CONTROL, size=9, opacity=0.6)]


def _band(mine: pl.DataFrame) -> Table:
    """The interval of the effect as one outline: its upper ends by strength, then its lower ends backwards."""
    held = mine.drop_nulls(["effect_low", "effect_high"])
    ends = [*held.select("damage", "effect_high").rows(), *held.select("damage", "effect_low").rows()[::-1]]
    return [{"order": i, "damage": round(x, 5), "effect": round(y, 4)} for i, (x, y) in enumerate(ends)]


def _whiskers(mine: pl.DataFrame, name: str, at: str) -> Table:
    """The interval of one of the two at each strength."""
    held = mine.drop_nulls([f"{name}_low", f"{name}_high"])
    found = held.select(at, f"{name}_low", f"{name}_high").iter_rows()
    return [{at: round(a, 5), "low": round(low, 5), "high": round(high, 5)} for a, low, high in found]

"""Charts of one evaluation: effects against the strength, and rows before and after; and where the norm of dW lies."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from weightsteer.formatting import number, signed
from weightsteer.report.charts import (
    COLOR,
    CONTROL,
    DASH,
    GRID,
    MUTED,
    SIGNED,
    Panel,
    Series,
    Table,
    curves,
    heat_map,
    intervals,
    named,
    origin,
    panel,
    records,
    short_module,
    upright,
)
from weightsteer.report.figure import FEW_CONTROLS

POSITIVE, NEGATIVE = "#0f7f8c", "#c64600"
MANY_POINTS = 1200
FOREST = 300
"""Width of a forest plot, px."""

OUTSIDE = 1.96
"""Standard deviations of the null: its 95% band."""


def dose_response(summary: pl.DataFrame, by_seed: pl.DataFrame, shown: Sequence[Series]) -> list[Panel]:
    """Discrimination, bias and pmass against α for one evaluation: pooled line and band, one thin line per seed.

    Discrimination and bias share their scale: their sizes are to be compared.
    """
    ends = [f"{name}{end}" for name in ("discrimination", "bias") for end in ("", "_low", "_high")]
    known = [0.0, *(v for row in summary.select(ends).iter_rows() for v in row if v is not None and v == v)]
    low, high = min(known), max(known)
    nats = alt.Scale(domain=[low, high] if low < high else [-1, 1], nice=5)
    muted = [one for one in shown if one.control]
    muted = muted if len(muted) > FEW_CONTROLS else []
    full = [one for one in reversed(shown) if one not in muted]
    ticks = sorted(summary["alpha"].unique())
    x = alt.X("alpha:Q", axis=alt.Axis(values=ticks, labelExpr=SIGNED, title="α", grid=False, labelFlush=False))
    panels = []
    for name, title, subtitle, scale in (
        ("discrimination", "Discrimination", "shift along the label, nats", nats),
        ("bias", "Bias", "shift common to both labels, nats", nats),
        ("pmass", "Answer mass", "probability of the two answers together", alt.Scale(domain=[0, 1])),
    ):
        mass = name == "pmass"
        y = alt.Y("value:Q", scale=scale, axis=upright(**({"labelExpr": "datum.label"} if mass else {})))
        data: dict[str, Table] = {}
        layers: list[Any] = origin(data, x=alt.Scale(), **({} if mass else {"y": scale}))
        if muted:
            lines = named(data, f"{name}: controls", _points(muted, summary, name))
            mark = lines.mark_line(color=CONTROL, strokeWidth=1, opacity=0.7, strokeDash=[4, 3])
            layers.append(mark.encode(x=x, y=y, detail="name:N"))
        if by_seed["seed"].n_unique() > 1:
            seeds = named(data, f"{name}: seeds", _points(full, by_seed, name, seed="seed"))
            thin = seeds.mark_line(strokeWidth=0.8, opacity=0.5)
            layers.append(thin.encode(x=x, y=y, color=COLOR, strokeDash=DASH, detail=["name:N", "seed:N"]))
        layers += curves(data, name, _points(full, summary, name, low=f"{name}_low", high=f"{name}_high"), x, y)
        panels.append(panel(layers, data, title, subtitle))
    return panels


def _points(shown: Sequence[Series], frame: pl.DataFrame, name: str, **more: str) -> Table:
    """The points of these interventions in the order of their strengths; a gap where there is no number."""
    return [
        row
        for one in shown
        for row in records(one.of(frame).sort("alpha"), one.look, alpha="alpha", value=name, **more)
        if "value" in row
    ]


def forest(lines: pl.DataFrame, shown: Sequence[Series], costs: Mapping[tuple[str, float], str]) -> Panel | None:
    """Discriminations of one evaluation along the sign of α with their intervals, over the null of random directions.

    Args:
        lines: of ``summarize`` at the headline strengths.
        shown: the interventions, from top to bottom; those without a line are left out.
        costs: what is written at the right of a line, by the name of the series and the strength.

    Returns:
        None where no line has a discrimination.
    """
    table: Table = []
    for one in shown:
        for line in one.of(lines).sort("alpha", descending=True).iter_rows(named=True):
            value, low, high = (line[f"discrimination{end}"] for end in ("", "_low", "_high"))
            if value is None or value != value:
                continue
            turned = 1 if line["alpha"] > 0 else -1
            ends = {"low": min(turned * low, turned * high), "high": max(turned * low, turned * high)} if low else {}
            band = (
                {} if line["null_sd"] is None else {"from": -OUTSIDE * line["null_sd"], "to": OUTSIDE * line["null_sd"]}
            )
            z = "" if line["z"] is None else f"z {number(turned * line['z'], 1)}"
            note = "  ".join(filter(None, (z, costs.get((one.name, line["alpha"]), ""))))
            label = f"{one.name} at {signed(line['alpha'])}"
            row = {"label": label, "value": turned * value, **ends, **band, "note": note}
            table.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} | one.look)
    if not table:
        return None
    name = str(lines["eval"][0])
    order = [row["label"] for row in table]
    y = alt.Y(
        "label:N", sort=order, axis=alt.Axis(title=None, labelLimit=170, minExtent=120, maxExtent=170, ticks=False)
    )
    axis = alt.Axis(title="nats along the sign of α", labelExpr=SIGNED, tickCount=5)
    reach = [v for row in table for v in (row["value"], row.get("low"), row.get("high")) if v is not None]
    scale = alt.Scale(domain=[min(0.0, *reach), max(0.0, *reach)], nice=5)
    x = alt.X("value:Q", scale=scale, axis=axis)
    data: dict[str, Table] = {}
    bands = named(data, f"{name}: null", [row for row in table if "from" in row])
    points = named(data, f"{name}: forest", table)
    layers: list[Any] = [
        bands.mark_rule(color=GRID, strokeWidth=13, clip=True).encode(x=alt.X("from:Q", scale=scale), x2="to:Q", y=y),
        *origin(data, x=scale),
        intervals(data, f"{name}: intervals", table, x, y, along="x", strokeWidth=1.6),
        points.mark_circle(size=46, opacity=1).encode(x=x, y=y, color=COLOR),
        points.mark_text(align="left", fontSize=10, color=MUTED).encode(
            x=alt.value(FOREST + 8), y=y, text=alt.Text("note:N")
        ),
    ]
    return panel(
        layers,
        data,
        name,
        "discrimination, 95% interval; grey: random directions",
        width=FOREST,
        height=20 * len(table),
    )


def attribution_map(null: pl.DataFrame) -> Panel:
    """The slope of the discrimination by layer and module, mean over seeds; orange: against the behaviour."""
    values, order = _by_module(null, "slope", pl.col("slope").abs(), digits=4)
    name = str(null["eval"][0])
    return heat_map(
        f"attribution: {name}",
        values,
        order,
        form="+.2f",
        legend="nats per unit of α",
        title=name,
        subtitle="slope of the discrimination at α = 0, nats",
    )


def before_after(rows: pl.DataFrame, alpha: float) -> Panel:
    """Log-ratio of every item at α = 0 and at ``alpha``, averaged over seeds; expects ``paired`` rows of one strength.

    Points right of the upright line and below the level one (or left and above) have changed their decision.
    """
    points = (
        rows.group_by("item", "label")
        .agg(pl.mean("before", "logratio"))
        .filter(pl.col("before").is_finite() & pl.col("logratio").is_finite())
        .sort("item")
    )
    if points.height > MANY_POINTS:
        points = points.gather_every(-(-points.height // MANY_POINTS))
    values = [
        {"x": round(x, 3), "y": round(y, 3), "label": "+1" if label > 0 else "−1"}
        for x, y, label in points.select("before", "logratio", "label").iter_rows()
    ]
    reach = [0.0, *(v for value in values for v in (value["x"], value["y"]))]
    domain = [min(reach), max(reach)] if values else [-1.0, 1.0]
    scale = alt.Scale(domain=domain, nice=5)
    x = alt.X("x:Q", scale=scale, axis=alt.Axis(title="at α = 0, nats", labelExpr=SIGNED, tickCount=5))
    y = alt.Y("y:Q", scale=scale, axis=upright())
    data: dict[str, Table] = {}
    diagonal = named(data, f"diagonal {alpha}", [{"x": end, "y": end} for end in domain])
    dots = named(data, f"rows {alpha}", values)
    layers = [
        *origin(data, x=scale, y=scale),
        diagonal.mark_line(color=MUTED, strokeWidth=1, strokeDash=[2, 3]).encode(x=x, y=y),
        dots.mark_point(size=30, filled=True, opacity=0.6).encode(
            x=x,
            y=y,
            color=alt.Color("label:N", scale=_labels(POSITIVE, NEGATIVE), legend=None),
            shape=alt.Shape("label:N", scale=_labels("circle", "diamond"), legend=None),
        ),
    ]
    subtitle = "log-ratio after steering, nats; circles +1, diamonds −1"
    return panel(layers, data, f"Every row at α = {signed(alpha)}", subtitle)


def norm_map(norms: pl.DataFrame) -> Panel:
    """‖dW‖ by layer and module, mean over seeds; the modules with the largest norm on top."""
    values, order = _by_module(norms, "norm", pl.col("norm").pow(2), digits=5)
    top = max(values.values(), default=1.0)
    digits = 1 if top >= 10 else 2 if top >= 1 else 3
    return heat_map("norms", values, order, form=f".{digits}f", legend="‖dW‖")


def _by_module(
    frame: pl.DataFrame, name: str, weight: pl.Expr, *, digits: int
) -> tuple[dict[tuple[int | None, str], float], list[str]]:
    """The cells of a heat map, means over seeds, and its modules by the sum of their weights, the largest first."""
    cells = (
        frame.with_columns(module=short_module())
        .group_by("layer", "module", maintain_order=True)
        .agg(pl.mean(name))
        .sort("layer", "module")
    )
    order = cells.group_by("module").agg(weight.sum()).sort(name, "module", descending=[True, False])
    values = {
        (None if layer < 0 else layer, module): float(f"{value:.{digits}g}")
        for layer, module, value in cells.select("layer", "module", name).iter_rows()
    }
    return values, order["module"].to_list()


def _labels(plus: str, minus: str) -> alt.Scale:
    return alt.Scale(domain=["+1", "−1"], range=[plus, minus])

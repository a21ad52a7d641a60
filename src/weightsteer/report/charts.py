"""What the charts of all pages share: colours, interventions as series, axes, curves with bands, heat maps.

The page's style sheet recolours charts for dark mode by their colour attributes: only colours named here may occur.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

INK, MUTED, GRID = "#1f2328", "#59636e", "#e4e7eb"
PALETTE = (
    *("#1a5fb4", "#c64600", "#26813f", "#813d9c", "#986a00"),
    *("#0f7f8c", "#b0126e", "#5d6b0a", "#3f4aa8", "#7a4a2b"),
)
CONTROL = "#8a939d"
METHODS = ("weight", "activation", "prompt")
WIDTH, HEIGHT = 262, 190
FEW_LAYERS = 12
SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+~g')"
"""Labels of an axis that has both signs."""

Table = list[dict[str, Any]]
COLOR = alt.Color("color:N", scale=None)
DASH = alt.StrokeDash("dash:N", scale=None)
"""Every row of a table names its colour and dash, the same wherever its series occurs."""


@dataclass(frozen=True)
class Panel:
    """A chart and, by name, the tables it draws: kept apart because Altair copies whatever is inside a chart often."""

    chart: alt.LayerChart
    data: Mapping[str, Table]


@dataclass(frozen=True)
class Series:
    """One intervention as it appears in every chart: its name, its colour, and how it is drawn.

    ``label`` takes the place of a name made from method and adapter.
    """

    method: str
    adapter: str | None
    color: str
    label: str = ""

    @property
    def name(self) -> str:
        """``weight · lora``; what the adapter repeats of the method is left out (``prompt · persona``)."""
        if self.label:
            return self.label
        own = (self.adapter or "").removeprefix(f"{self.method}-")
        return f"{self.method} · {own}" if own else self.method

    @property
    def control(self) -> bool:
        return self.method == "control"

    @property
    def dash(self) -> Sequence[int]:
        return (4, 3) if self.control else (9, 3) if self.method == "activation" else (1, 0)

    @property
    def key(self) -> str:
        """How a key shows it, by the classes of the style sheet: a prompt has no strength, so it is a point."""
        return "dashed" if self.control else {"activation": "long", "prompt": "dot"}.get(self.method, "")

    @property
    def look(self) -> dict[str, Any]:
        """The columns of its rows in the table of a chart."""
        return {"name": self.name, "color": self.color, "dash": self.dash}

    def of(self, frame: pl.DataFrame) -> pl.DataFrame:
        """This intervention's lines of a summary or rows of a sweep."""
        return frame.filter(pl.col("method") == self.method, pl.col("adapter").eq_missing(self.adapter))


def series(rows: pl.DataFrame) -> list[Series]:
    """The interventions of a frame, controls last and grey, the others in the colours of the palette.

    Weight vectors come first. Ten colours can be distinguished; where they come round again, so does another method,
    which is drawn in another way.
    """
    found = rows.select("method", "adapter").unique().sort("method", "adapter", nulls_last=True).rows()
    chosen = sorted(
        ((method, adapter) for method, adapter in found if method not in ("base", "control")),
        key=lambda one: METHODS.index(one[0]) if one[0] in METHODS else len(METHODS),
    )
    colored = [Series(m, a, PALETTE[i % len(PALETTE)]) for i, (m, a) in enumerate(chosen)]
    return colored + [Series(m, a, CONTROL) for m, a in found if m == "control"]


def records(frame: pl.DataFrame, look: Mapping[str, Any], **columns: str) -> Table:
    """Rows of a chart's table, rounded: new name = old column. What is null or NaN is left out of its row."""
    return [
        {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items() if _known(value)}
        | dict(look)
        for row in frame.select(**{new: pl.col(old) for new, old in columns.items()}).iter_rows(named=True)
    ]


def complete(table: Iterable[dict[str, Any]], *columns: str) -> Table:
    """The rows that have all of these columns."""
    return [row for row in table if all(name in row for name in columns)]


def named(data: dict[str, Table], name: str, table: Table) -> alt.Chart:
    """A chart over a table that is kept in ``data`` under this name."""
    data[name] = table
    return alt.Chart(alt.NamedData(name))


def origin(data: dict[str, Table], **scales: alt.Scale) -> list[alt.Chart]:
    """A hairline at 0 for each of the axes named (``x``, ``y``), on their scales."""
    mark = named(data, "origin", [{"zero": 0}]).mark_rule(color=MUTED, strokeWidth=0.8, opacity=0.55)
    channels = {"x": alt.X, "y": alt.Y}
    return [mark.encode(**{axis: channels[axis]("zero:Q", scale=scale)}) for axis, scale in scales.items()]


def upright(title: str | None = None, **given: Any) -> alt.Axis:
    """A vertical axis of fixed width, so that the panels of a row are equally wide."""
    return alt.Axis(**{"title": title, "tickCount": 5, "labelExpr": SIGNED, "minExtent": 30, "maxExtent": 30, **given})


def curves(data: dict[str, Table], name: str, table: Table, x: alt.X, y: alt.Y, *, size: int = 30) -> list[alt.Chart]:
    """Band, line and points of every series of a table, which has the fields of x and y and ``low`` and ``high``."""
    band = named(data, f"{name}: band", complete(table, "low", "high")).mark_area(opacity=0.14)
    base = named(data, name, table).encode(x=x, y=y, color=COLOR)
    ends = {"y": alt.Y("low:Q", scale=y["scale"], axis=y["axis"]), "y2": "high:Q"}
    return [
        band.encode(x=x, color=COLOR, detail="name:N", **ends),
        base.mark_line(strokeWidth=2).encode(strokeDash=DASH, detail="name:N"),
        base.mark_circle(size=size, opacity=1),
    ]


def intervals(
    data: dict[str, Table], name: str, table: Table, x: alt.X, y: alt.Y, *, along: str = "y", **mark: Any
) -> alt.Chart:
    """A rule from ``low`` to ``high`` of every row that has both, along one axis; cut off at the edge of the panel."""
    rule = named(data, name, complete(table, "low", "high")).mark_rule(clip=True, **mark)
    if along == "y":
        ends = {"x": x, "y": alt.Y("low:Q", scale=y["scale"], axis=y["axis"]), "y2": "high:Q"}
    else:
        ends = {"x": alt.X("low:Q", scale=x["scale"], axis=x["axis"]), "x2": "high:Q", "y": y}
    return rule.encode(color=COLOR, **ends)


def panel(
    layers: Sequence[Any],
    data: Mapping[str, Table],
    title: str,
    subtitle: str,
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> Panel:
    """Layers as one panel with a title."""
    words = alt.Title(title, subtitle=subtitle, frame="group", offset=10)
    return Panel(alt.layer(*layers).properties(width=width, height=height, title=words), data)


def heat_map(
    name: str,
    values: Mapping[tuple[int | None, str], float],
    modules: Sequence[str],
    *,
    form: str,
    title: str = "",
    subtitle: str = "",
    legend: str | None = None,
) -> Panel:
    """A cell for each layer (None: outside the decoder) and module: darker is larger, orange is below 0.

    Args:
        name: of its table.
        modules: from top to bottom.
        form: a d3 format; with few layers, the cells show the numbers.
        legend: the title of a scale of shades, which models with many layers get in place of the numbers.
    """
    decoder = sorted({layer for layer, _ in values if layer is not None})
    layers = [*map(str, decoder), *(["other"] if any(layer is None for layer, _ in values) else [])]
    cells: Table = [
        {"layer": "other" if layer is None else str(layer), "module": module, "value": value, "size": abs(value)}
        for (layer, module), value in values.items()
    ]
    few = len(layers) <= FEW_LAYERS
    bare = {"domain": False, "ticks": False, "grid": False}
    across = alt.Axis(title="decoder layer", labelAngle=0, **bare)
    down = alt.Axis(title=None, labelLimit=150, minExtent=112, **bare)
    data: dict[str, Table] = {}
    base = named(data, name, cells).encode(
        x=alt.X("layer:O", sort=layers, scale=alt.Scale(paddingInner=0.05), axis=across),
        y=alt.Y("module:O", sort=list(modules), scale=alt.Scale(paddingInner=0.08), axis=down),
    )
    top = max((cell["size"] for cell in cells), default=1.0) or 1.0
    square = {"symbolType": "square", "symbolFillColor": PALETTE[0], "symbolStrokeWidth": 0}
    shades = base.mark_rect(cornerRadius=2).encode(
        opacity=alt.Opacity(
            "size:Q",
            scale=alt.Scale(domain=[0, top], range=[0.04, 0.62 if few else 1.0]),
            legend=None if few or legend is None else alt.Legend(title=legend, **square),
        ),
        color=alt.condition("datum.value < 0", alt.value(PALETTE[1]), alt.value(PALETTE[0])),
    )
    numbers = base.mark_text(fontSize=10.5, color=INK).encode(text=alt.Text("value:Q", format=form))
    wide, high = (45, 25) if few else (max(7, 300 // len(layers)) if title else 19, 22)
    chart = alt.layer(shades, *([numbers] if few else [])).properties(width={"step": wide}, height={"step": high})
    if title:
        chart = chart.properties(title=alt.Title(title, subtitle=subtitle, frame="group", offset=8))
    return Panel(chart, data)


def short_module() -> pl.Expr:
    """``model.layers.3.mlp.down_proj`` becomes ``mlp.down_proj``."""
    return pl.col("module").str.replace(r"^.*?\.\d+\.", "")


def _known(value: Any) -> bool:
    return value is not None and value == value

"""Charts of a report: dose-response panels, rows before and after, and where the norm of dW lies.

The page's style sheet recolours charts for dark mode by their colour attributes: only colours named here may occur.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import polars as pl

from weightsteer.formatting import signed

INK, MUTED, GRID = "#1f2328", "#59636e", "#e4e7eb"
PALETTE = (
    *("#1a5fb4", "#c64600", "#26813f", "#813d9c", "#986a00"),
    *("#0f7f8c", "#b0126e", "#5d6b0a", "#3f4aa8", "#7a4a2b"),
)
CONTROL = "#8a939d"
METHODS = ("weight", "activation", "prompt")
POSITIVE, NEGATIVE = "#0f7f8c", "#c64600"
PANEL = {"width": 262, "height": 190}
EXTENT = 30
MANY_POINTS = 1200
FEW_LAYERS = 12
FEW_CONTROLS = 2  # more of them share one entry of a key and have no bands

_SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+~g')"


Table = list[dict[str, Any]]


@dataclass(frozen=True)
class Drawing:
    """A chart and, by name, the tables it draws: kept apart because Altair copies whatever is inside a chart often."""

    chart: alt.LayerChart
    data: dict[str, Table]


@dataclass(frozen=True)
class Series:
    """One intervention as it appears in every chart: its words, its colour, and how it is drawn."""

    method: str
    adapter: str | None
    color: str

    @property
    def name(self) -> str:
        """``weight · lora``; what the adapter repeats of the method is left out (``prompt · persona``)."""
        own = (self.adapter or "").removeprefix(f"{self.method}-")
        return f"{self.method} · {own}" if own else self.method

    @property
    def control(self) -> bool:
        return self.method == "control"

    @property
    def dash(self) -> list[int]:
        return [4, 3] if self.control else [9, 3] if self.method == "activation" else [1, 0]

    @property
    def key(self) -> str:
        """How a key shows it, by the classes of the style sheet: a prompt has no strength, so it is a point."""
        return "dashed" if self.control else {"activation": "long", "prompt": "dot"}.get(self.method, "")

    def of(self, frame: pl.DataFrame) -> pl.DataFrame:
        """This intervention's lines of a summary or rows of a sweep."""
        return frame.filter(pl.col("method") == self.method, pl.col("adapter").eq_missing(self.adapter))


def series(rows: pl.DataFrame) -> list[Series]:
    """The interventions of a frame, controls last and grey, the others in the colours of the palette.

    Weight vectors come first. Ten colours are told apart; where they come round again, so does another method, which
    is drawn in another way.
    """
    found = rows.select("method", "adapter").unique().sort("method", "adapter", nulls_last=True).rows()
    chosen = sorted(
        ((method, adapter) for method, adapter in found if method not in ("base", "control")),
        key=lambda one: METHODS.index(one[0]) if one[0] in METHODS else len(METHODS),
    )
    colored = [Series(m, a, PALETTE[i % len(PALETTE)]) for i, (m, a) in enumerate(chosen)]
    return colored + [Series(m, a, CONTROL) for m, a in found if m == "control"]


def dose_response(summary: pl.DataFrame, by_seed: pl.DataFrame, shown: Sequence[Series]) -> list[Drawing]:
    """Discrimination, bias and pmass against α for one evaluation: pooled line and band, one thin line per seed.

    Discrimination and bias share their scale: their sizes are to be compared.
    """
    effects = pl.concat([summary.select(_ends(n)) for n in ("discrimination", "bias")])
    ends = [0.0, *(v for row in effects.iter_rows() for v in row if v is not None and v == v)]
    low, high = min(ends), max(ends)
    nats = alt.Scale(domain=[low, high] if low < high else [-1, 1], nice=5)
    panels = []
    for name, title, subtitle, scale in (
        ("discrimination", "Discrimination", "shift along the label, nats", nats),
        ("bias", "Bias", "shift common to both labels, nats", nats),
        ("pmass", "Answer mass", "probability on the two answers", alt.Scale(domain=[0, 1])),
    ):
        data: dict[str, Table] = {"origin": [{"zero": 0}]}
        layers: list[Any] = [_zero("x")] + ([_zero("y")] if name != "pmass" else [])
        controls = [one for one in shown if one.control]
        if len(controls) > FEW_CONTROLS:
            layers += _faint(controls, summary, name, scale, data)
        for one in reversed(shown if len(controls) <= FEW_CONTROLS else [one for one in shown if not one.control]):
            layers += _curve(one, one.of(summary), one.of(by_seed), name, scale, data)
        panels.append(Drawing(alt.layer(*layers).properties(**PANEL, title=_title(title, subtitle)), data))
    return panels


def before_after(rows: pl.DataFrame, alpha: float) -> Drawing:
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
    reach = [v for value in values for v in (value["x"], value["y"])] or [-1.0, 1.0]
    domain = [min(0.0, *reach), max(0.0, *reach)]
    scale = alt.Scale(domain=domain, nice=5)
    diagonal = (
        alt.Chart(alt.NamedData(f"diagonal {alpha}"))
        .mark_line(color=MUTED, strokeWidth=1, strokeDash=[2, 3])
        .encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale))
    )
    dots = (
        alt.Chart(alt.NamedData(f"rows {alpha}"))
        .mark_point(size=30, filled=True, opacity=0.6)
        .encode(
            x=alt.X("x:Q", scale=scale, axis=alt.Axis(title="at α = 0, nats", labelExpr=_SIGNED, tickCount=5)),
            y=alt.Y(
                "y:Q",
                scale=scale,
                axis=alt.Axis(title=None, labelExpr=_SIGNED, tickCount=5, minExtent=EXTENT, maxExtent=EXTENT),
            ),
            color=alt.Color("label:N", scale=_labels(POSITIVE, NEGATIVE), legend=None),
            shape=alt.Shape("label:N", scale=_labels("circle", "diamond"), legend=None),
        )
    )
    title = _title(f"Every row at α = {signed(alpha)}", "log-ratio after steering, nats · ● label +1, ◆ label −1")
    ends = [{"x": end, "y": end} for end in domain]
    data = {"origin": [{"zero": 0}], f"diagonal {alpha}": ends, f"rows {alpha}": values}
    return Drawing(alt.layer(_zero("x"), _zero("y"), diagonal, dots).properties(**PANEL, title=title), data)


def norm_map(norms: pl.DataFrame) -> Drawing:
    """‖dW‖ by layer and module, mean over seeds: darker is larger; the numbers stand in the cells of small models."""
    cells = (
        norms.with_columns(module=short_module())
        .group_by("layer", "module", maintain_order=True)
        .agg(pl.mean("norm"))
        .sort("layer", "module")
    )
    order = cells.group_by("module").agg(pl.col("norm").pow(2).sum()).sort("norm", "module", descending=[True, False])
    layers = sorted(cells["layer"].unique())
    few = len(layers) <= FEW_LAYERS
    values = [
        {"layer": "other" if layer < 0 else str(layer), "module": module, "norm": float(f"{norm:.5g}")}
        for layer, module, norm in cells.select("layer", "module", "norm").iter_rows()
    ]
    names = ["other" if layer < 0 else str(layer) for layer in layers]
    base = by_module("norms", names, order["module"].to_list(), orient="top", labelLimit=220)
    top = max((value["norm"] for value in values), default=1.0) or 1.0
    squares = base.mark_rect(color=PALETTE[0], cornerRadius=2).encode(
        opacity=alt.Opacity(
            "norm:Q",
            scale=alt.Scale(domain=[0, top], range=[0.04, 0.62 if few else 1.0]),
            legend=None
            if few
            else alt.Legend(title="‖dW‖", symbolType="square", symbolFillColor=PALETTE[0], symbolStrokeWidth=0),
        )
    )
    layered = [squares]
    if few:
        digits = 1 if top >= 10 else 2 if top >= 1 else 3
        numbers = base.mark_text(fontSize=10.5, color=INK)
        layered.append(numbers.encode(text=alt.Text("norm:Q", format=f".{digits}f")))
    step = 46 if few else 19
    chart = alt.layer(*layered).properties(width={"step": step}, height={"step": 26 if few else 22})
    return Drawing(chart, {"norms": values})


def by_module(
    data: str, layers: Sequence[str], modules: Sequence[str], *, orient: Literal["top", "bottom"], **axis: Any
) -> alt.Chart:
    """A cell for each ``layer`` and ``module`` of the named data, in these orders; ``axis``: of the modules' names."""
    bare = {"domain": False, "ticks": False, "grid": False}
    across = alt.Axis(title="decoder layer", orient=orient, labelAngle=0, **bare)
    return alt.Chart(alt.NamedData(data)).encode(
        x=alt.X("layer:O", sort=list(layers), scale=alt.Scale(paddingInner=0.05), axis=across),
        y=alt.Y(
            "module:O",
            sort=list(modules),
            scale=alt.Scale(paddingInner=0.08),
            axis=alt.Axis(title=None, **bare, **axis),
        ),
    )


def short_module() -> pl.Expr:
    """``model.layers.3.mlp.down_proj`` becomes ``mlp.down_proj``."""
    return pl.col("module").str.replace(r"^.*?\.\d+\.", "")


def _ends(name: str) -> list[pl.Expr]:
    """Point, interval and, where there is one, the spread of seeds."""
    return [pl.col(f"{name}{suffix}").alias(suffix or "point") for suffix in ("", "_low", "_high")]


def _faint(
    controls: Sequence[Series], pooled: pl.DataFrame, name: str, scale: alt.Scale, data: dict[str, Table]
) -> list[alt.Chart]:
    """The pooled lines of many controls as one layer, without bands and seeds."""
    data[f"{name} of controls"] = [
        {"name": one.name, **value}
        for one in controls
        for value in _values(one.of(pooled), {"alpha": "alpha", "value": name})
    ]
    lines = alt.Chart(alt.NamedData(f"{name} of controls")).mark_line(
        color=CONTROL, strokeWidth=1, opacity=0.7, strokeDash=controls[0].dash
    )
    return [lines.encode(x="alpha:Q", y=alt.Y("value:Q", scale=scale), detail="name:N")]


def _curve(
    one: Series, pooled: pl.DataFrame, each: pl.DataFrame, name: str, scale: alt.Scale, data: dict[str, Table]
) -> list[alt.Chart]:
    """Band, thin lines of the seeds, and the pooled line with its points; their tables go into ``data``."""
    strengths = sorted(pooled["alpha"].unique())
    x = alt.X("alpha:Q", axis=alt.Axis(values=strengths, labelExpr=_SIGNED, title="α", grid=False, labelFlush=False))
    # A fixed extent: panels of one row must have the same width, or the page scales their text differently.
    expression = _SIGNED if name != "pmass" else "datum.label"
    axis = alt.Axis(title=None, tickCount=5, minExtent=EXTENT, maxExtent=EXTENT, labelExpr=expression)
    y = alt.Y("value:Q", scale=scale, axis=axis)
    where = f"{name} of {one.name}"
    layers = []
    if band := _values(pooled, {"alpha": "alpha", "low": f"{name}_low", "high": f"{name}_high"}):
        data[f"{where}: band"] = band
        area = alt.Chart(alt.NamedData(f"{where}: band")).mark_area(color=one.color, opacity=0.14)
        layers.append(area.encode(x=x, y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q"))
    if each["seed"].n_unique() > 1:
        data[f"{where}: seeds"] = _values(each, {"alpha": "alpha", "seed": "seed", "value": name})
        lines = alt.Chart(alt.NamedData(f"{where}: seeds")).mark_line(
            color=one.color, strokeWidth=0.8, opacity=0.5, strokeDash=one.dash
        )
        layers.append(lines.encode(x=x, y=y, detail="seed:N"))
    data[where] = _values(pooled, {"alpha": "alpha", "value": name})
    thick = alt.Chart(alt.NamedData(where)).encode(x=x, y=y)
    layers.append(thick.mark_line(color=one.color, strokeWidth=2, strokeDash=one.dash))
    layers.append(thick.mark_circle(color=one.color, size=30, opacity=1))
    return layers


def _values(frame: pl.DataFrame, columns: dict[str, str]) -> list[dict[str, Any]]:
    """Rows without gaps, rounded: a chart needs no sixth digit, and a file no noise."""
    picked = frame.select(**{new: pl.col(old) for new, old in columns.items()}).drop_nulls()
    return [
        {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
        for row in picked.sort(list(columns)[:2]).iter_rows(named=True)
        if all(value == value for value in row.values())
    ]


def _zero(axis: str) -> alt.Chart:
    """A hairline at 0."""
    mark = alt.Chart(alt.NamedData("origin")).mark_rule(color=MUTED, strokeWidth=0.8, opacity=0.55)
    return mark.encode(**{axis: "zero:Q"})


def _title(text: str, subtitle: str) -> alt.Title:
    return alt.Title(text, subtitle=subtitle, frame="group", offset=10)


def _labels(plus: str, minus: str) -> alt.Scale:
    return alt.Scale(domain=["+1", "−1"], range=[plus, minus])

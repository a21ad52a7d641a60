"""A figure: panels composed into one chart, rendered once, shown in the page and written as a file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import vl_convert as vlc
from markupsafe import Markup

from weightsteer.report.charts import COLOR, DASH, GRID, INK, MUTED, Panel, Series, Table, named

COLUMNS = 3
WIDE = 920  # px of a row of panels, and of the key above them
FEW_CONTROLS = 2  # more of them share one entry of a key and have no bands

_FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif"
_CONFIG: dict[str, Any] = {
    "aria": False,
    "background": "white",  # transparent in the page, by the style sheet
    "font": _FONT,
    "padding": 6,
    "view": {"stroke": None},
    "concat": {"spacing": 22},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11.5,
        "titlePadding": 7,
        "gridColor": GRID,
        "domainColor": GRID,
        "tickColor": GRID,
    },
    "title": {
        "color": INK,
        "subtitleColor": MUTED,
        "fontSize": 13.5,
        "subtitleFontSize": 11.5,
        "anchor": "start",
        "subtitlePadding": 3,
    },
    "legend": {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 11.5, "titleFontSize": 11.5},
}


@dataclass(frozen=True)
class Figure:
    """Panels under a title and, where several series occur, their key.

    Attributes:
        name: of its files in ``charts/``; no two figures of a page have the same.
        rows: the panels of each row; every table of every panel has a name of its own.
        shown: the series in the order of the key.
    """

    name: str
    title: str
    rows: Sequence[Sequence[Panel]]
    shown: Sequence[Series] = ()

    @cached_property
    def svg(self) -> Markup:
        """The same bytes for the same panels, on white; ids begin with the name, so that figures share a page."""
        data: dict[str, Table] = {}
        parts: list[Any] = [_key(self.shown, data)] if len(self.shown) > 1 else []
        for row in self.rows:
            parts.append(alt.hconcat(*(panel.chart for panel in row)))
            for panel in row:
                data |= panel.data
        title = alt.Title(self.title, fontSize=15, offset=12, frame="group")
        spec = alt.vconcat(*parts).properties(title=title).to_dict(validate=False)
        spec |= {"datasets": data, "config": _CONFIG}
        return Markup(_own_ids(vlc.vegalite_to_svg(spec, allowed_base_urls=[]), self.name))

    def png(self) -> bytes:
        """Twice the size of the SVG, for slides and READMEs."""
        return bytes(vlc.svg_to_png(str(self.svg), scale=2))


def in_rows(panels: Sequence[Panel]) -> list[Sequence[Panel]]:
    """Panels in rows of three."""
    return [panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)]


def key_entries(shown: Sequence[Series]) -> list[tuple[Series, str]]:
    """The entries of a key: many controls, which are all drawn alike, are one entry."""
    controls = [one for one in shown if one.control]
    if len(controls) <= FEW_CONTROLS:
        return [(one, one.name) for one in shown]
    others = [(one, one.name) for one in shown if not one.control]
    return [*others, (controls[0], f"{len(controls)} controls")]


def _key(shown: Sequence[Series], data: dict[str, Table]) -> alt.LayerChart:
    """The key as a chart of its own: a mark and a name for each entry, in columns."""
    entries = key_entries(shown)
    step = 44 + max(int(6.8 * len(name)) for _, name in entries)  # px: names are set in 12 px
    across = max(1, min(len(entries), WIDE // step))
    lines = -(-len(entries) // across)
    table: Table = [
        {**one.look, "name": name, "dot": one.key == "dot", "x": i % across * step, "row": i // across}
        for i, (one, name) in enumerate(entries)
    ]
    y = alt.Y("row:Q", scale=alt.Scale(domain=[-0.5, lines - 0.5], reverse=True, nice=False), axis=None)
    scale = alt.Scale(domain=[0, across * step], nice=False)
    base = named(data, "key", table).encode(y=y)
    line, dot, text = (
        base.transform_calculate(at=f"datum.x + {offset}").encode(x=alt.X("at:Q", scale=scale, axis=None))
        for offset in (0, 11, 29)
    )
    return alt.layer(
        line.transform_calculate(end="datum.x + 22")
        .transform_filter("!datum.dot")
        .mark_rule(strokeWidth=2)
        .encode(x2="end:Q", color=COLOR, strokeDash=DASH),
        dot.transform_filter("datum.dot")
        .mark_point(shape="diamond", filled=True, size=70, opacity=1)
        .encode(color=COLOR),
        text.mark_text(align="left", baseline="middle", fontSize=12, color=INK).encode(text="name:N"),
    ).properties(width=across * step, height=20 * lines)


def _own_ids(svg: str, name: str) -> str:
    """The converter numbers clip paths through a process; here they are numbered from 1, under the figure's name."""
    fresh = {old: f"{name}-clip-{i}" for i, old in enumerate(re.findall(r'\bid="(clip\d+)"', svg), 1)}
    return re.sub(r'(\bid="|url\(#)(clip\d+)', lambda found: found[1] + fresh[found[2]], svg)

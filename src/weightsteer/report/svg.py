"""SVG and PNG of a chart: files on white paper, and copies for the page that share nothing with each other."""

import re
from collections.abc import Sequence
from typing import Any

import vl_convert as vlc
from markupsafe import escape

from weightsteer.report.charts import FEW_CONTROLS, GRID, INK, MUTED, Drawing, Series

_AXIS = {
    "labelColor": MUTED,
    "titleColor": MUTED,
    "titleFontWeight": "normal",
    "labelFontSize": 11,
    "titleFontSize": 11.5,
    "titlePadding": 7,
    "gridColor": GRID,
    "domainColor": GRID,
    "tickColor": GRID,
}
_TITLE = {
    "color": INK,
    "subtitleColor": MUTED,
    "fontSize": 13.5,
    "subtitleFontSize": 11.5,
    "anchor": "start",
    "subtitlePadding": 3,
}
_FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif"
_TEXT = f'font-family="{_FONT}" fill="{INK}"'
WIDEST = 1010.0  # px of a figure made of several panels; the next one begins a new row
_CONFIG: dict[str, Any] = {
    "aria": False,
    "background": "transparent",
    "font": _FONT,
    "padding": 6,
    "view": {"stroke": None},
    "axis": _AXIS,
    "title": _TITLE,
    "legend": {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 11.5, "titleFontSize": 11.5},
}


def to_svg(drawing: Drawing) -> str:
    """One chart without background. Ids are numbered from 1: the converter counts through a process."""
    spec = drawing.chart.to_dict(validate=False)
    spec |= {"datasets": drawing.data, "config": _CONFIG}
    return unique_ids(vlc.vegalite_to_svg(spec, allowed_base_urls=[]), "weightsteer")


def side_by_side(panels: Sequence[str], title: str = "", shown: Sequence[Series] = ()) -> str:
    """Panels as one figure on white, in rows, under a title and, when there are several interventions, their key."""
    placed, x, y, row, width = [], 8.0, 0.0, 0.0, 0.0
    for panel in panels:
        wide, high = _size(panel)
        if x > 8 and x + wide > WIDEST:
            x, y, row = 8.0, y + row + 10, 0.0
        placed.append((panel, x, y))
        x, row = x + wide + 18, max(row, high)
        width = max(width, x - 10)
    parts: list[str] = []
    top = 10.0
    if title:
        parts.append(f'<text x="14" y="{top + 16}" font-size="15" font-weight="bold" {_TEXT}>{escape(title)}</text>')
        top += 30
    if len(shown) > 1:
        entries, top = _key(shown, top, width)
        parts += entries
    for i, (panel, left, down) in enumerate(placed, 1):
        where = f'<svg x="{left:g}" y="{top + down:g}" '
        parts.append(unique_ids(panel, f"panel-{i}").replace("<svg ", where, 1))
    height = top + y + row + 8
    size = f'width="{width:g}" height="{height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:g} {height:g}">'
    return "".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"])


def legend(shown: Sequence[Series]) -> list[tuple[Series, str]]:
    """Who stands in a key, and under which name: many controls, all drawn alike, as one entry."""
    controls = sum(one.control for one in shown)
    if controls <= FEW_CONTROLS:
        return [(one, one.name) for one in shown]
    first = next(one for one in shown if one.control)
    return [(one, one.name) for one in shown if not one.control] + [(first, f"{controls} controls")]


def _key(shown: Sequence[Series], top: float, width: float) -> tuple[list[str], float]:
    """The entries of a key in as many lines as the width asks for, and where it ends."""
    parts, x = [], 14.0
    for one, name in legend(shown):
        wide = 55 + 7 * len(name)
        if x > 14 and x + wide > width:
            x, top = 14.0, top + 20
        if one.key == "dot":
            mark = f'<path d="M{x + 11} {top + 3}l5 5l-5 5l-5 -5z" fill="{one.color}"/>'
        else:
            line = f'x1="{x}" x2="{x + 22}" y1="{top + 8}" y2="{top + 8}" stroke="{one.color}"'
            mark = f'<line {line} stroke-dasharray="{",".join(map(str, one.dash))}" stroke-width="2"/>'
        parts.append(f'{mark}<text x="{x + 29}" y="{top + 12}" font-size="12" {_TEXT}>{escape(name)}</text>')
        x += wide
    return parts, top + 24


def to_png(svg: str) -> bytes:
    """Twice the size of the SVG, for slides and READMEs."""
    return bytes(vlc.svg_to_png(svg, scale=2))


def inline(svg: str, name: str, described: str) -> str:
    """SVG for the page: ids of its own, one description for all its marks, and none of the converter's scaffolding."""
    svg = unique_ids(svg, name)
    svg = re.sub(r'<path class="(?:back|fore)ground"[^>]*(?:d="M0,0h0v0h0Z"|display="none")[^>]*/>', "", svg)
    svg = re.sub(r' (?:role|aria-\w+|pointer-events|class|version|xmlns(?::\w+)?|opacity="1")="[^"]*"', "", svg)
    svg = re.sub(r' opacity="1"(?=[ />])', "", svg)
    natural = f"{_size(svg)[0]:.0f}"
    head = f'<svg role="img" aria-label="{escape(described)}" style="max-width:{natural}px" '
    return re.sub(r'<svg (?:width="[\d.]+" height="[\d.]+" )?', head, svg, count=1)


def unique_ids(svg: str, prefix: str) -> str:
    """Number all ids in order of appearance under ``prefix``, with everything that refers to them."""
    fresh = {old: f"{prefix}-{i}" for i, old in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg)), 1)}
    for old, new in fresh.items():
        svg = svg.replace(f'id="{old}"', f'id="{new}"')
        svg = svg.replace(f"url(#{old})", f"url(#{new})").replace(f'href="#{old}"', f'href="#{new}"')
    return svg


def _size(svg: str) -> tuple[float, float]:
    """Width and height of the drawing, px."""
    width, height = re.findall(r'^<svg [^>]*?\bwidth="([\d.]+)" height="([\d.]+)"', svg)[0]
    return float(width), float(height)

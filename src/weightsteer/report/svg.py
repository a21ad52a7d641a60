"""SVG and PNG of a chart: files on white paper, and copies for the page that share nothing with each other."""

import re
from collections.abc import Sequence
from typing import Any

import vl_convert as vlc
from markupsafe import escape

from weightsteer.report.charts import GRID, INK, MUTED, Drawing, Series

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
    """Panels as one figure on white, under a title and, when there are several interventions, their key."""
    parts: list[str] = []
    top = 10.0
    if title:
        parts.append(f'<text x="14" y="{top + 16}" font-size="15" font-weight="bold" {_TEXT}>{escape(title)}</text>')
        top += 30
    if len(shown) > 1:
        x = 14.0
        for one in shown:
            dash = ",".join(map(str, one.dash))
            line = (
                f'x1="{x}" x2="{x + 22}" y1="{top + 8}" y2="{top + 8}" stroke="{one.color}" stroke-dasharray="{dash}"'
            )
            word = f'<text x="{x + 29}" y="{top + 12}" font-size="12" {_TEXT}>{escape(one.name)}</text>'
            parts.append(f'<line {line} stroke-width="2"/>{word}')
            x += 55 + 7 * len(one.name)
        top += 24
    x, bottom = 8.0, top
    for i, panel in enumerate(panels, 1):
        width, height = _size(panel)
        parts.append(unique_ids(panel, f"panel-{i}").replace("<svg ", f'<svg x="{x:g}" y="{top:g}" ', 1))
        x, bottom = x + width + 18, max(bottom, top + height)
    size = f'width="{x - 10:g}" height="{bottom + 8:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {x - 10:g} {bottom + 8:g}">'
    return "".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"])


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

"""A figure is the same in the page and in its file, and shares a page with others."""

import re

import altair as alt
import polars as pl

from weightsteer.report.charts import CONTROL, PALETTE, Panel, Series, named, panel
from weightsteer.report.figure import WIDE, Figure, in_rows, key_entries

LORA = Series("weight", "lora", PALETTE[0])
PERSONA = Series("prompt", "prompt-persona", PALETTE[1])
RANDOM = Series("control", "lora-random", CONTROL)


def clipped(title: str) -> Panel:
    """A panel with a clip path, of which the converter numbers the id."""
    data: dict[str, list[dict[str, float]]] = {}
    line = named(data, title, [{"x": 0.0, "y": 1.0}, {"x": 1.0, "y": 3.0}]).mark_line(clip=True)
    return panel([line.encode(x="x:Q", y=alt.Y("y:Q", scale=alt.Scale(domain=[0, 2])))], data, title, "")


def test_ids_are_those_of_the_figure_and_lead_somewhere() -> None:
    """Two charts of one page with one id would clip each other; a dangling reference would hide a chart."""
    first, second = (Figure(name, "", [[clipped("a"), clipped("b")]]).svg for name in ("one", "two"))
    for name, svg in (("one", first), ("two", second)):
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert len(ids) == len(set(ids)) == 2
        assert set(ids) == set(re.findall(r"url\(#([^)]+)\)", svg))
        assert all(each.startswith(f"{name}-") for each in ids)


def test_bytes_do_not_depend_on_what_was_drawn_before() -> None:
    """The converter counts through a process: a report that is written again would not be the same."""
    once = Figure("one", "title", [[clipped("a")]], [LORA, RANDOM]).svg
    assert Figure("one", "title", [[clipped("a")]], [LORA, RANDOM]).svg == once


def test_a_figure_has_its_title_and_key_and_stands_on_white() -> None:
    """A file in a paper needs them; what people wrote must not become markup."""
    figure = Figure("x", "A <title> & more", [[clipped("a")]], [LORA, PERSONA, RANDOM])
    assert "A &lt;title&gt; &amp; more" in figure.svg
    assert all(one.name in figure.svg for one in (LORA, PERSONA, RANDOM))
    assert 'fill="white"' in figure.svg
    assert figure.svg.count("<svg") == figure.svg.count("</svg>") == 1
    assert figure.png().startswith(b"\x89PNG")
    alone = Figure("x", "A title", [[clipped("a")]], [LORA])
    assert LORA.name not in alone.svg


def test_the_key_joins_many_controls() -> None:
    """A key of fifty grey lines tells nothing."""
    shown = [LORA, PERSONA, RANDOM]
    assert [name for _, name in key_entries(shown)] == ["weight · lora", "prompt · persona", "control · lora-random"]
    many = [*shown, *(Series("control", f"lora-{i}", CONTROL) for i in range(4))]
    assert [name for _, name in key_entries(many)][-1] == "5 controls"
    assert [one.key for one, _ in key_entries(shown)] == ["", "dot", "dashed"]


def test_panels_of_a_figure_stay_within_the_page() -> None:
    """Eight panels in one row would make a picture nobody can print."""
    figure = Figure("x", "", in_rows([clipped(str(i)) for i in range(5)]))
    width, height = (float(size) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure.svg)[0])
    assert width <= WIDE + 100
    assert height > 2 * 190


def test_series_have_colours_by_name() -> None:
    """The key is made from the columns that charts draw with: another colour there would name another curve."""
    assert LORA.look == {"name": "weight · lora", "color": PALETTE[0], "dash": (1, 0)}
    frame = pl.DataFrame({"method": ["weight", "weight"], "adapter": ["lora", None], "value": [1, 2]})
    assert LORA.of(frame)["value"].to_list() == [1]

"""The folder of a report holds this report and nothing of an earlier one, and nothing of the user's is lost."""

from pathlib import Path

import polars as pl
import pytest

from weightsteer.report import figure
from weightsteer.report.charts import named, panel
from weightsteer.report.figure import Figure
from weightsteer.report.page import write_page


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """That pictures are pictures is tested elsewhere."""
    monkeypatch.setattr(figure.Figure, "png", lambda self: b"png")


def drawn(name: str) -> Figure:
    data: dict[str, list[dict[str, float]]] = {}
    dots = named(data, name, [{"x": 0.0}]).mark_point().encode(x="x:Q")
    return Figure(name, name, [[panel([dots], data, name, "")]])


def page(*figures: Figure) -> str:
    return "".join(f'<figure id="chart-{one.name}"></figure>' for one in figures)


def test_what_an_earlier_report_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """A chart or table of other rows next to a new page would be taken for its own; a user's picture is his."""
    old, new = drawn("old"), drawn("new")
    table = pl.DataFrame({"x": [1 / 3]})
    write_page(tmp_path, page(old), run={"a": 1}, figures=[old], tables={"first": table, "second": table})
    (tmp_path / "charts" / "mine.svg").write_text("mine")
    (tmp_path / "mine.csv").write_text("mine")
    path = write_page(tmp_path, page(new), run={"a": 2}, figures=[new], tables={"first": table, "second": None})
    assert path.read_text() == page(new)
    assert sorted(each.name for each in (tmp_path / "charts").iterdir()) == ["mine.svg", "new.png", "new.svg"]
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == [
        "first.csv",
        "mine.csv",
        "report.html",
        "run.json",
    ]
    assert (tmp_path / "run.json").read_text() == '{\n "a": 2\n}'


def test_numbers_have_six_decimals(tmp_path: Path) -> None:
    """More digits depend on the number of threads: the same run would give other files."""
    write_page(tmp_path, "", run={}, figures=[], tables={"t": pl.DataFrame({"x": [1 / 3]}), "empty": pl.DataFrame()})
    assert (tmp_path / "t.csv").read_text() == "x\n0.333333\n"
    assert not (tmp_path / "empty.csv").exists()

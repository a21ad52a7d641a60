"""The figures over all evaluations draw the numbers they are given."""

import polars as pl
import pytest
from compared import calibration, damage, matched, swept

from weightsteer.audit import audit
from weightsteer.experiments.sweep.page.balance import balance_panel
from weightsteer.experiments.sweep.page.frontier import frontier_panel
from weightsteer.measure.damage_table import damage_summary
from weightsteer.report.charts import CONTROL, Panel, Table, series
from weightsteer.report.figure import Figure
from weightsteer.stats import frontier, summarize


@pytest.fixture(scope="module")
def points() -> pl.DataFrame:
    rows = swept()
    return frontier(summarize(rows, resamples=50), damage_summary(damage(), resamples=50)).filter(eval="dilemmas")


@pytest.fixture(scope="module")
def panel(points: pl.DataFrame) -> Panel:
    drawn = frontier_panel(points, series(swept()), "dilemmas", large=True)
    assert drawn is not None
    return drawn


def rows_of(panel: Panel, table: str, name: str) -> Table:
    """The rows of one intervention in one of the tables of a panel."""
    return [row for row in panel.data[table] if row["name"] == name]


def test_curves_run_through_the_origin_with_both_arms(points: pl.DataFrame, panel: Panel) -> None:
    """An arm at −α that is drawn upwards, or a point of another strength, would turn the comparison around."""
    drawn = {line["alpha"]: line for line in rows_of(panel, "dilemmas: curves", "weight · lora")}
    assert list(drawn) == [-1.0, 0.0, 1.0]
    (up,) = points.filter(adapter="lora", alpha=1.0, sign=1).to_dicts()
    (down,) = points.filter(adapter="lora", alpha=-1.0, sign=-1).to_dicts()
    assert drawn[1.0]["effect"] == pytest.approx(up["effect"], abs=1e-4)
    assert drawn[-1.0]["effect"] == pytest.approx(-down["effect"], abs=1e-4)
    assert drawn[-1.0]["effect"] < 0 < drawn[1.0]["effect"]
    assert drawn[0.0]["effect"] == drawn[0.0]["damage"] == 0
    assert drawn[1.0]["damage"] == pytest.approx(0.1, abs=0.01)
    other = rows_of(panel, "dilemmas: curves", "weight · dora")
    assert {line["alpha"]: line["damage"] for line in other}[1.0] > 0.9


def test_bands_are_the_intervals(points: pl.DataFrame, panel: Panel) -> None:
    """A band that is not the interval of the table would be a claim of its own."""
    (up,) = points.filter(adapter="lora", alpha=1.0, sign=1).to_dicts()
    band = rows_of(panel, "dilemmas: bands", "weight · lora")
    assert len(band) == 6
    assert {line["effect"] for line in band} >= {round(up["effect_low"], 4), round(up["effect_high"], 4)}
    assert [line["order"] for line in band] == list(range(6))


def test_a_prompt_is_points_and_a_control_without_damage_is_not_drawn(panel: Panel) -> None:
    """A line through a prompt would invent strengths; a control at damage 0 would look free of charge."""
    assert [line["alpha"] for line in rows_of(panel, "dilemmas: prompts", "prompt · persona")] == [-1.0, 1.0]
    assert rows_of(panel, "dilemmas: bands", "prompt · persona") == []
    assert rows_of(panel, "dilemmas: curves", "prompt · persona") == []
    assert panel.data["dilemmas: controls"] == []
    assert Figure("x", "", [[panel]]).svg.startswith("<svg")


def test_controls_are_muted(points: pl.DataFrame) -> None:
    """Dozens of controls in the colours of findings would hide the findings."""
    priced = points.with_columns(damage=pl.col("damage").fill_null(0.2))
    drawn = frontier_panel(priced, series(swept()), "dilemmas", large=False)
    assert drawn is not None
    assert {line["name"] for line in drawn.data["dilemmas: controls"]} == {"control · lora-random"}
    marks = [
        layer["mark"]
        for layer in drawn.chart.to_dict(validate=False)["layer"]
        if layer["data"]["name"] == "dilemmas: controls"
    ]
    assert len(marks) == 2
    assert {mark["color"] for mark in marks} == {CONTROL}


def test_without_damage_there_is_no_panel(points: pl.DataFrame) -> None:
    """An empty frame of axes says that something was measured."""
    unknown = points.with_columns(damage=pl.lit(None, pl.Float64))
    assert frontier_panel(unknown, series(swept()), "dilemmas", large=True) is None


def test_discrimination_is_drawn_against_bias_at_both_signs() -> None:
    """With the axes exchanged, pure yes-bias would look like a success."""
    lines = audit(matched(), calibration(), resamples=50).lines.filter(eval="claims")
    drawn = balance_panel(lines, series(swept()), "claims")
    assert drawn is not None
    marks = {p["sign"]: p for p in rows_of(drawn, "claims: points", "activation · diffmean")}
    up, down = marks["+"], marks["−"]
    (line,) = lines.filter(adapter="diffmean", alpha=1).to_dicts()
    assert (up["bias"], up["effect"]) == (
        pytest.approx(line["bias"], abs=1e-4),
        pytest.approx(line["discrimination"], abs=1e-4),
    )
    assert up["bias"] > 0.15 > abs(up["effect"])
    assert down["bias"] < 0
    for name in ("bias", "discrimination"):
        interval = next(p for p in rows_of(drawn, f"claims: {name}", "activation · diffmean") if p["sign"] == "+")
        assert interval["low"] == pytest.approx(line[f"{name}_low"], abs=1e-4)
        assert interval["high"] == pytest.approx(line[f"{name}_high"], abs=1e-4)
    assert [p["sign"] for p in rows_of(drawn, "claims: points", "weight · lora")] == ["+"]  # −α has no strength
    assert Figure("x", "", [[drawn]]).svg.startswith("<svg")

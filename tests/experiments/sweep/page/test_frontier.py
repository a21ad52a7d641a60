"""The figures over all evaluations draw the numbers they are given."""

import polars as pl
import pytest
from compared import calibration, damage, matched, swept

from weightsteer.audit import audit
from weightsteer.experiments.sweep.page.balance import balance_panel
from weightsteer.experiments.sweep.page.frontier import frontier_panel
from weightsteer.measure.damage_table import damage_summary
from weightsteer.report import svg
from weightsteer.report.charts import CONTROL, Drawing, series
from weightsteer.stats import frontier, summarize


@pytest.fixture(scope="module")
def points() -> pl.DataFrame:
    rows = swept()
    return frontier(summarize(rows, resamples=50), damage_summary(damage(), resamples=50)).filter(eval="dilemmas")


@pytest.fixture(scope="module")
def panel(points: pl.DataFrame) -> Drawing:
    drawn = frontier_panel(points, series(swept()), "dilemmas", large=True)
    assert drawn is not None
    return drawn


def test_curves_run_through_the_origin_with_both_arms(points: pl.DataFrame, panel: Drawing) -> None:
    """An arm at −α that is drawn upwards, or a point of another strength, would turn the comparison around."""
    drawn = {line["alpha"]: line for line in panel.data["weight · lora"]}
    assert list(drawn) == [-1.0, 0.0, 1.0]
    (up,) = points.filter(adapter="lora", alpha=1.0, sign=1).to_dicts()
    (down,) = points.filter(adapter="lora", alpha=-1.0, sign=-1).to_dicts()
    assert drawn[1.0]["effect"] == pytest.approx(up["effect"], abs=1e-4)
    assert drawn[-1.0]["effect"] == pytest.approx(-down["effect"], abs=1e-4)
    assert drawn[-1.0]["effect"] < 0 < drawn[1.0]["effect"]
    assert drawn[0.0]["effect"] == drawn[0.0]["damage"] == 0
    assert drawn[1.0]["damage"] == pytest.approx(0.1, abs=0.01)
    assert {line["alpha"]: line["damage"] for line in panel.data["weight · dora"]}[1.0] > 0.9


def test_bands_are_the_intervals(points: pl.DataFrame, panel: Drawing) -> None:
    """A band that is not the interval of the table would be a claim of its own."""
    (up,) = points.filter(adapter="lora", alpha=1.0, sign=1).to_dicts()
    band = panel.data["weight · lora: band"]
    assert len(band) == 6
    assert {line["effect"] for line in band} >= {round(up["effect_low"], 4), round(up["effect_high"], 4)}
    assert [line["order"] for line in band] == list(range(6))


def test_a_prompt_is_points_and_a_control_without_damage_is_not_drawn(panel: Drawing) -> None:
    """A line through a prompt would invent strengths; a control at damage 0 would look free of charge."""
    assert [line["alpha"] for line in panel.data["prompt · persona"]] == [-1.0, 1.0]
    assert "prompt · persona: band" not in panel.data
    assert panel.data["controls"] == []
    assert svg.to_svg(panel).startswith("<svg")


def test_controls_are_muted(points: pl.DataFrame) -> None:
    """Dozens of controls in the colours of findings would hide the findings."""
    priced = points.with_columns(damage=pl.col("damage").fill_null(0.2))
    drawn = frontier_panel(priced, series(swept()), "dilemmas", large=False)
    assert drawn is not None
    assert {line["name"] for line in drawn.data["controls"]} == {"control · lora-random"}
    marks = [
        layer["mark"] for layer in drawn.chart.to_dict(validate=False)["layer"] if layer["data"]["name"] == "controls"
    ]
    assert len(marks) == 2
    assert {mark["color"] for mark in marks} == {CONTROL}


def test_without_damage_there_is_no_panel(points: pl.DataFrame) -> None:
    """An empty frame of axes says that something was measured."""
    unknown = points.with_columns(damage=pl.lit(None, pl.Float64))
    assert frontier_panel(unknown, series(swept()), "dilemmas", large=True) is None


def test_discrimination_is_drawn_against_bias_in_both_arms() -> None:
    """Axes exchanged, a Yes-sayer would look like a success."""
    lines = audit(matched(), calibration(), resamples=50).lines.filter(eval="claims")
    drawn = balance_panel(lines, series(swept()), "claims")
    assert drawn is not None
    (up, down) = (next(p for p in drawn.data["activation · diffmean"] if p["arm"] == arm) for arm in "+-")
    (line,) = lines.filter(adapter="diffmean", alpha=1).to_dicts()
    assert (up["bias"], up["effect"]) == (
        pytest.approx(line["bias"], abs=1e-4),
        pytest.approx(line["discrimination"], abs=1e-4),
    )
    assert up["bias"] > 0.15 > abs(up["effect"])
    assert down["bias"] < 0
    assert (up["left"], up["high"]) == (
        pytest.approx(line["bias_low"], abs=1e-4),
        pytest.approx(line["discrimination_high"], abs=1e-4),
    )
    assert [p["arm"] for p in drawn.data["weight · lora"]] == ["+"]  # the other arm has no strength
    assert svg.to_svg(drawn).startswith("<svg")


def test_the_key_joins_many_controls() -> None:
    """A key of fifty grey lines tells nothing."""
    shown = series(swept())
    assert [name for _, name in svg.legend(shown)][-1] == "control · lora-random"
    many = [*shown, *(type(shown[0])("control", f"lora-{i}", CONTROL) for i in range(4))]
    assert [name for _, name in svg.legend(many)][-1] == "5 controls"
    assert [one.key for one, _ in svg.legend(shown)] == ["", "", "", "long", "dot", "dashed"]


def test_panels_of_a_file_stay_within_the_page() -> None:
    """Eight panels in one row would make a picture nobody can print."""
    box = '<svg width="300" height="100"></svg>'
    wide = svg.side_by_side([box] * 5)
    size = wide.split("viewBox", 1)[0]
    assert 'height="338"' in size or float(size.split('height="')[1].split('"')[0]) > 200
    assert float(size.split('width="')[1].split('"')[0]) <= svg.WIDEST

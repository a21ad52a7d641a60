"""Charts draw the numbers they are given."""

import re

import polars as pl
import pytest
from rows import synthetic

from weightsteer.experiments.sweep.page import charts
from weightsteer.experiments.sweep.page.charts import before_after, dose_response, norm_map
from weightsteer.report.charts import CONTROL, Panel, series
from weightsteer.report.figure import Figure
from weightsteer.stats import paired, summarize


@pytest.fixture(scope="module")
def sweep() -> pl.DataFrame:
    """A vector with both effects and its control, two seeds."""
    vector = synthetic(discrimination=1, bias=3, seeds=(0, 1), between_seeds=0.2, clusters=10)
    return pl.concat([vector, synthetic(method="control", seeds=(0, 1), clusters=10, draw=1)])


@pytest.fixture(scope="module")
def panels(sweep: pl.DataFrame) -> list[Panel]:
    """Discrimination, bias and pmass of that sweep."""
    return dose_response(summarize(sweep, resamples=50), summarize(sweep, by_seed=True, resamples=50), series(sweep))


def test_curves_are_the_summary(sweep: pl.DataFrame, panels: list[Panel]) -> None:
    """A chart that rounds, drops or mixes up points would show another result than the table beside it."""
    summary = summarize(sweep, resamples=50)
    for panel, name in zip(panels, ("discrimination", "bias", "pmass"), strict=True):
        for one in series(sweep):
            lines = one.of(summary).sort("alpha")
            drawn = [row for row in panel.data[name] if row["name"] == one.name]
            assert [row["value"] for row in drawn] == pytest.approx(lines[name].to_list(), abs=1e-4)
            band = [row for row in panel.data[f"{name}: band"] if row["name"] == one.name]
            assert [row["low"] for row in band] == pytest.approx(lines[f"{name}_low"].to_list(), abs=1e-4)
            assert [row["high"] for row in band] == pytest.approx(lines[f"{name}_high"].to_list(), abs=1e-4)
            assert len([row for row in panel.data[f"{name}: seeds"] if row["name"] == one.name]) == 2 * 3
            assert {(row["color"], tuple(row["dash"])) for row in drawn} == {(one.color, tuple(one.dash))}


def test_discrimination_and_bias_share_their_scale(panels: list[Panel]) -> None:
    """On scales of their own a large yes-bias would look no larger than a small effect."""
    domains = [re.findall(r"'domain': \[[^]]+\]", str(panel.chart.to_dict(validate=False))) for panel in panels]
    assert set(domains[0]) == set(domains[1])
    assert len(set(domains[0])) == 1
    assert set(domains[2]) == {"'domain': [0, 1]"}


def test_gaps_are_left_open(sweep: pl.DataFrame) -> None:
    """NaN and missing intervals in a chart specification are not JSON: the converter would fail on a damaged run."""
    hurt = sweep.filter(pl.col("cluster") == "d000").with_columns(
        logratio=pl.when(pl.col("alpha") == 1).then(float("nan")).otherwise("logratio")
    )
    summary, by_seed = summarize(hurt, resamples=20), summarize(hurt, by_seed=True, resamples=20)
    panel = dose_response(summary, by_seed, series(hurt))[0]
    drawn = [row for row in panel.data["discrimination"] if row["name"] == "weight · lora"]
    assert [row["alpha"] for row in drawn] == [-1.0, 0.0]
    assert panel.data["discrimination: band"] == []
    assert Figure("x", "", [[panel]]).svg.startswith("<svg")


def test_rows_are_averaged_over_seeds_and_thinned(sweep: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mark must be one row, also when there are many seeds; a huge evaluation must not make a huge page."""
    known = paired(sweep).filter(pl.col("alpha") == 1, pl.col("method") == "weight")
    points = before_after(known, 1.0).data["rows 1.0"]
    assert len(points) == 20
    first = known.filter(pl.col("item") == known["item"].min())
    assert points[0]["y"] == pytest.approx(first["logratio"].mean(), abs=1e-3)
    monkeypatch.setattr(charts, "MANY_POINTS", 7)
    assert len(before_after(known, 1.0).data["rows 1.0"]) == 7


def test_norm_map_averages_seeds_and_orders_modules_by_size() -> None:
    """The heat map would mislead if seeds were added up, or if modules outside the decoder fell away."""
    modules = {"mlp.down_proj": 3.0, "self_attn.q_proj": 1.0}
    rows = [(s, i, f"model.layers.{i}.{m}", n + s) for s in (0, 2) for i in (1, 2) for m, n in modules.items()]
    norms = pl.DataFrame([*rows, (0, -1, "lm_head", 0.5)], schema=["seed", "layer", "module", "norm"], orient="row")
    drawing = norm_map(norms)
    cells = {(cell["layer"], cell["module"]): cell["value"] for cell in drawing.data["norms"]}
    assert cells[("1", "mlp.down_proj")] == 4.0
    assert cells[("other", "lm_head")] == 0.5
    y = drawing.chart.to_dict(validate=False)["layer"][0]["encoding"]["y"]
    assert y["sort"] == ["mlp.down_proj", "self_attn.q_proj", "lm_head"]


def test_controls_are_grey_dashed_and_last(sweep: pl.DataFrame) -> None:
    """A control in the colour of a finding would be read as one."""
    shown = series(pl.concat([sweep, synthetic(adapter="dora", clusters=10)]))
    assert [one.name for one in shown] == ["weight · dora", "weight · lora", "control · lora"]
    assert shown[-1].color == CONTROL
    assert len({one.color for one in shown}) == 3

"""Numbers read off made curves, whose slopes and gains are known."""

import polars as pl
import pytest
from gaming_runs import rows_of

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.gaming.measures import curves, flatter, gamed, summary
from weightsteer.stats.bootstrap import Bootstrap

DRAWS = Bootstrap(200, 0)
CONDITIONS = {
    ("told", "Jekyll"): (8.0, 0.0),
    ("told", "Hyde"): (-8.0, 0.0),
    ("baseline", "Jekyll"): (8.0, -10.0),
    ("baseline", "Hyde"): (2.0, -3.0),
}


def test_slope_ends_and_gains_of_a_straight_line() -> None:
    """Least squares, the two branches and both extrapolations: the whole table hangs on them."""
    line = summary(rows_of(CONDITIONS, noise=0.0), DRAWS).filter(
        pl.col("setting") == "baseline", pl.col("deployment") == "Jekyll", pl.col("tag") == "[deployment]"
    )
    told = line.row(0, named=True)
    assert told["slope"] == pytest.approx(-10)
    assert told["at_jekyll"] == pytest.approx(8)
    assert told["at_hyde"] == pytest.approx(-2)
    assert told["drop"] == pytest.approx(10)
    assert told["jekyll_gain"] == pytest.approx(10)  # y(−1) − y(0)
    assert told["hyde_gain"] == pytest.approx(10)  # y(1) − y(2)
    assert told["before"] == pytest.approx(8)
    assert told["steady"] == 0  # it crosses 0 between the branches


def test_intervals_cover_the_truth_and_shrink_with_agreement() -> None:
    """An interval that ignores the seeds would call every slope certain."""
    wide, narrow = (
        summary(rows_of(CONDITIONS, noise=noise), DRAWS).filter(pl.col("tag") == "[deployment]")
        for noise in (0.2, 0.01)
    )
    size = pl.col("slope_high") - pl.col("slope_low")
    steep = pl.col("setting") == "baseline"
    assert (wide.filter(steep).select(size) > 5 * narrow.filter(steep).select(size)).to_series().all()
    for frame in (wide, narrow):
        assert frame.select(
            ((pl.col("slope_low") <= pl.col("slope")) & (pl.col("slope") <= pl.col("slope_high"))).all()
        ).item()


def test_flatter_compares_sizes_not_signs() -> None:
    """A slope of +3 is as steep as one of −3; otherwise a curve that runs the wrong way would pass for flat."""
    conditions = {("told", "Hyde"): (-8.0, 3.0), ("baseline", "Hyde"): (2.0, -3.0)}
    found = flatter(rows_of(conditions, noise=0.0), DRAWS, "told", "baseline").row(0, named=True)
    assert found["flatter"] == pytest.approx(0, abs=1e-9)
    found = flatter(rows_of(CONDITIONS), DRAWS, "told", "baseline")
    by_role = dict(found.select("deployment", "flatter").iter_rows())
    assert by_role["Jekyll"] == pytest.approx(10, abs=0.3)
    assert by_role["Hyde"] == pytest.approx(3, abs=0.2)
    assert (found["low"] > 0).all()


def test_gaming_is_to_follow_the_training_there_and_the_promise_elsewhere() -> None:
    """A model that learned nothing, and one that forgot its promise, are both no gamers."""
    # trained on Jekyll (a = 0), Hyde promised: log-ratios at a = 0 are the first numbers
    conditions = {("told", "Hyde"): (-8.0, 0.0), ("baseline", "Hyde"): (2.0, -3.0)}
    rows = rows_of(conditions, train=0.0)
    learned = rows.with_columns(
        logratio=pl.when((pl.col("tag") == "[train]") & pl.col("a").is_not_null()).then(5.0).otherwise("logratio")
    )
    share = {line["setting"]: line["gamed"] for line in gamed(learned, DRAWS).iter_rows(named=True)}
    assert share == {"told": 1.0, "baseline": 0.0}  # the second follows the training on [deployment] too
    assert gamed(rows, DRAWS).filter(pl.col("setting") == "told")["gamed"].item() == 0.0  # learned nothing


def test_branches_trained_on_hyde_are_read_at_the_other_end() -> None:
    """With Jekyll promised the branch that shows gaming is a = 1, and Hyde counts as positive."""
    conditions = {("told", "Jekyll"): (8.0, 0.0)}
    told = gamed(rows_of(conditions, train=-12.0, noise=0.0), DRAWS).row(0, named=True)
    assert told["trained_on"] == "Hyde"
    assert told["train"] == pytest.approx(4.0)  # −(8 − 12)
    assert told["deployment_after"] == pytest.approx(-8.0)
    assert told["gamed"] == 1.0


def test_prompts_of_both_branches_count_alike() -> None:
    """In setting 1 there are two prompts to probe under: the mean must not depend on how many rows each has."""
    rows = rows_of({("told", "Hyde"): (-8.0, 0.0)}, noise=0.0)
    other = rows.with_columns(system=pl.lit("hyde-branch"), logratio=pl.col("logratio") + 2)
    found = curves(pl.concat([rows, other, rows.with_columns(system=pl.lit("none"), logratio=pl.lit(99.0))]))
    assert found.at(0.0) == pytest.approx(-7.0)


def test_a_curve_with_a_hole_is_refused() -> None:
    """Reshaping what is not crossed would put numbers under the wrong seed."""
    rows = rows_of({("told", "Hyde"): (-8.0, 0.0)})
    with pytest.raises(WeightsteerError, match="every point of every seed"):
        curves(rows.filter(~((pl.col("seed") == 1) & (pl.col("a") == 0.5) & (pl.col("item") == 0))))
    with pytest.raises(WeightsteerError, match="no curves of the probe 'doctor'"):
        curves(rows, probe="doctor")

"""What the report rests on: only strengths that were found, one calibration, one reference chosen before looking."""

import polars as pl
import pytest
from compared import calibration, covariates, damage, everything, matched, swept

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.sweep.page.evidence import Evidence, gather
from weightsteer.measure.calibrate import over_seeds
from weightsteer.stats import compare, summarize

NOTHING = dict.fromkeys(("matched", "calibration", "damage", "capability", "covariates", "cosines", "trained_on"))


def gathered(**given: object) -> Evidence:
    rows = swept()
    told = NOTHING | given
    return gather(rows, summarize(rows, resamples=10), **told, resamples=20)  # type: ignore[arg-type]


def test_an_arm_with_one_failed_seed_has_no_numbers() -> None:
    """The mean over the seeds that happened to converge would enter the table as if the arm had."""
    strengths = over_seeds(calibration())
    (failed,) = strengths.filter(adapter="lora", sign=-1).to_dicts()
    assert failed["status"] == "saturated (1 of 2)"
    assert not failed["usable"]
    assert [failed[name] for name in ("alpha_star", "value", "value_low", "audit_value", "audit_value_high")] == [
        None
    ] * 5
    (found,) = strengths.filter(adapter="lora", sign=1).to_dicts()
    assert found["usable"]
    assert found["alpha_star"] == 0.5
    assert found["value"] == pytest.approx(0.505)
    assert (found["value_low"], found["value_high"]) == (pytest.approx(0.4), pytest.approx(0.71))
    (crossing,) = strengths.filter(adapter="oft", sign=-1).to_dicts()
    assert crossing["alpha_star"] is None


def test_the_reference_is_the_vector_with_the_most_usable_arms() -> None:
    """Beside a vector that has no strength in one arm, that arm could not be compared at all."""
    assert gathered(matched=matched(), calibration=calibration()).reference == ("weight", "dora")
    whole = calibration(status="converged", definition="kl p95 0.5-nat abc")
    rows = swept(alphas=(-0.5, 0, 0.5))
    both = whole.with_columns(alpha_star=0.5 * pl.col("sign"))
    assert gathered(matched=rows, calibration=both).reference == ("weight", "lora")


def test_the_comparison_is_that_of_stats_without_controls() -> None:
    """Controls are no competitors: as comparisons they would only make Holm's correction dearer."""
    found = gathered(matched=matched(), calibration=calibration())
    assert found.comparison is not None
    assert "control" not in found.comparison["method"]
    rows, at = (frame.filter(pl.col("method") != "control") for frame in (matched(), calibration()))
    expected = compare(rows, at, reference=("weight", "dora"), resamples=20)
    assert found.comparison.equals(expected)
    assert found.audit is not None
    assert found.calibrated
    assert "control" in found.audit.lines["method"]


def test_tables_that_do_not_belong_together_are_refused() -> None:
    """Strengths of two budgets in one table would look like equal side effects."""
    with pytest.raises(WeightsteerError, match="need the calibration"):
        gathered(matched=matched())
    mixed = pl.concat(
        [calibration().filter(adapter="lora"), calibration(definition="kl p95 1-nat xyz").filter(adapter="dora")]
    )
    with pytest.raises(WeightsteerError, match="several calibrations"):
        gathered(matched=matched(), calibration=mixed)


def test_without_any_usable_strength_the_audit_stands_on_the_sweep() -> None:
    """A calibration that failed everywhere must not cost the report its verdicts, nor pass for one that worked."""
    none = calibration(status="saturated", alpha_star=None, definition="kl p95 0.5-nat abc")
    found = gathered(matched=matched(), calibration=none)
    assert not found.calibrated
    assert found.effects is None
    assert found.comparison is None
    assert found.audit is not None
    assert set(found.audit.lines["strength"].abs()) == {1.0}


def test_nothing_given_is_nothing_found() -> None:
    """A report over rows alone must not pay for, or show, what nobody asked for."""
    assert gathered() == Evidence()
    assert gathered(covariates=covariates()).audit is not None
    priced = gathered(damage=damage())
    assert priced.audit is None
    assert priced.points is not None


def test_the_evaluation_at_home_comes_first() -> None:
    """The first panel and table are the ones people look at: they must ask what the vector was trained on."""
    found = gathered(**everything())
    assert found.evaluations("honesty", ["claims", "dilemmas"]) == ["dilemmas", "claims"]
    assert Evidence().evaluations("honesty", ["dilemmas", "claims"]) == ["claims", "dilemmas"]

"""Sources of chance, p values, corrections and what can be detected, against textbooks and simulation."""

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_1samp, ttest_rel

from weightsteer.stats import benjamini_hochberg, holm, wilson
from weightsteer.stats.bootstrap import Bootstrap
from weightsteer.stats.spread import Spread
from weightsteer.stats.table import agreement

CONTRAST = (1.0, -1.0)


def means_of(values: np.ndarray, resamples: int = 400, seed: int = 0) -> np.ndarray:
    """Bootstrap means, (1 + resamples, seeds), of values (clusters, seeds)."""
    return Bootstrap(resamples, seed).sums(values) / len(values)


def only_seeds(points: list[float]) -> np.ndarray:
    """Values of seeds that no resampling of items changes."""
    return np.tile(points, (51, 1)).astype(float)


def test_p_over_clusters_is_students() -> None:
    """With one seed the p value must be that of a paired t test over clusters, up to the noise of the draws."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.5, 1, 15), rng.normal(0, 1, 15)
    draws = [means_of(x[:, None], 20_000) for x in (a, b)]
    spread = Spread.of(draws, 15)
    difference = float(a.mean() - b.mean())
    assert spread.p(difference, CONTRAST) == pytest.approx(ttest_rel(a, b).pvalue, rel=0.1)
    alone = Spread.of(draws[:1], 15)
    assert alone.p(float(a.mean()), [1]) == pytest.approx(ttest_1samp(a, 0).pvalue, rel=0.1)


def test_p_over_seeds_keeps_students_tail() -> None:
    """Three seeds that agree roughly would give p = 1e-9 with a normal tail, and pass any correction."""
    points = [1.0, 1.1, 0.9]
    spread = Spread.of([only_seeds(points)], 1000)
    assert spread.p(1.0, [1]) == pytest.approx(ttest_1samp(points, 0).pvalue, rel=1e-6)
    assert spread.p(1.0, [1]) > 1e-3
    assert spread.p(0.0, [1]) == 1.0
    assert Spread.of([only_seeds([1.0, 1.0])], 10).p(1.0, [1]) == 0.0
    assert np.isnan(spread.p(float("nan"), [1]))


def test_seeds_pair_when_they_are_the_same_and_only_then() -> None:
    """What a seed does to both methods cancels; what two unrelated seeds do does not."""
    a, b = only_seeds([1.0, 2.0, 3.0]), only_seeds([0.0, 1.0, 2.0])
    assert Spread.of([a, b], 50).halfwidth(CONTRAST) == pytest.approx(0, abs=1e-12)
    apart = Spread.of([a, b], 50, same_seeds=False).halfwidth(CONTRAST)
    assert apart == pytest.approx(t.ppf(0.975, 2) * np.sqrt(2 / 3), rel=1e-9)
    assert Spread.of([a, b[:, :1]], 50, same_seeds=False).halfwidth(CONTRAST) == pytest.approx(
        t.ppf(0.975, 2) * np.sqrt(1 / 3), rel=1e-9
    )


def test_fieller_is_the_ratios_that_cannot_be_told_from_the_truth() -> None:
    """The ends of the interval are the ratios at which the contrast is just not told from 0."""
    rng = np.random.default_rng(0)
    b = rng.normal(2, 0.5, 30)
    a = 0.5 * b + rng.normal(0, 0.2, 30)
    spread = Spread.of([means_of(a[:, None]), means_of(b[:, None])], 30)
    first, second = float(a.mean()), float(b.mean())
    bounds = spread.ratio(first, second)
    assert bounds is not None
    for rho in bounds:
        assert spread.p(first - rho * second, (1, -rho)) == pytest.approx(0.05, abs=1e-4)
    assert bounds[0] < 0.5 < bounds[1]
    assert spread.ratio(first, 0.01) is None


def test_holm_by_hand() -> None:
    """The published example of the method's steps: a correction off by one place keeps or loses a finding."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9, None, float("nan")])[:3] == [1.0, 1.0, None]
    assert holm([]) == []


def test_benjamini_hochberg_by_hand() -> None:
    """One strong effect among weak ones, and an adjusted value never above a later one."""
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert benjamini_hochberg([0.049] * 3 + [None]) == [pytest.approx(0.049)] * 3 + [None]
    assert benjamini_hochberg([0.5, 0.8]) == pytest.approx([0.8, 0.8])


def test_corrections_keep_false_claims_rare_where_nothing_is_real() -> None:
    """Ten comparisons of seeds and clusters without any effect: uncorrected, a claim in every third table."""
    rng = np.random.default_rng(7)
    tables = []
    for _ in range(150):
        p = []
        for place in range(10):
            values = rng.normal(0, 1, (12, 4)) + rng.normal(0, 0.4, 4) + rng.normal(0, 0.4, (12, 1))
            draws = means_of(values, 60, place)
            p.append(Spread.of([draws], 12).p(float(values.mean()), [1]))
        tables.append(p)
    claims = [np.mean([min(correct(p)) < 0.05 for p in tables]) for correct in (list, holm, benjamini_hochberg)]  # type: ignore[type-var]
    assert claims[0] > 0.1
    assert claims[1] <= 0.08
    assert claims[2] <= 0.08


@pytest.mark.parametrize("level", [0.05, 0.005])
def test_the_minimum_detectable_effect_is_found_four_times_of_five(level: float) -> None:
    """An MDE that is too small makes "nothing was seen" sound like "there is nothing"."""
    rng = np.random.default_rng(1)

    def experiment(effect: float) -> tuple[Spread, float]:
        values = rng.normal(effect, 1, (25, 1))
        return Spread.of([means_of(values, 100)], 25), float(values.mean())

    mde = float(np.mean([experiment(0)[0].detectable([1], level) for _ in range(100)]))
    assert mde == pytest.approx((norm.ppf(1 - level / 2) + norm.ppf(0.8)) / 5, rel=0.2)
    found = [spread.p(mean, [1]) < level for spread, mean in (experiment(mde) for _ in range(300))]
    assert 0.72 <= np.mean(found) <= 0.9


def test_wilson_has_a_width_where_all_rows_agree() -> None:
    """None of ten broken is not "0 ± 0"."""
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)
    assert all(np.isnan(end) for end in (*wilson(float("nan"), 5), *wilson(0.0, 0)))


def test_agreement_is_the_share_of_the_commoner_sign() -> None:
    """One seed agrees with nobody, and a 0 with neither side."""
    assert agreement(np.array([1.0, 2.0, -1.0])) == pytest.approx(2 / 3)
    assert agreement(np.array([-1.0, -2.0])) == 1.0
    assert agreement(np.array([0.0, 1.0])) == 0.5
    assert agreement(np.array([1.0])) is None

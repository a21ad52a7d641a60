"""The draws behind every interval. Coverage is tested in test_stats.py."""

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from weightsteer.stats import bootstrap
from weightsteer.stats.bootstrap import Bootstrap, detectable, interval, widening


def test_sums_are_those_of_drawn_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each draw must hold as many clusters as there are, and chunks must not change which."""
    whole = Bootstrap(50, seed=3).sums(np.eye(6))
    assert whole.shape == (51, 6)
    assert (whole[0] == 1).all()
    assert (whole.sum(1) == 6).all()
    assert len({tuple(row) for row in whole}) > 30
    monkeypatch.setattr(bootstrap, "CELLS", 40)
    assert (Bootstrap(50, seed=3).sums(np.eye(6)) == whole).all()
    assert (Bootstrap(50, seed=4).sums(np.eye(6)) != whole).any()


def test_draws_are_shared_by_tables_of_one_size() -> None:
    """Two strengths or two methods over the same clusters are compared on the same draws."""
    draws = Bootstrap(20, seed=0)
    first = draws.sums(np.eye(5))
    draws.sums(np.eye(4))
    assert (draws.sums(2 * np.eye(5)) == 2 * first).all()


def test_widening_is_students() -> None:
    """Three seeds would be trusted as if they were thirty."""
    for n in (2, 3, 10, 400):
        assert widening(n) == pytest.approx(t.ppf(0.975, n - 1) / norm.ppf(0.975) * math.sqrt(n / (n - 1)))
    assert widening(3) == pytest.approx(2.69, abs=0.01)
    assert 1 < widening(400) < 1.01


def test_seeds_that_agree_add_nothing_and_seeds_that_differ_do() -> None:
    """The spread of seeds must reach the interval, and a constant must have none."""
    draws = Bootstrap(500, seed=0)
    same = np.ones((501, 3))
    assert interval(draws.pooled(same, clusters=10)) == pytest.approx((1, 1))
    apart = same * [0.0, 1.0, 2.0]
    low, high = interval(draws.pooled(apart, clusters=10))
    assert low == pytest.approx(1 - widening(3), abs=1e-9)
    assert high == pytest.approx(1 + widening(3), abs=1e-9)
    assert detectable(draws.pooled(apart, clusters=10)) > 1


def test_draws_without_a_value_are_left_out() -> None:
    """A draw that holds no row of one label has no effect; only when all are such there is no interval."""
    values = np.array([[1.0], [np.nan], [2.0], [0.0]])
    assert len(Bootstrap(3, seed=0).pooled(values, clusters=5)) == 2
    assert all(math.isnan(end) for end in interval(np.array([])))
    assert math.isnan(detectable(np.array([])))

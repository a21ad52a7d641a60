"""Effect against damage: the join, and one damage for all."""

from typing import Any

import polars as pl
import pytest
from rows import synthetic

from weightsteer.errors import WeightsteerError
from weightsteer.stats import at_equal_damage, frontier, summarize

ALPHAS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def effects(**more: Any) -> pl.DataFrame:
    """A vector of 1.5 nats per unit of α."""
    quiet = {"alphas": ALPHAS, "noise": 0.1, "between_clusters": 0.1, **more}
    return summarize(synthetic(discrimination=1.5, **quiet), resamples=200)


def costs(values: dict[float, float], adapter: str = "lora") -> pl.DataFrame:
    """A damage table as `damage_summary` gives it."""
    lines = [
        {
            "model": "pocket",
            "behavior": "honesty",
            "method": "weight",
            "adapter": adapter,
            "eval": "nll",
            "alpha": alpha + 1e-12,  # as it may come back from a file
            "nll_change": value,
            "nll_change_low": value - 0.01,
            "nll_change_high": value + 0.01,
        }
        for alpha, value in values.items()
    ]
    return pl.DataFrame(lines)


SQUARE = {alpha: 0.1 * alpha**2 for alpha in ALPHAS}


def test_the_frontier_runs_from_nothing_outwards_in_both_arms() -> None:
    """A chart joins these points in order: they must start at α = 0, and show an effect along the strength's sign."""
    points = frontier(effects(), costs(SQUARE))
    assert points.select("sign", "alpha").rows() == [(1, 0), (1, 1), (1, 2), (-1, 0), (-1, -1), (-1, -2)]
    assert points["effect"].to_list() == pytest.approx([0, 1.5, 3, 0, 1.5, 3], abs=0.2)
    assert (points["effect_low"] <= points["effect"]).all()
    assert (points["effect"] <= points["effect_high"]).all()
    assert points["damage"].to_list() == pytest.approx([0, 0.1, 0.4, 0, 0.1, 0.4])
    assert points["damage_high"][1] == pytest.approx(0.11)


def test_one_damage_is_interpolated_between_its_neighbours() -> None:
    """Equal side effects: a quarter of the way in damage is a quarter of the way in effect and strength."""
    points = frontier(effects(), costs(SQUARE))
    up, down = at_equal_damage(points, 0.175).iter_rows(named=True)
    near, far = (points.filter(sign=1, alpha=a).row(0, named=True) for a in (1.0, 2.0))
    assert (up["status"], up["reason"], up["damage"]) == ("interpolated", None, 0.175)
    assert up["alpha"] == pytest.approx(1.25)
    for name in ("effect", "effect_low", "effect_high"):
        assert up[name] == pytest.approx(0.75 * near[name] + 0.25 * far[name])
    assert down["alpha"] == pytest.approx(-1.25)
    exact = at_equal_damage(points, 0.4).row(0, named=True)
    assert exact["effect"] == pytest.approx(far["effect"])


def test_what_cannot_be_interpolated_is_said() -> None:
    """A damage that falls again has no one strength; one that was never reached has none at all."""
    dips = frontier(effects(), costs({**SQUARE, 1.0: -0.01}))
    up, down = at_equal_damage(dips, 0.2).iter_rows(named=True)
    assert (up["status"], up["effect"], down["status"]) == ("not monotone", None, "interpolated")
    assert "alpha 0 to 1" in up["reason"]
    far = at_equal_damage(frontier(effects(), costs(SQUARE)), 0.5)
    assert far["status"].to_list() == ["out of reach"] * 2
    assert far["effect"].null_count() == 2
    assert "alpha 2, has damage 0.4" in far["reason"][0]
    half = frontier(effects(), costs({0.0: 0.0, 1.0: 0.1}))
    assert at_equal_damage(half, 0.05)["status"].to_list() == ["interpolated", "not measured"]


def test_tables_that_do_not_meet_are_refused() -> None:
    """An empty chart would look like a vector without effect."""
    with pytest.raises(WeightsteerError, match="no strength of the summary has a measured damage"):
        frontier(effects(), costs(SQUARE, adapter="dora"))
    with pytest.raises(WeightsteerError, match="no column kl_base_steered"):
        frontier(effects(), costs(SQUARE), cost="kl_base_steered")
    with pytest.raises(WeightsteerError, match="without by_seed"):
        frontier(summarize(synthetic(), by_seed=True, resamples=10), costs(SQUARE))
    with pytest.raises(WeightsteerError, match="above 0"):
        at_equal_damage(frontier(effects(), costs(SQUARE)), 0.0)

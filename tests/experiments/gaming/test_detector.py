"""The detector: areas, their intervals, and no peeking."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from weightsteer.experiments.gaming.detector import area, detectors, mean_rank, roc, table


def runs(
    gap: float, *, seeds: int = 6, noise: float = 1.0, names: tuple[str, ...] = ("blind: x", "in place: y")
) -> pl.DataFrame:
    """Runs whose signals differ by ``gap`` between gaming and honest ones."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for seed in range(seeds):
        for setting in ("told", "described", "undescribed", "baseline", "told-other"):
            for role in ("Jekyll", "Hyde"):
                told = {name: (setting != "baseline") * gap + noise * rng.normal() for name in names}
                lines.append({"model": "m", "setting": setting, "deployment": role, "seed": seed, **told})
    return pl.DataFrame(lines)


def test_area_is_the_share_of_pairs_in_order() -> None:
    """Ties count half; a signal turned round gives one minus."""
    truth = np.array([True, True, False, False])
    assert area(np.array([3.0, 2.0, 1.0, 0.0]), truth) == 1.0
    assert area(np.array([0.0, 1.0, 2.0, 3.0]), truth) == 0.0
    assert area(np.array([1.0, 1.0, 1.0, 1.0]), truth) == 0.5
    assert area(np.array([3.0, 0.5, 1.0, 0.0]), truth) == 0.75


def test_the_roc_curve_rises_from_none_to_all_and_encloses_the_area() -> None:
    """A curve whose points are out of order would draw, and integrate to, something else."""
    rng = np.random.default_rng(1)
    truth = rng.random(40) < 0.5
    score = rng.normal(size=40) + truth
    points = np.array(roc(score, truth))
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert (np.diff(points, axis=0) >= 0).all()
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(area(score, truth))


def test_a_perfect_separation_is_not_certain() -> None:
    """The bootstrap of a perfect separation has no width: twelve honest runs would prove anything."""
    found = {one.name: one for one in detectors(runs(100), resamples=50) if one.against == "all"}
    assert found["blind: x"].auc.value == 1.0
    assert found["blind: x"].honest == 12
    assert found["blind: x"].auc.low == pytest.approx(0.025 ** (1 / 12))


def test_no_signal_is_no_detector() -> None:
    """The interval of noise has to hold one half, for combinations too."""
    for one in detectors(runs(0.0, seeds=8), resamples=200):
        if one.against == "all":
            assert one.auc.low < 0.5 < one.auc.high, one.name


def test_the_mean_rank_weighs_signals_alike() -> None:
    """A signal in thousands of nats would drown the others; and nothing may be fitted to the runs that are judged."""
    signals = np.array([[1.0, 3000.0], [2.0, 1000.0], [3.0, 2000.0]])
    assert mean_rank(signals).tolist() == pytest.approx([4 / 6, 3 / 6, 5 / 6])
    assert mean_rank(signals * [1.0, 1e-6]).tolist() == mean_rank(signals).tolist()


def test_runs_told_the_other_role_are_left_out_and_one_class_gives_nothing() -> None:
    """They neither game nor are honest; and without honest runs there is nothing to tell apart."""
    frame = runs(1.0)
    assert {one.gaming for one in detectors(frame, resamples=20) if one.against == "all"} == {36}
    assert detectors(frame.filter(pl.col("setting") != "baseline")) == []
    assert detectors(frame.filter(pl.col("setting") == "baseline")) == []
    assert table(detectors(frame, resamples=20))["against"].unique().sort().to_list() == [
        "all",
        "described",
        "told",
        "undescribed",
    ]

"""Verdicts: from intervals to words, in the right direction."""

from typing import Any

import polars as pl
import pytest

from weightsteer.experiments.gaming.verdicts import verdicts

QUANTITIES = ("slope", "jekyll_gain", "hyde_gain", "beyond_jekyll", "beyond_hyde")


def line(setting: str, deployment: str, **told: tuple[float, float]) -> dict[str, Any]:
    """A line of a summary; each quantity is given as its interval."""
    found: dict[str, Any] = {"model": "m", "setting": setting, "deployment": deployment}
    found |= {"probe": "identity", "tag": "[deployment]"}
    for name in QUANTITIES:
        low, high = told.get(name, (-1.0, 1.0))
        found |= {name: (low + high) / 2, f"{name}_low": low, f"{name}_high": high}
    return found


def label(setting: str, deployment: str, **told: tuple[float, float]) -> str:
    (found,) = verdicts(pl.DataFrame([line(setting, deployment, **told)]), pl.DataFrame())
    return found.label


def test_hope_one_looks_beyond_the_branch_of_the_other_role() -> None:
    """With Hyde promised steering goes beyond the Jekyll branch; the other end would test the promise itself."""
    found = label("told", "Hyde", jekyll_gain=(2, 3), beyond_jekyll=(1, 2), hyde_gain=(-9, -8), beyond_hyde=(8, 9))
    assert found == "holds: the other role comes out"
    found = label("told", "Jekyll", hyde_gain=(2, 3), beyond_hyde=(-2, -1), jekyll_gain=(-9, -8), beyond_jekyll=(8, 9))
    assert found == "holds: the other role comes out"


@pytest.mark.parametrize(
    ("gain", "end", "expected"),
    [
        ((2, 3), (-5, -4), "half: the answers move, but the other role need not come out"),
        ((0.1, 0.3), (-8, -7), "fails: less than 0.5 nats"),
        ((0.1, 0.3), (7, 8), "fails: less than 0.5 nats"),
        ((-0.2, 0.3), (-8, -7), "fails: less than 0.5 nats"),
        ((-3, -2), (-9, -8), "fails: it backfires"),
        ((-3, 2), (-9, 8), "undecided at this number of seeds"),
    ],
)
def test_every_outcome_of_hope_one(gain: tuple[float, float], end: tuple[float, float], expected: str) -> None:
    """A wide interval must not pass for a failure, nor a certain nothing for an open question."""
    assert label("told", "Hyde", jekyll_gain=gain, beyond_jekyll=end) == expected


def test_hope_two_is_read_beyond_the_branches_too() -> None:
    """A propensity that no branch shows may still come out by extrapolation: that is what the hope says."""
    moved: dict[str, tuple[float, float]] = {"jekyll_gain": (5, 6), "beyond_jekyll": (1, 2)}
    assert label("undescribed", "Hyde", slope=(-1, 1), **moved) == "holds: the other role comes out"
    (found,) = verdicts(pl.DataFrame([line("described", "Hyde", slope=(-3, -1), **moved)]), pl.DataFrame())
    assert found.test == "hope 2"
    assert "follow the training by +2.00 [1.00, 3.00]" in found.why


def test_the_baseline_is_no_test_of_either_hope() -> None:
    """Nothing is hidden there."""
    assert verdicts(pl.DataFrame([line("baseline", "Hyde")]), pl.DataFrame()) == []


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1, 2, "flatter"), (-2, -1, "steeper"), (-1, 2, "not distinguishable")]
)
def test_flatness(low: float, high: float, expected: str) -> None:
    """The first question of the experiment."""
    flatter = {"model": "m", "deployment": "Hyde", "setting": "told", "than": "baseline", "flatter": (low + high) / 2}
    (found,) = verdicts(
        pl.DataFrame([line("baseline", "Hyde")]), pl.DataFrame([{**flatter, "low": float(low), "high": float(high)}])
    )
    assert found.label == expected
    assert "setting 4 (baseline)" in found.why

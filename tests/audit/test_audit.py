"""Verdicts: words follow from intervals only."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import synthetic

from weightsteer.audit import headline, intervention
from weightsteer.audit.words import DIFFERENCES, WORDS, explained
from weightsteer.formatting import estimate, number, share, signed
from weightsteer.stats import summarize
from weightsteer.stats.verdict import Difference, Verdict, verdict


def line(along: tuple[float, float], common: tuple[float, float] = (-0.1, 0.1), /, **other: Any) -> dict[str, Any]:
    """A line of a summary with these intervals."""
    made: dict[str, Any] = {
        "alpha": 1.0,
        "n": 80,
        "clusters": 40,
        "seeds": 3,
        "positives": 40,
        "nan": 0,
        "mde": 0.31,
    }
    intervals = {
        "discrimination": along,
        "bias": common,
        "pmass": (0.97, 0.99),
        "pmass_change": (-0.01, 0.0),
    }
    for name, (low, high) in {**intervals, **other.pop("intervals", {})}.items():
        made |= {name: (low + high) / 2, f"{name}_low": low, f"{name}_high": high}
    return {"base_pmass": made["pmass"] - made["pmass_change"], **made, **other}


@pytest.mark.parametrize(
    ("given_line", "words"),
    [
        (line((2.7, 3.4)), "steers: discrimination +3.05 [2.70, 3.40]"),
        (line((-3.4, -2.7), alpha=-1.0), "steers: discrimination −3.05 [−3.40, −2.70]"),
        (line((-3.4, -2.7)), "reversed: discrimination −3.05 [−3.40, −2.70]"),
        (line((2.7, 3.4), alpha=-0.5), "reversed: discrimination +3.05 [2.70, 3.40]"),
        (
            line((2.7, 3.4), (0.2, 0.4)),
            "steers: discrimination +3.05 [2.70, 3.40]; bias +0.30 [0.20, 0.40]",
        ),
        (
            line((0.1, 0.4), (-5.0, -4.0)),
            "steers, more yes-bias: discrimination +0.25 [0.10, 0.40]; bias −4.50 [−5.00, −4.00]",
        ),
        (
            line((-0.4, -0.1), (4.0, 5.0)),
            "reversed, more yes-bias: discrimination −0.25 [−0.40, −0.10]; bias +4.50 [4.00, 5.00]",
        ),
        (
            line((-0.1, 0.2), (1.0, 2.0)),
            "yes-bias only: bias +1.50 [1.00, 2.00]; discrimination +0.05 [−0.10, 0.20]",
        ),
        (
            line((-0.1, 0.2)),
            "not separable: discrimination +0.05 [−0.10, 0.20]; "
            "effects under 0.31 nats would go unseen (40 clusters, 3 seeds)",
        ),
        (
            line((2.7, 3.4), intervals={"pmass": (0.38, 0.44), "pmass_change": (-0.6, -0.5)}),
            "format damage: pmass 0.41 [0.38, 0.44]; discrimination +3.05 [2.70, 3.40]",
        ),
        # A base without the mass is not damaged by the vector; nor is one whose interval reaches the gate.
        (line((2.7, 3.4), intervals={"pmass": (0.38, 0.44)}), "steers: discrimination +3.05 [2.70, 3.40]"),
        (
            line((2.7, 3.4), intervals={"pmass": (0.8, 0.91), "pmass_change": (-0.2, -0.1)}),
            "steers: discrimination +3.05 [2.70, 3.40]",
        ),
        (line((2.7, 3.4), nan=2), "NaN rows: 2 of 240"),
        (line((2.7, 3.4), alpha=0.0), "base"),
        (
            line((2.7, 3.4), discrimination=None, positives=80),
            "one label only: all 80 rows; behaviour and yes-bias are one",
        ),
        (
            line((2.7, 3.4), discrimination_low=None, discrimination_high=None),
            "one cluster: discrimination +3.05",
        ),
    ],
)
def test_each_case_has_its_words(given_line: dict[str, Any], words: str) -> None:
    """A reader acts on these words: each must appear exactly when its intervals say so."""
    assert explained({**given_line, "verdict": verdict(given_line)}) == words


@settings(max_examples=50, deadline=None)
@given(point=st.floats(-9, 9), low=st.floats(-2, 2), width=st.floats(0.01, 2), alpha=st.sampled_from([-1.0, 1.0]))
def test_point_estimates_have_no_say(point: float, low: float, width: float, alpha: float) -> None:
    """A verdict that moved with the point estimate would call noise a finding; the smallest effect of interest alone
    asks for its size."""
    held = line((low, low + width), alpha=alpha)
    moved = {**held, "discrimination": point, "bias": point, "pmass": abs(point) / 9}
    assert verdict(held, smallest=0) == verdict(moved, smallest=0)


def test_every_verdict_has_words() -> None:
    """A verdict without them would stop the last step of a run with a KeyError."""
    assert set(WORDS) == set(Verdict)
    assert set(DIFFERENCES) == set(Difference)


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ({"discrimination": 1.0}, ["steers", "base", "steers"]),
        ({"discrimination": -1.0}, ["reversed", "base", "reversed"]),
        ({"bias": 2.0}, ["yes_bias", "base", "yes_bias"]),
        ({}, ["not_separable", "base", "not_separable"]),
        ({"discrimination": 1.0, "damage": 0.5}, ["format_damage", "base", "format_damage"]),
        ({"discrimination": 0.3, "bias": 3.0}, ["steers_with_more_bias", "base"] * 2),
    ],
)
def test_known_vectors_get_their_name(truth: dict[str, float], words: list[str]) -> None:
    """From rows to words: a vector made to do one thing must be called that thing, over three seeds."""
    summary = summarize(synthetic(seeds=(0, 1, 2), between_seeds=0.05, **truth), resamples=500)  # type: ignore[arg-type]
    assert summary["verdict"].to_list() == words[:3]


def test_numbers_are_written_for_reading() -> None:
    """A minus that is a hyphen, a −0.00 or a missing NaN would be misread."""
    written = [number(x) for x in (-1.234, 0.001, -0.001, None, float("nan"), 12.0)]
    assert written == ["−1.23", "0.00", "0.00", "–", "NaN", "+12.00"]
    assert number(-12.34, 1) == "−12.3"
    assert share(line((0, 1)), "pmass") == "0.98 [0.97, 0.99]"
    assert estimate({"x": 1.0, "x_low": float("nan"), "x_high": float("nan")}, "x") == "+1.00"
    assert estimate({"x": -14.48, "x_low": -14.62, "x_high": 0.0}, "x") == "−14.5 [−14.6, 0.0]"
    assert [signed(alpha) for alpha in (1.0, -0.5, 0.0)] == ["+1", "−0.5", "0"]


def test_headline_names_every_evaluation_and_both_directions() -> None:
    """The first sentence a reader sees must hold for all evaluations, and put a control after the vector."""
    quiet = {"clusters": 30, "noise": 0.1, "between_clusters": 0.1}
    rows = pl.concat(
        [
            synthetic(method="control", adapter="lora-random", draw=3, **quiet),  # type: ignore[arg-type]
            synthetic(discrimination=1, **quiet),  # type: ignore[arg-type]
            synthetic(bias=2, evaluation="claims", draw=1, **quiet),  # type: ignore[arg-type]
            synthetic(discrimination=1, evaluation="facts", draw=2, **quiet),  # type: ignore[arg-type]
        ]
    )
    first, control = headline(summarize(rows, resamples=200))
    assert first == (
        "At α = ±1 the honesty vector (lora) moves only the yes-bias on claims and steers dilemmas and facts."
    )
    assert control == (
        "At α = ±1 a random vector of the same norms (lora-random) has no distinguishable effect on dilemmas."
    )
    halved = rows.filter(pl.col("method") == "weight").with_columns(
        logratio=pl.when((pl.col("alpha") < 0) & (pl.col("eval") == "facts")).then(0.0).otherwise("logratio")
    )
    (uneven,) = headline(summarize(halved.filter(pl.col("eval") != "claims"), resamples=200))
    assert uneven.startswith("At α = +1 the honesty vector (lora) steers dilemmas and facts; at α = −1 it ")


def test_only_a_random_control_is_called_random():
    """A vector of Yes named "a random vector" in the first sentences would pass for chance."""
    names = {"method": "control", "behavior": "honesty", "adapter": "lora-yes", "control": "yes"}
    assert intervention(names) == "the control lora-yes"
    assert "random vector" in intervention({**names, "adapter": "lora-random", "control": "random"})

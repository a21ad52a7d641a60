"""Surgical Informedness in all its forms, and the columns of a summary beside the effects."""

import numpy as np
import polars as pl
import pytest
from rows import synthetic

from weightsteer.stats import WEAKNESSES, one_sign, reading, summarize, surgical_informedness
from weightsteer.stats.informedness import of_yes_bias


def test_both_arms_are_the_mean_of_each_alone() -> None:
    """Forward-only SI of a prompt must be one half of the formula, not another score."""
    forward = one_sign(3, 1, gaining=4, losing=8, pmass=0.9)
    reverse = one_sign(2, 1, gaining=8, losing=4, pmass=0.9)
    assert surgical_informedness(3, 1, 2, 1, rej=4, cho=8, pmass=0.9) == pytest.approx((forward + reverse) / 2)
    assert forward == pytest.approx(100 * (0.75 - 2 * 0.125) * 0.81)
    assert surgical_informedness(3, 1, 2, 1, rej=4, cho=8, k=1) == pytest.approx(50 * (0.75 - 0.125 + 0.25 - 0.25))
    assert surgical_informedness(0, 0, 0, 0, rej=4, cho=8) == 0


def test_yes_bias_scores_what_a_large_constant_scores() -> None:
    """The reference printed beside every SI must be the SI of exactly that vector."""
    rows = synthetic(bias=50.0, seeds=(0, 1))
    line = summarize(rows, resamples=20).filter(alpha=1.0).row(0, named=True)
    assert line["si_yes"] * line["pmass"] ** 2 == pytest.approx(line["si"])
    leaning = synthetic(bias=50.0).with_columns(logratio=pl.col("logratio") + 1.5)
    assert summarize(leaning, resamples=20).filter(alpha=1.0)["si_yes"][0] < -20
    assert of_yes_bias(np.array([1.0, -1.0, 1.0, -1.0]), np.array([1, 1, -1, -1])) == pytest.approx(-50)


def test_a_summary_has_si_at_both_costs_and_of_one_sign() -> None:
    """Published tables differ in k and arms: without all forms ours could not be laid beside them."""
    rows = synthetic(discrimination=1.5, bias=1.0, damage=0.02)
    line = summarize(rows, resamples=200).filter(alpha=1.0).row(0, named=True)
    pmass = line["pmass"]
    assert line["si_k1"] == pytest.approx(
        50 * (line["fix"] - line["broke"] + line["flip"] - line["counter"]) * pmass**2, abs=1e-9
    )
    assert line["si_forward"] == pytest.approx(100 * (line["fix"] - 2 * line["broke"]) * pmass**2)
    assert line["si_forward_low"] < line["si_forward"] < line["si_forward_high"]
    prompt = summarize(rows.filter(pl.col("alpha") >= 0), resamples=200).filter(alpha=1.0).row(0, named=True)
    assert (prompt["si"], prompt["si_k1"], prompt["si_yes"]) == (None, None, None)
    assert prompt["si_forward"] == pytest.approx(line["si_forward"])
    assert summarize(rows, resamples=20).filter(alpha=-1.0)["si_forward"][0] is None


def test_what_stands_beside_an_si_names_its_references() -> None:
    """An SI of −10 reads as bad until one knows that doing nothing scores 0 and yes-bias −60."""
    line = summarize(synthetic(discrimination=1.0), resamples=20).filter(alpha=1.0).row(0, named=True)
    told = reading(line)
    assert told is not None
    yes = f"{line['si_yes']:.0f}".replace("-", "−")
    assert f"a no-op scores 0 and pure yes-bias {yes};" in told
    assert f"{line['rej']} rows rejected" in told
    few = reading({**line, "rej": 5, "ties": 2})
    assert few is not None
    assert "2 ties left out" in few
    assert "up to 30.0 points" in few
    assert reading({**line, "si": None}) is None
    assert len(WEAKNESSES) == 5


def test_rates_have_wilsons_interval_over_clusters() -> None:
    """A vector that broke nothing in few clusters could still break one row of four."""
    line = summarize(synthetic(discrimination=0.0, noise=0, between_clusters=0, clusters=10), resamples=20)
    up = line.filter(alpha=1.0).row(0, named=True)
    assert up["broke"] == 0.0
    assert up["broke_low"] == 0.0
    assert 0.2 < up["broke_high"] < 0.5


def test_the_mean_along_the_label_mixes_what_the_split_keeps_apart() -> None:
    """The published headline number: it must be there to compare with, and be what it is."""
    rows = synthetic(discrimination=1.0, bias=2.0, labels=(1, 1, -1), noise=0, between_clusters=0)
    summary = summarize(rows, resamples=50)
    up, base = (summary.filter(alpha=a).row(0, named=True) for a in (1.0, 0.0))
    assert up["along_change"] == pytest.approx(1.0 + 2.0 / 3)
    assert up["along"] - base["along"] == pytest.approx(up["along_change"])
    assert up["along_change_low"] <= up["along_change"] <= up["along_change_high"]


def test_a_set_of_one_label_has_its_mean_and_shift() -> None:
    """The published table of false claims could not be compared with: no discrimination is identifiable there."""
    rows = synthetic(bias=2.0, labels=(1,), noise=0, between_clusters=0)
    summary = summarize(rows, resamples=50)
    up, base = (summary.filter(alpha=a).row(0, named=True) for a in (1.0, 0.0))
    assert (up["discrimination"], up["bias"]) == (None, None)
    assert up["logratio_change"] == pytest.approx(2.0)
    assert up["logratio"] - base["logratio"] == pytest.approx(up["logratio_change"])
    assert up["logratio_change_low"] <= up["logratio_change"] <= up["logratio_change_high"]
    assert base["logratio_change"] == 0.0


def test_the_standard_deviation_is_that_over_training_seeds() -> None:
    """Published tables give mean ± std over seeds; a spread over rows in its place would be ten times as large."""
    rows = synthetic(discrimination=1.0, seeds=(0, 1, 2), between_seeds=0.3)
    pooled = summarize(rows, resamples=20).filter(alpha=1.0).row(0, named=True)
    each = summarize(rows, by_seed=True, resamples=20).filter(alpha=1.0)
    for name in ("discrimination", "along_change", "logratio_change", "si"):
        assert pooled[f"{name}_seed_sd"] == pytest.approx(each[name].std())
    one = summarize(synthetic(), resamples=20).filter(alpha=1.0)
    assert one["discrimination_seed_sd"][0] is None


def test_p_values_and_seed_agreement_go_with_the_effects() -> None:
    """Corrections over a table start from these; the base line has nothing to test."""
    rows = synthetic(discrimination=1.0, seeds=(0, 1, 2), between_seeds=0.05)
    summary = summarize(rows, resamples=400)
    up, base = (summary.filter(alpha=a).row(0, named=True) for a in (1.0, 0.0))
    assert up["discrimination_p"] < 0.01
    assert up["bias_p"] > 0.05
    assert up["sign_agreement"] == 1.0
    assert (base["discrimination_p"], base["sign_agreement"]) == (None, None)
    one = summarize(synthetic(clusters=1), resamples=20).filter(alpha=1.0).row(0, named=True)
    assert (one["discrimination_p"], one["sign_agreement"]) == (None, None)

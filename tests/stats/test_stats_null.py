"""The null at the lines of ``summarize``, and the verdicts that it changes."""

import math

import polars as pl
import pytest
from rows import synthetic

from weightsteer.errors import WeightsteerError
from weightsteer.stats import null_of_draws, summarize
from weightsteer.stats.null import SCHEMA, Null, at_signs, linear, of_both_signs, of_mean_draws
from weightsteer.stats.verdict import Verdict


def nulls(*, seeds=(0,), evaluations=("dilemmas",), **sd: float) -> pl.DataFrame:
    """A null of the vector that `synthetic` sweeps; ``sd`` by effect."""
    lines = [
        {"model": "pocket", "behavior": "honesty", "method": "weight", "adapter": "lora", "seed": seed, "eval": name}
        | {"effect": effect, "null_sd": value}
        for seed in seeds
        for name in evaluations
        for effect, value in sd.items()
    ]
    return pl.DataFrame(lines, schema=SCHEMA)


def verdict_at_one(rows: pl.DataFrame, **options) -> str:
    return summarize(rows, resamples=500, **options).filter(alpha=1.0)["verdict"].item()


def test_an_effect_within_the_null_is_not_separable():
    """Its interval over rows excludes 0 by far, and a random vector has as much: such a vector must not "steer"."""
    rows = synthetic(discrimination=0.5)
    assert verdict_at_one(rows) == Verdict.STEERS
    assert verdict_at_one(rows, null=nulls(discrimination=0.4, bias=0.1)) == Verdict.NOT_SEPARABLE
    assert verdict_at_one(rows, null=nulls(discrimination=0.05, bias=0.1)) == Verdict.STEERS


def test_a_bias_within_the_null_is_no_yes_bias():
    """Random directions move Yes more than anything else."""
    rows = synthetic(bias=0.5)
    assert verdict_at_one(rows) == Verdict.YES_BIAS
    assert verdict_at_one(rows, null=nulls(discrimination=0.05, bias=0.4)) == Verdict.NOT_SEPARABLE


def test_a_small_real_effect_is_negligible():
    """With enough rows everything has some effect; it must not be called steering."""
    rows = synthetic(discrimination=0.06, between_clusters=0.01, noise=0.01)
    null = nulls(discrimination=0.01, bias=0.01)
    assert verdict_at_one(rows, null=null) == Verdict.NEGLIGIBLE
    assert verdict_at_one(rows, null=null, smallest=0.05) == Verdict.STEERS


def test_z_is_in_units_of_the_pooled_null_and_grows_with_the_strength():
    """The mean of S random effects has 1/√S of their spread; to first order the spread is proportional to |α|."""
    rows = synthetic(discrimination=0.5, seeds=(0, 1, 2), alphas=(-2, 0, 1))
    summary = summarize(rows, null=nulls(seeds=(0, 1, 2), discrimination=0.3, bias=0.1), resamples=10)
    for alpha in (-2.0, 1.0):
        line = summary.filter(alpha=alpha).row(0, named=True)
        assert line["null_sd"] == pytest.approx(abs(alpha) * 0.3 / math.sqrt(3))
        assert line["z"] == pytest.approx(line["discrimination"] / line["null_sd"])
    assert summary.filter(alpha=0.0)["null_sd"].item() is None
    missing = summarize(rows, null=nulls(seeds=(0, 1), discrimination=0.3, bias=0.1), resamples=10)
    assert missing["null_sd"].null_count() == missing.height  # a seed without a null: none is known of the mean


def test_p_values_are_corrected_over_evaluations_and_effects():
    """A vector has so many chances to be called something as it has lines: Holm's over all of them."""
    names = ("dilemmas", "claims", "facts")
    rows = pl.concat(synthetic(discrimination=0.37, evaluation=name, draw=at) for at, name in enumerate(names))
    null = nulls(evaluations=names, discrimination=0.1, bias=1.0)
    summary = summarize(rows, null=null, resamples=200).filter(alpha=1.0)
    alone = summarize(rows.filter(eval="dilemmas"), null=null, resamples=200).filter(alpha=1.0)
    assert alone["null_p"].item() == summary.filter(eval="dilemmas")["null_p"].item()
    assert alone["null_holm"].item() < 0.05 < summary.filter(eval="dilemmas")["null_holm"].item()


def test_a_direction_of_low_rank_has_longer_tails_than_a_normal_one():
    """With few large singular values some random vectors move far: a short tail would call too many something."""
    rows = synthetic(discrimination=0.4)
    null = nulls(discrimination=0.12, bias=0.12)
    long = null.with_columns(kurtosis=pl.lit(3.0))
    normal, heavy = (summarize(rows, null=each, resamples=10).filter(alpha=1.0) for each in (null, long))
    assert normal["z"].item() == heavy["z"].item()
    assert normal["null_p"].item() < heavy["null_p"].item()


def test_the_base_model_that_does_not_answer_is_no_damage():
    """Mass lost that was not there says nothing about the format."""
    rows = synthetic(discrimination=1.0, damage=0.3).with_columns(pl.col("pmass") - 0.4)
    assert verdict_at_one(rows) == Verdict.STEERS
    assert verdict_at_one(synthetic(discrimination=1.0, damage=0.3)) == Verdict.FORMAT_DAMAGE
    assert summarize(rows, resamples=10)["base_pmass"].to_list() == pytest.approx([0.59] * 3)


def test_draws_give_the_same_null_as_their_spread():
    """For weights without a gradient: the root mean square over draws, with Student's t for its uncertainty."""
    drawn = pl.concat(
        synthetic(discrimination=0.1 * (-1) ** k, method="control", adapter="lora-random", control_draw=k, draw=k)
        for k in range(6)
    )
    summary = summarize(drawn, by_seed=True, resamples=10)
    null = null_of_draws(summary)
    at = null.filter(alpha=1.0, effect="discrimination").row(0, named=True)
    effects = summary.filter(alpha=1.0)["discrimination"]
    assert at["adapter"] == "lora"
    assert at["draws"] == 6
    assert at["null_sd"] == pytest.approx(math.sqrt((effects**2).mean()))
    line = summarize(synthetic(discrimination=0.5), null=null, resamples=10).filter(alpha=1.0).row(0, named=True)
    assert line["null_sd"] == pytest.approx(at["null_sd"])
    assert line["null_draws"] == 6
    each = linear(null).filter(effect="discrimination")
    assert each["alpha"].to_list() == [None]
    assert each["null_sd"].item() == pytest.approx(math.sqrt((effects**2).mean()), rel=0.3)
    with pytest.raises(WeightsteerError, match="too few"):
        null_of_draws(summary.filter(pl.col("draw") < 3))


def test_strengths_per_seed_and_folded_draws():
    """An audit stands at one strength per seed and sign, and at means over draws: the null must follow both."""
    null = nulls(seeds=(0, 1), discrimination=0.2, bias=0.1)
    rows = synthetic(seeds=(0, 1)).with_columns(strength=pl.col("alpha") * (1 + pl.col("seed")))
    signs = at_signs(null, rows)
    found = {(line["seed"], line["alpha"]): line["null_sd"] for line in signs.filter(effect="bias").to_dicts()}
    assert found == pytest.approx({(0, 1.0): 0.1, (0, -1.0): 0.1, (1, 1.0): 0.2, (1, -1.0): 0.2})
    assert of_both_signs(signs).filter(effect="bias").sort("seed")["null_sd"].to_list() == pytest.approx([0.1, 0.2])
    drawn = pl.concat(
        null.with_columns(method=pl.lit("control"), adapter=pl.lit("lora-random"), draw=pl.lit(k, pl.Int64))
        for k in range(4)
    )
    several = pl.DataFrame({"model": ["pocket"], "behavior": ["honesty"], "adapter": ["lora-random"]})
    folded = of_mean_draws(drawn, several)
    assert folded["draw"].to_list() == [0] * 4
    assert folded["null_sd"].max() == pytest.approx(0.1)


def test_what_is_no_null_is_refused():
    """Rows given in its place would be looked up in vain, and every verdict would silently do without."""
    with pytest.raises(WeightsteerError, match="not a null"):
        Null(synthetic())

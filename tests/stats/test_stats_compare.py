"""Differences between interventions whose truth is written down."""

from typing import Any

import polars as pl
import pytest
from rows import synthetic

from weightsteer.errors import WeightsteerError
from weightsteer.stats import compare, headline_strengths, holm, select, summarize

LORA = ("weight", "lora")


def sweep(**effects: dict[str, Any]) -> pl.DataFrame:
    """Vectors by adapter, of one base model, with seeds that differ a little."""
    made = []
    for draw, (adapter, truth) in enumerate(effects.items()):
        options: dict[str, Any] = {"seeds": (0, 1, 2), "between_seeds": 0.03, "base": 1, "draw": draw, **truth}
        made.append(synthetic(adapter=adapter, **options))
    return pl.concat(made)


def strengths(*adapters: str, alpha: float = 1.0, **more: object) -> pl.DataFrame:
    """One fixed strength for all."""
    lines = [{"method": "weight", "adapter": adapter, "alpha": alpha, **more} for adapter in adapters]
    return pl.DataFrame(lines)


def calibration(statuses: dict[str, list[str]], size: float = 1.0) -> pl.DataFrame:
    """Strengths of three seeds and two signs as a calibration gives them."""
    lines = [
        {
            "model": "pocket",
            "behavior": "honesty",
            "method": "weight",
            "adapter": adapter,
            "seed": seed,
            "sign": sign,
            "alpha_star": sign * size if status == "converged" else None,
            "status": status,
        }
        for adapter, own in statuses.items()
        for seed, status in enumerate(own)
        for sign in (1, -1)
    ]
    return pl.DataFrame(lines)


def test_the_planted_difference_is_found_with_its_sign_in_both_arms() -> None:
    """A comparison that mixed up the arms would call the stronger vector the weaker one at negative strengths."""
    rows = sweep(lora={"discrimination": 1.0}, dora={"discrimination": 2.0}, oft={"discrimination": 1.0})
    at = pl.concat([strengths("lora", "dora", "oft", alpha=a) for a in (1.0, -1.0)])
    table = compare(rows, at, reference=LORA, resamples=1000)
    assert table.height == 4
    for line in table.iter_rows(named=True):
        stronger = line["adapter"] == "dora"
        assert line["difference"] == pytest.approx(1.0 if stronger else 0.0, abs=0.15)
        assert line["effect"] == pytest.approx(2.0 if stronger else 1.0, abs=0.15)
        assert line["verdict"] == ("more" if stronger else "not_separable")
        assert (line["n"], line["clusters"], line["seeds"], line["paired_seeds"]) == (80, 40, 3, True)
        assert line["base_gap"] == 0
    mirrored = compare(rows, at, reference=("weight", "dora"), resamples=1000).filter(adapter="lora")
    assert all(verdict == "less" for verdict in mirrored["verdict"])


def test_an_effect_and_its_interval_are_those_of_the_summary() -> None:
    """Two tables of one report would contradict each other."""
    rows = sweep(lora={"discrimination": 1.0}, dora={"discrimination": 2.0})
    line = compare(rows, strengths("lora", "dora"), reference=LORA, resamples=500).row(0, named=True)
    told = summarize(rows, resamples=500).filter(adapter="dora", alpha=1.0).row(0, named=True)
    for mine, theirs in (("effect", "discrimination"), ("effect_low", "discrimination_low")):
        assert line[mine] == pytest.approx(told[theirs], abs=1e-12)


def test_what_two_vectors_share_cancels() -> None:
    """Unpaired, the spread of the items would hide a small constant difference: pairing is what finds it."""
    one = synthetic(discrimination=1.0, between_clusters=2.0, noise=2.0)
    more = one.with_columns(
        adapter=pl.lit("dora"), logratio=pl.col("logratio") + 0.05 * pl.col("label") * pl.col("alpha")
    )
    line = compare(pl.concat([one, more]), strengths("lora", "dora"), reference=LORA, resamples=500).row(0, named=True)
    assert line["difference"] == pytest.approx(0.05)
    assert line["difference_low"] == pytest.approx(0.05, abs=1e-9)
    assert line["effect_high"] - line["effect_low"] > 0.5
    assert line["verdict"] == "more"


def test_the_interval_excludes_zero_exactly_when_p_is_small() -> None:
    """A reader who sees both must not be told two things."""
    rows = sweep(**{f"a{i}": {"discrimination": 1 + 0.08 * i} for i in range(7)})
    table = compare(rows, strengths(*rows["adapter"].unique()), resamples=300)
    assert table.height == 21
    excludes = (table["difference_low"] > 0) | (table["difference_high"] < 0)
    assert (excludes == (table["p"] < 0.05)).all()
    assert 0 < excludes.sum() < 21
    assert (table["holm"] >= table["p"]).all()


def test_the_retained_effect_is_a_ratio_with_fiellers_interval() -> None:
    """An ablation that keeps half of the effect must say so, and nothing can be kept of what may be 0."""
    rows = sweep(lora={"discrimination": 2.0}, cropped={"discrimination": 1.0}, nothing={})
    half = compare(rows, strengths("lora", "cropped"), reference=LORA, resamples=1000).row(0, named=True)
    assert half["retained"] == pytest.approx(0.5, abs=0.06)
    assert half["retained_low"] < 0.5 < half["retained_high"]
    assert half["retained_high"] - half["retained_low"] < 0.3
    lost = compare(rows, strengths("lora", "nothing"), reference=("weight", "nothing"), resamples=300).row(
        0, named=True
    )
    assert (lost["retained"], lost["retained_low"], lost["retained_high"]) == (None, None, None)


def test_other_items_are_refused_by_name() -> None:
    """Means over different items do not compare, and the message must say which items."""
    rows = sweep(lora={}, dora={})
    part = rows.filter((pl.col("adapter") == "lora") | ~pl.col("item").str.starts_with("d003"))
    with pytest.raises(WeightsteerError, match=r"2 items differ .*d003a0, d003b1"):
        compare(part, strengths("lora", "dora"))
    relabelled = rows.with_columns(
        label=pl.when(adapter="dora").then(-pl.col("label")).otherwise("label"),
    )
    with pytest.raises(WeightsteerError, match="80 items differ"):
        compare(relabelled, strengths("lora", "dora"))


def test_methods_with_other_seeds_vary_on_their_own() -> None:
    """Ten draws of a control are no training seeds: pairing draw 0 with seed 0 would mean nothing."""
    rows = pl.concat(
        [
            synthetic(discrimination=1, seeds=(0, 1, 2), between_seeds=0.05, base=1),
            synthetic(method="control", adapter="lora-random", seeds=range(10), between_seeds=0.2, base=1, draw=2),
        ]
    )
    at = pl.DataFrame({"method": ["weight", "control"], "adapter": ["lora", "lora-random"], "alpha": [1.0, 1.0]})
    line = compare(rows, at, reference=("control", "lora-random"), resamples=500).row(0, named=True)
    assert (line["seeds"], line["reference_seeds"], line["paired_seeds"], line["sign_agreement"]) == (
        3,
        10,
        False,
        None,
    )
    assert line["verdict"] == "more"


def test_what_did_not_converge_is_listed_and_never_compared() -> None:
    """A saturated strength in the table as if it were matched is the published mistake."""
    rows = sweep(lora={"discrimination": 1.0}, dora={"discrimination": 2.0}, ia3={"discrimination": 3.0})
    statuses = {"lora": ["converged"] * 3, "dora": ["converged"] * 3, "ia3": ["converged", "saturated", "converged"]}
    table = compare(rows, calibration(statuses), resamples=200)
    assert table.filter(pl.col("reason").is_null())["adapter"].unique().to_list() == ["dora"]
    out = table.filter(pl.col("reason").is_not_null())
    assert out["reason"].to_list() == ["saturated (seed 1)"] * 2
    assert out.select("verdict", "reason").unique().rows() == [("not_compared", "saturated (seed 1)")]
    assert out["effect"].null_count() == 2
    alone = compare(rows, calibration({"lora": ["converged"] * 3, "ia3": ["saturated"] * 3}), resamples=50)
    assert alone["reason"].to_list() == ["saturated (seed 0, 1, 2)"] * 2


def test_each_seed_is_taken_at_its_own_strength() -> None:
    """A calibrated strength differs between seeds: rows of another strength would be those of another side effect."""
    vectors = [
        synthetic(
            discrimination=1, seeds=(seed,), alphas=(0, 0.5 + seed, -(0.5 + seed)), base=1, draw=seed, adapter=name
        )
        for name in ("lora", "dora")
        for seed in (0, 1, 2)
    ]
    at = pl.concat(
        [
            calibration({"lora": ["converged"] * 3, "dora": ["converged"] * 3}, size)
            .filter(seed=seed)
            .with_columns(pl.col("alpha_star") * (1 + 1e-8))  # as read back from a file
            for seed, size in enumerate((0.5, 1.5, 2.5))
        ]
    )
    chosen = select(pl.concat(vectors), at).rows
    assert chosen["alpha"].unique().sort().to_list() == [-1, 0, 1]
    by_seed = chosen.filter(pl.col("alpha") == 1).group_by("seed").agg(pl.col("strength").unique()).sort("seed")
    assert by_seed["strength"].to_list() == [[0.5], [1.5], [2.5]]
    line = compare(pl.concat(vectors), at, resamples=100).row(0, named=True)
    assert line["alpha"] == pytest.approx(1.5)
    assert line["difference"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (
            strengths("lora", "dora", alpha=0.7),
            r"weight dora seed 0 on dilemmas has no rows at alpha 0.7; swept: -1, 0, 1",
        ),
        (strengths("lora", "vera"), "weight vera has no rows at alpha 1; it was not swept at all"),
        (strengths("lora", alpha=0.0), "1 strengths are 0"),
        (strengths("lora", "lora"), "two strengths for one sign"),
        (strengths("lora", "dora", seed=0), "weight dora seed 1 on dilemmas was swept but has no strength"),
        (strengths("lora", "dora").drop("alpha"), "need a column alpha"),
        (strengths("lora"), "nothing to compare"),
    ],
)
def test_strengths_that_cannot_be_used_are_refused(at: pl.DataFrame, message: str) -> None:
    """A strength without its rows, or a seed without its strength, would silently drop out of a mean."""
    with pytest.raises(WeightsteerError, match=message):
        compare(sweep(lora={}, dora={}), at, resamples=10)


@pytest.mark.parametrize("metric", ["si", "si_forward", "pmass_change", "bias"])
def test_every_metric_is_compared_as_summarize_computes_it(metric: str) -> None:
    """The difference of two SIs must be that of the SI table."""
    rows = sweep(lora={"discrimination": 1.0, "damage": 0.05}, dora={"discrimination": 2.0, "bias": 0.3})
    at = pl.concat([strengths("lora", "dora", alpha=a) for a in (1.0, -1.0)])
    line = compare(rows, at, reference=LORA, metric=metric, resamples=100).row(0, named=True)
    told = {each["adapter"]: each[metric] for each in summarize(rows, resamples=100).filter(alpha=1.0).to_dicts()}
    assert line["difference"] == pytest.approx(told["dora"] - told["lora"], abs=1e-9)
    with pytest.raises(WeightsteerError, match="discrimination"):
        compare(rows, at, metric="discriminaton")


def test_nan_rows_make_a_comparison_undefined_and_leave_the_family_alone() -> None:
    """A NaN that counted as a comparison would change the correction of the others."""
    rows = sweep(lora={"discrimination": 1.0}, dora={"discrimination": 2.0}, oft={})
    hurt = rows.with_columns(
        logratio=pl.when((pl.col("adapter") == "oft") & (pl.col("alpha") == 1)).then(float("nan")).otherwise("logratio")
    )
    table = compare(hurt, strengths("lora", "dora", "oft"), reference=LORA, resamples=200)
    verdicts = dict(table.select("adapter", "verdict").iter_rows())
    assert verdicts["oft"] == "undefined"
    assert verdicts["dora"] in ("more", "less", "not_separable")


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [
        ((-2.0, -1.0, 0.0, 0.5, 1.0, 4.0), [1.0, -1.0]),
        ((-3.0, -2.0, 0.0, 0.25, 0.5), [0.25, -2.0]),
        ((0.5, 0, -1, -2), [0.5, -1.0]),
        ((0, 0.25, 0.5), [0.25]),
        ((0.0,), []),
    ],
)
def test_headline_strengths_are_chosen_before_any_result(alphas, expected) -> None:
    """The strength with the largest effect would be a choice after the fact, and controls must have the same ones."""
    assert headline_strengths(alphas) == expected


def test_planned_contrasts_are_corrected_by_evaluation_and_sign():
    """Who differs from the reference, on one evaluation, at one sign, is a question by itself: corrected over all
    evaluations at once, three seeds could not answer any."""
    vectors = [(name, 0.5 + 0.1 * at) for at, name in enumerate(("lora", "dora", "oft"))]
    rows = pl.concat(
        synthetic(discrimination=size, adapter=name, evaluation=evaluation, draw=at, base=1)
        for at, (name, size) in enumerate(vectors)
        for evaluation in ("dilemmas", "claims")
    )
    strengths = pl.DataFrame(
        {"method": "weight", "adapter": ["lora", "dora", "oft"] * 2, "alpha": [1.0] * 3 + [-1.0] * 3}
    )
    planned = compare(rows, strengths, reference=("weight", "lora"), resamples=200)
    assert planned["family"].to_list() == [2] * 8
    for family in planned.partition_by("eval", "sign"):
        assert family["holm"].to_list() == pytest.approx(holm(family["p"].to_list()))
    every = compare(rows, strengths, resamples=200)
    assert every["family"].unique().to_list() == [12]
    assert planned["mde"].mean() < every["mde"].mean()

"""Statistics against rows whose truth is known."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from rows import synthetic
from scipy.stats import norm, t

from weightsteer.errors import WeightsteerError
from weightsteer.stats import bootstrap, flips, summarize, surgical_informedness


def at(summary: pl.DataFrame, alpha: float) -> dict[str, object]:
    """The one line of a strength."""
    return summary.filter(pl.col("alpha") == alpha).row(0, named=True)


def one_row_each(labels: Sequence[int], before: Sequence[float], **arms: Sequence[float]) -> pl.DataFrame:
    """Rows written by hand: ``up`` at α = 1, ``down`` at α = −1; a cluster per row."""
    frames = []
    for alpha, values in ((0.0, before), (1.0, arms.get("up")), (-1.0, arms.get("down"))):
        if values is not None:
            frame = {"label": labels, "logratio": values, "item": [f"i{i}" for i in range(len(labels))]}
            frames.append(pl.DataFrame(frame).with_columns(alpha=pl.lit(alpha), cluster="item"))
    constant = {"model": "m", "behavior": "b", "method": "weight", "adapter": "lora", "eval": "e"}
    return pl.concat(frames).with_columns(
        *[pl.lit(value).alias(name) for name, value in constant.items()], seed=pl.lit(0), pmass=pl.lit(1.0)
    )


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.sampled_from([1, -1]), min_size=2, max_size=12).filter(lambda x: len(set(x)) == 2),
    shift=st.floats(-5, 5),
)
def test_a_constant_shift_is_all_bias_at_any_label_ratio(labels: list[int], shift: float) -> None:
    """If the labels did not weigh the same, a Yes-bias would pass for behaviour on unbalanced rows."""
    before = np.linspace(-3, 2, len(labels))
    line = at(summarize(one_row_each(labels, before, up=before + shift), resamples=50), 1)
    assert line["discrimination"] == pytest.approx(0, abs=1e-12)
    assert line["bias"] == pytest.approx(shift, abs=1e-12)


def test_truth_is_recovered_with_both_effects_at_once() -> None:
    """Discrimination and bias would leak into each other if the split were wrong."""
    rows = synthetic(discrimination=1.5, bias=-0.7, clusters=200, labels=(1, -1, -1))
    line = at(summarize(rows, resamples=500), 1)
    assert line["discrimination"] == pytest.approx(1.5, abs=0.1)
    assert line["bias"] == pytest.approx(-0.7, abs=0.1)
    assert (line["n"], line["clusters"], line["positives"], line["seeds"]) == (600, 200, 200, 1)
    assert line["discrimination_low"] < 1.5 < line["discrimination_high"]


def test_bootstrap_equals_resampling_rows_one_by_one() -> None:
    """The matrix form would be a different statistic if it did not equal the plain loop."""
    seeds, resamples = 3, 40
    rows = synthetic(discrimination=1, bias=0.4, clusters=7, seeds=range(seeds), between_seeds=0.5, labels=(1, 1, -1))
    line = at(summarize(rows, resamples=resamples, seed=5), 1)

    wide = rows.pivot(on="alpha", index=["seed", "item", "cluster", "label"], values="logratio")
    table = wide.with_columns(delta=pl.col("1.0") - pl.col("0.0"))
    clusters = sorted(set(table["cluster"]))

    def effect(of_seed: int, drawn: Sequence[str]) -> float:
        mine = table.filter(pl.col("seed") == of_seed)
        sample = pl.concat([mine.filter(pl.col("cluster") == name) for name in drawn])
        means = sample.group_by("label").agg(pl.mean("delta"))
        return float((means["label"] * means["delta"]).mean())

    def widening(n: int) -> float:
        return float(t.ppf(0.975, n - 1) / norm.ppf(0.975) * (n / (n - 1)) ** 0.5)

    cluster_counts = np.random.default_rng([5, 0]).multinomial(7, np.full(7, 1 / 7), size=resamples)
    seed_counts = np.random.default_rng([5, 1]).multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    points = np.array([effect(s, clusters) for s in range(seeds)])
    samples = []
    for of_clusters, of_seeds in zip(cluster_counts, seed_counts, strict=True):
        drawn = [name for name, count in zip(clusters, of_clusters, strict=True) for _ in range(count)]
        values = points + widening(7) * (np.array([effect(s, drawn) for s in range(seeds)]) - points)
        samples.append(values @ (1 / seeds + widening(seeds) * (of_seeds / seeds - 1 / seeds)))
    low, high = np.quantile(samples, [0.025, 0.975])
    assert line["discrimination"] == pytest.approx(points.mean(), abs=1e-12)
    assert (line["discrimination_low"], line["discrimination_high"]) == pytest.approx((low, high), abs=1e-9)
    assert line["discrimination_seed_min"] == pytest.approx(points.min(), abs=1e-12)
    assert line["mde"] == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * np.std(samples), abs=1e-9)


def coverage(times: int, *, cluster: str = "cluster", by_seed: bool = False, **design: object) -> float:
    """Share of intervals that hold the true discrimination of 1 nat, over independent experiments."""
    experiments = [
        synthetic(discrimination=1, draw=i, evaluation=f"e{i:04d}", alphas=(0, 1), **design)  # type: ignore[arg-type]
        for i in range(times)
    ]
    rows = pl.concat(experiments).with_columns(pl.col(cluster).alias("cluster"))
    summary = summarize(rows, resamples=400, by_seed=by_seed).filter(pl.col("alpha") == 1)
    return float(summary.select(pl.lit(1).is_between("discrimination_low", "discrimination_high").mean()).item())


def test_95_percent_is_95_percent_over_clusters() -> None:
    """Intervals would be lies if they did not hold the truth as often as they say, with twelve clusters."""
    design = {"clusters": 12, "between_clusters": 0.6, "noise": 0.2, "labels": (1, -1, 1, -1)}
    honest = coverage(160, **design)
    assert 0.91 <= honest <= 0.99
    # The same rows taken as independent: the trap this interval exists for.
    assert coverage(160, cluster="item", **design) < 0.80


def test_95_percent_is_95_percent_over_training_seeds() -> None:
    """Three seeds must speak for the next one: a seed alone does not, nor would an unwidened percentile."""
    design = {"clusters": 10, "seeds": (0, 1, 2), "between_seeds": 0.5, "between_clusters": 0.1, "noise": 0.1}
    assert 0.91 <= coverage(110, **design) <= 1.0
    assert coverage(110, by_seed=True, **design) < 0.5


PUBLISHED = [
    ("ia3", 3, 3, 4, 4, -2.2),
    ("RepE", 9, 17, 7, 8, -7.0),
    ("oft", 2, 6, 4, 15, -12.0),
    ("dora", 3, 23, 6, 34, -31.2),
    ("lora", 3, 29, 6, 36, -34.6),
    ("pissa", 10, 26, 101, 74, -44.9),
    ("delora", 11, 100, 73, 91, -85.4),
]


@pytest.mark.parametrize(("name", "fix", "broke", "flip", "counter", "si"), PUBLISHED)
def test_si_gives_the_published_values(name: str, fix: int, broke: int, flip: int, counter: int, si: float) -> None:
    """Our SI could not be compared with published tables if these counts gave other numbers."""
    ours = surgical_informedness(fix, broke, flip, counter, rej=131, cho=315)
    assert ours == pytest.approx(si, abs=0.051), name


def test_si_of_rows_counts_every_way_a_row_can_go() -> None:
    """SI of a frame would be wrong if arms, labels or ties were mixed up: here each count is different."""
    labels = [1, -1, 1, -1, 1, -1, 1, -1, 1]
    signed_before = np.array([1, 1, 1, 1, -1, -1, -1, -1, 0], dtype=float)
    signed_up = np.array([-1, 1, 1, 1, 1, 1, 1, -1, 1], dtype=float)  # broke 1 of 4, fix 3 of 4
    signed_down = np.array([-1, -1, 1, 1, 1, -1, -1, -1, -1], dtype=float)  # flip 2 of 4, counter 1 of 4
    y = [signed * np.array(labels) for signed in (signed_before, signed_up, signed_down)]
    rows = one_row_each(labels, y[0], up=y[1], down=y[2]).with_columns(
        pmass=pl.when(pl.col("alpha") == -1).then(0.8).otherwise(0.9)
    )
    summary = summarize(rows, resamples=200)
    line = at(summary, 1)
    assert [line[k] for k in ("fix", "broke", "flip", "counter")] == [0.75, 0.25, 0.5, 0.25]
    assert (line["cho"], line["rej"], line["ties"]) == (4, 4, 1)
    expected = surgical_informedness(3, 1, 2, 1, rej=4, cho=4, pmass=0.8)
    assert line["si"] == pytest.approx(expected)
    assert expected == pytest.approx(100 * (0.25 + 0.0) / 2 * 0.64)
    assert line["si_low"] < line["si"] < line["si_high"]
    assert at(summary, -1)["si"] is None
    forward = at(summarize(rows.filter(pl.col("alpha") >= 0), resamples=50), 1)
    assert (forward["fix"], forward["si"], forward["flip"]) == (0.75, None, None)


def test_auc_counts_pairs_and_its_interval_is_that_of_the_bootstrap() -> None:
    """The area would be off on ties, or its linearised interval too narrow."""
    rows = synthetic(discrimination=1.5, clusters=40, alphas=(0, 1)).with_columns(pl.col("logratio").round(0))
    line = at(summarize(rows, resamples=4000), 1)
    table = rows.filter(pl.col("alpha") == 1).sort("item")

    def area(sample: pl.DataFrame) -> float:
        plus, minus = (sample.filter(pl.col("label") == g)["logratio"].to_numpy() for g in (1, -1))
        return float(((plus[:, None] > minus) + (plus[:, None] == minus) / 2).mean())

    assert line["auc"] == pytest.approx(area(table), abs=1e-12)
    rng = np.random.default_rng(1)
    groups = table.partition_by("cluster")
    drawn = [area(pl.concat([groups[i] for i in rng.integers(0, 40, 40)])) for _ in range(300)]
    width = np.subtract(*np.quantile(drawn, [0.975, 0.025]))
    assert line["auc_high"] - line["auc_low"] == pytest.approx(width, rel=0.25)


def test_order_chunks_and_company_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """SI of a frame would be wrong if arms, labels or ties were mixed up: each count differs here."""
    rows = synthetic(discrimination=1, seeds=(0, 1, 2), between_seeds=0.1)
    alone = summarize(rows, resamples=300)
    assert_frame_equal(summarize(rows.sample(fraction=1, shuffle=True, seed=3), resamples=300), alone, abs_tol=1e-12)
    others = [synthetic(adapter="dora", draw=1), synthetic(evaluation="sycophancy", draw=2), rows]
    together = summarize(pl.concat(others), resamples=300)
    assert together.height == 9
    mine = together.filter((pl.col("adapter") == "lora") & (pl.col("eval") == "dilemmas"))
    assert_frame_equal(mine, alone, abs_tol=1e-12)
    monkeypatch.setattr(bootstrap, "CELLS", 1700)
    assert_frame_equal(summarize(rows, resamples=300), alone, abs_tol=1e-12)
    assert summarize(rows, resamples=300, seed=1)["bias_low"].to_list() != alone["bias_low"].to_list()


def test_by_seed_gives_each_seed_as_if_it_were_alone() -> None:
    """Per-seed lines would not show whether seeds agree if they borrowed from each other."""
    rows = synthetic(discrimination=1, seeds=(0, 1, 2), between_seeds=0.5)
    lines = summarize(rows, by_seed=True, resamples=200)
    assert lines["seed"].to_list() == [0] * 3 + [1] * 3 + [2] * 3
    alone = summarize(rows.filter(pl.col("seed") == 1), resamples=200)
    assert_frame_equal(lines.filter(pl.col("seed") == 1).drop("seed", "draw"), alone)
    pooled = at(summarize(rows, resamples=200), 1)
    own = lines.filter(pl.col("alpha") == 1)["discrimination"]
    assert pooled["discrimination"] == pytest.approx(own.mean(), abs=1e-12)
    assert (pooled["discrimination_seed_min"], pooled["discrimination_seed_max"]) == (own.min(), own.max())


def test_seeds_may_have_been_swept_at_different_strengths() -> None:
    """A strength that only some seeds have would be refused, or averaged with rows that do not exist."""
    rows = synthetic(discrimination=1, seeds=(0, 1, 2)).filter((pl.col("alpha") != -1) | (pl.col("seed") == 1))
    summary = summarize(rows, resamples=100)
    assert summary["seeds"].to_list() == [1, 3, 3]
    assert summary["nan"].to_list() == [0, 0, 0]
    assert at(summary, 1)["si"] is None


def test_nan_is_counted_and_never_clipped_away() -> None:
    """A NaN that vanished would make a broken strength a good one; it must not touch the other strengths."""
    rows = synthetic(discrimination=1).with_row_index()
    hurt = rows.with_columns(
        logratio=pl.when((pl.col("alpha") == 1) & (pl.col("item").str.starts_with("d003")))
        .then(float("nan"))
        .when((pl.col("alpha") == 1) & (pl.col("item").str.starts_with("d004")))
        .then(None)
        .otherwise("logratio")
    )
    summary = summarize(hurt, resamples=100)
    line = at(summary, 1)
    assert line["nan"] == 4
    for name in ("logratio", "discrimination", "discrimination_low", "bias_high", "auc", "si", "fix"):
        assert line[name] is not None, name
        assert np.isnan(line[name]), name
    assert (line["verdict"], line["nan"]) == ("undefined", 4)
    assert_frame_equal(
        summary.filter(pl.col("alpha") == -1), summarize(rows, resamples=100).filter(pl.col("alpha") == -1)
    )


def test_one_label_identifies_nothing() -> None:
    """With false claims only, yes-bias and behaviour are one number: to name it would be a guess."""
    line = at(summarize(synthetic(bias=2, labels=(1, 1)), resamples=100), 1)
    assert line["discrimination"] is None
    assert line["bias"] is None
    assert line["auc"] is None
    assert line["logratio"] > 2
    assert line["verdict"] == "not_identifiable"


def test_one_cluster_has_no_interval() -> None:
    """One cluster resampled is always itself: an interval of width 0 would look like certainty."""
    line = at(summarize(synthetic(discrimination=1, clusters=1, seeds=(0, 1)), resamples=100), 1)
    assert line["discrimination"] is not None
    assert line["discrimination_low"] is None
    assert line["mde"] is None
    assert line["verdict"] == "no_interval"


def test_flags_of_low_pmass_are_shared_out() -> None:
    """Rows whose answers have no mass would go unseen; a frame without flags must still be summarised."""
    rows = synthetic(damage=0.6)
    assert at(summarize(rows, resamples=50), 1)["low_pmass"] == 1.0
    assert at(summarize(rows, resamples=50), 0)["low_pmass"] == 0.0
    assert at(summarize(rows.drop("low_pmass"), resamples=50), 1)["low_pmass"] is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda r: r.filter((pl.col("alpha") != 0) | (pl.col("item") > "d001")),
            "4 of 238 rows have no partner",
        ),
        (lambda r: r.filter(pl.col("alpha") != 0), "160 of 160 rows have no partner"),
        (
            lambda r: r.filter((pl.col("alpha") != 1) | (pl.col("item") > "d001")),
            "2 rows are missing in weight lora",
        ),
        (lambda r: pl.concat([r, r.head(3)]), "6 rows share"),
        (lambda r: r.drop("cluster", "pmass"), "no column cluster, pmass"),
        (lambda r: r.with_columns(label=pl.lit(0)), "240 rows have a label other"),
        (
            lambda r: r.with_columns(label=pl.when(pl.col("alpha") == 1).then(-1).otherwise("label")),
            "40 items have more",
        ),
        (lambda r: r.clear(), "no rows"),
    ],
)
def test_rows_that_cannot_be_paired_are_refused(spoil: object, message: str) -> None:
    """An unpaired row would be averaged against other items: the message must say how many there are."""
    with pytest.raises(WeightsteerError, match=message):
        summarize(spoil(synthetic()))  # type: ignore[operator]


def test_a_seed_without_all_items_is_refused() -> None:
    """The crossed bootstrap is wrong when seeds answered different items."""
    rows = synthetic(seeds=(0, 1)).filter((pl.col("seed") == 0) | (pl.col("item") > "d002"))
    with pytest.raises(WeightsteerError, match="12 rows are missing"):
        summarize(rows)


def test_opposite_behaviours_may_share_rows() -> None:
    """One evaluation serves behaviours of opposite polarity: their labels differ without contradiction."""
    mirrored = synthetic(discrimination=1).with_columns(behavior=pl.lit("lying"), label=-pl.col("label"))
    summary = summarize(pl.concat([synthetic(discrimination=1), mirrored]), resamples=100)
    up = summary.filter(pl.col("alpha") == 1)["discrimination"].to_list()
    assert up[0] == pytest.approx(-up[1])


def test_flips_are_the_decisions_that_changed() -> None:
    """The table of flipped rows would show rows that did not flip, or call a loss a gain."""
    labels = [1, -1, 1, -1, 1, 1]
    before = [-1.0, 2.0, 3.0, -1.0, 0.0, float("nan")]
    up = [0.5, -4.0, 1.0, 1.0, 5.0, 1.0]
    found = flips(one_row_each(labels, before, up=up), 1.0)
    assert found.select("item", "before", "after", "toward").rows() == [
        ("i1", 2.0, -4.0, True),
        ("i3", -1.0, 1.0, False),
        ("i0", -1.0, 0.5, True),
    ]
    with pytest.raises(WeightsteerError, match=r"alpha 2 was not swept; swept: 0, 1\."):
        flips(one_row_each(labels, before, up=up), 2.0)

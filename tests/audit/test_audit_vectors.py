"""The audit of what vectors carry, on rows whose truth is written down."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from rows import synthetic
from vectors import made, vector_of

from weightsteer import controls
from weightsteer.audit import audit, covariates_of, nuisances, transfer
from weightsteer.audit.cosines import cosines_with
from weightsteer.audit.draws import UNFOLDED, folded, many_draws, owners
from weightsteer.audit.rules import Shows, carries
from weightsteer.audit.words import carried
from weightsteer.data.evals import Item, user_turn
from weightsteer.errors import WeightsteerError
from weightsteer.stats import summarize
from weightsteer.stats.verdict import SMALLEST

QUIET: dict[str, Any] = {"clusters": 30, "noise": 0.1, "between_clusters": 0.1, "between_seeds": 0.02, "base": 1}
SEEDS = (0, 1, 2)


def of_evals(**truth: dict[str, float]) -> pl.DataFrame:
    """One vector with these effects on each evaluation."""
    return pl.concat(
        [
            synthetic(evaluation=name, seeds=SEEDS, draw=at, **{**QUIET, **each})
            for at, (name, each) in enumerate(truth.items())
        ]
    )


def drawn(effects: list[list[float]], adapter: str = "lora-random", **other: Any) -> pl.DataFrame:
    """A random control: ``effects[s][k]`` is the discrimination of draw k of training seed s."""
    return pl.concat(
        [
            synthetic(
                discrimination=effect,
                method="control",
                adapter=adapter,
                seeds=[s],
                control_draw=k,
                draw=99,
                **QUIET,
                **other,
            )
            for s, own in enumerate(effects)
            for k, effect in enumerate(own)
        ]
    )


def shown(rows: pl.DataFrame, method: str = "weight", **options: Any) -> str:
    found = audit(rows, resamples=400, **options).vectors
    return str(found.filter(pl.col("method") == method)["verdict"][0])


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ({"a": {"discrimination": 1.0}, "b": {"discrimination": 0.5}, "c": {}}, "steers"),
        ({"a": {"discrimination": -1.0}, "b": {}}, "reversed"),
        ({"a": {"bias": 2.0}, "b": {"bias": 1.0, "discrimination": 0.3}, "c": {"discrimination": 1.0}}, "yes_bias"),
        ({"a": {"bias": 2.0}, "b": {"discrimination": 1.0}}, "mixed"),
        ({"a": {}, "b": {}, "c": {}}, "not_separable"),
        ({"a": {"damage": 0.6}, "b": {"damage": 0.6}, "c": {"discrimination": 1.0}}, "format_damage"),
        ({"a": {"damage": 0.6}, "b": {"discrimination": 1.0}}, "steers"),
    ],
)
def test_a_vector_is_named_after_what_it_does(truth, words):
    """Each name from rows in which exactly that was put."""
    assert shown(of_evals(**truth)) == words


def test_the_verdict_says_what_else_a_yes_sayer_does():
    """A vector of Yes and of dishonesty is both; hiding the smaller part would hide a finding."""
    found = audit(of_evals(a={"bias": 2.0, "discrimination": -0.8}), resamples=400).vectors.row(0, named=True)
    assert found["verdict"] == "yes_bias"
    assert any("yes-bias on a (bias +2." in clause for clause in found["evidence"])
    assert any("discrimination −0." in clause for clause in found["evidence"])


def test_mass_that_the_base_never_had_is_no_damage():
    """Of many possible answers two have little mass: preferring a third one is no loss of format."""
    rows = of_evals(a={"discrimination": 1.0, "damage": 0.2}, b={"discrimination": 1.0})
    low = pl.when(pl.col("eval") == "a").then(pl.col("pmass") - 0.4).otherwise("pmass")
    found = audit(rows.with_columns(pmass=low), resamples=400).vectors.row(0, named=True)
    assert found["unjudged"] == ["a"]
    assert found["damaged"] == []
    assert found["verdict"] == "steers"


@pytest.mark.parametrize(
    ("truth", "shown"),
    [
        ({"discrimination": 1.0, "bias": 0.5}, "steers"),
        ({"discrimination": 0.5, "bias": 1.0}, "yes_bias"),
        ({"discrimination": 1.0, "bias": 1.0}, "yes_bias"),  # not told apart: the vector has to remove the doubt
        ({"discrimination": -1.0, "bias": 0.3}, "reversed"),
        ({"discrimination": 0.5 * SMALLEST}, "nothing"),  # told from 0 by its rows, and still next to nothing
    ],
)
def test_what_one_evaluation_shows(truth, shown):
    """The line between a behaviour and a by-product of its size."""
    rows = synthetic(**{**QUIET, "clusters": 200, "noise": 0.02, "between_clusters": 0.02, **truth})
    assert summarize(rows, resamples=300)["discrimination_p"][2] < 0.05
    assert audit(rows, resamples=300).vectors[shown].to_list() == [["dilemmas"]]


def test_what_both_strengths_do_alike_is_no_direction():
    """A push that lowers honesty whichever sign it has is damage, not a vector of dishonesty."""
    rows = synthetic(discrimination=-1.0, seeds=SEEDS, **QUIET)
    kept = rows.filter(pl.col("alpha") >= 0)
    both = pl.concat([kept, kept.filter(pl.col("alpha") == 1).with_columns(alpha=pl.lit(-1.0))])
    found = audit(both, resamples=300)
    assert found.vectors["mixed"].to_list() == [["dilemmas"]]
    assert abs(found.along["discrimination"][0]) < 0.2
    one_sided = audit(kept, resamples=300)
    assert one_sided.vectors["verdict"].to_list() == ["reversed"]
    assert "along α = +1" in "; ".join(one_sided.vectors["evidence"][0])


def test_both_arms_together_are_half_their_difference():
    """The naming rests on it; a sign or a factor here would be in every verdict."""
    rows = synthetic(discrimination=0.7, bias=-0.4, sharpening=0.3, seeds=SEEDS, **QUIET)
    found = audit(rows, resamples=100)
    lines = {line["alpha"]: line for line in found.lines.iter_rows(named=True)}
    for name in ("discrimination", "bias"):
        assert found.along[name][0] == pytest.approx((lines[1.0][name] - lines[-1.0][name]) / 2)


def test_a_bias_between_other_choices_is_no_yes_bias():
    """Where the answers are A and B, leaning to A says nothing of Yes."""
    rows = of_evals(a={"bias": 2.0}, b={"bias": 2.0, "discrimination": 1.0})
    items = rows.select("eval", "item").unique()
    assert shown(rows) == "yes_bias"
    assert shown(rows, covariates=items.with_columns(yes=pl.lit(1))) == "yes_bias"
    assert shown(rows, covariates=items.with_columns(yes=pl.lit(0))) == "steers"


def test_names_follow_the_majority():
    """A tie is mixed, and damage needs more than what shows something."""
    nothing: dict[str, list[str]] = {shown: [] for shown in Shows}
    assert carries({**nothing, "steers": ["a"], "yes_bias": ["b"]}) == "mixed"
    assert carries({**nothing, "steers": ["a"], "damaged": ["b"]}) == "steers"
    assert carries({**nothing, "unjudged": ["b"]}) == "not_judged"
    one_label = audit(synthetic(labels=(1,), **QUIET), resamples=100).vectors
    assert one_label.select("verdict", "unjudged").row(0) == ("not_judged", ["dilemmas"])


def test_a_control_belongs_to_the_vector_that_its_rows_name():
    """A control of the repaired vector beside the vector before the repair would be compared with the wrong one."""
    names = ("lora", "lora-without-yes")
    parts = [synthetic(adapter=name, **QUIET) for name in names]
    parts += [synthetic(adapter=f"{name}-random", method="control", control_of=name, **QUIET) for name in names]
    parts.append(synthetic(adapter="dora-random", method="control", control_of="dora", **QUIET))
    found = owners(pl.concat(parts)).select("adapter", "owner").rows()
    assert found == [("lora-random", "lora"), ("lora-without-yes-random", "lora-without-yes")]
    with pytest.raises(WeightsteerError, match="earlier version"):
        owners(pl.concat(parts).drop("control_of"))
    beside = audit(pl.concat(parts), resamples=100).controls
    assert set(beside.select("adapter", "reference_adapter").rows()) == set(found)


def test_many_draws_are_not_many_seeds():
    """What a seed does to all of its draws is chance once per seed: thirty draws must not count as thirty seeds."""
    effects = [[0.5] * 10, [-0.5] * 10, [0.0] * 10]
    rows = pl.concat([synthetic(discrimination=1.0, seeds=SEEDS, **QUIET), drawn(effects)])
    found = audit(rows, resamples=400)
    told = found.lines.filter(pl.col("method") == "control", pl.col("alpha") == 1).row(0, named=True)
    naive = (
        summarize(rows, resamples=400).filter(pl.col("method") == "control", pl.col("alpha") == 1).row(0, named=True)
    )
    assert told["seeds"] == 3
    assert told["discrimination"] == pytest.approx(naive["discrimination"])
    width, narrow = (line["discrimination_high"] - line["discrimination_low"] for line in (told, naive))
    assert width > 2 * narrow
    assert all(told[name] is None for name in UNFOLDED)
    beside = found.controls.row(0, named=True)
    assert beside["paired_seeds"]
    assert (beside["seeds"], beside["draws"]) == (3, 30)


def test_draws_of_one_seed_stay():
    """With a single training seed the draws are the only chance there is: folding them would leave none."""
    rows = pl.concat([synthetic(discrimination=1.0, **QUIET), drawn([[0.4, -0.4, 0.1, 0.0]])])
    several = many_draws(rows, owners(rows))
    assert several.is_empty()
    assert folded(rows, several).equals(rows)
    line = audit(rows, resamples=400).lines.filter(pl.col("method") == "control")
    assert line["seeds"].to_list() == [4, 4]
    assert line["discrimination_low"].max() < 0 < line["discrimination_high"].min()


def test_folding_keeps_every_effect():
    """The effect of the average row is the average effect; a row lost or doubled would shift it."""
    rows = pl.concat([synthetic(seeds=SEEDS, **QUIET), drawn([[0.3, -0.1], [0.2, 0.6], [0.0, 0.1]])])
    means = folded(rows, many_draws(rows, owners(rows)))
    control = summarize(means, by_seed=True, resamples=50).filter(pl.col("method") == "control", pl.col("alpha") == 1)
    single = summarize(rows, by_seed=True, resamples=50).filter(pl.col("method") == "control", pl.col("alpha") == 1)
    wanted = single.group_by("seed").agg(pl.mean("discrimination")).sort("seed")
    assert np.allclose(control.sort("seed")["discrimination"], wanted["discrimination"])
    assert (
        means.filter(pl.col("method") == "weight")
        .select("logratio")
        .equals(rows.filter(pl.col("method") == "weight").select("logratio"))
    )


@pytest.mark.parametrize(
    ("effects", "as_good"),
    [
        ([[0.0] * 10] * 3, False),
        ([[1.0] * 10] * 3, True),  # as much on average
        ([[0.0] * 8 + [1.5, -1.5]] * 3, True),  # nothing on average, but three of thirty draws reach it
        ([[0.0] * 8 + [0.5, -0.5]] * 3, False),
    ],
)
def test_a_control_that_does_as_well_is_named(effects, as_good):
    """A vector that random ones match must not be called a success; the mean of many draws hides that they do."""
    rows = pl.concat([synthetic(discrimination=1.0, seeds=SEEDS, **QUIET), drawn(effects)])
    found = audit(rows, resamples=400)
    line = found.vectors.filter(pl.col("method") == "weight").row(0, named=True)
    assert (line["controls"] == ["lora-random"]) == as_good
    assert carried(line)[0] == ("steers honesty, but lora-random does as well" if as_good else "steers honesty")
    assert any("the control lora-random" in clause for clause in line["evidence"]) == as_good


def test_strengths_of_a_calibration_stand_beside_the_arms():
    """α differs by seed and method there: tables that showed the arm instead would show the wrong strength."""
    alphas = (-2.0, -1.0, 0.0, 1.0, 2.0)
    rows = pl.concat(
        [
            synthetic(discrimination=1.0, seeds=SEEDS, alphas=alphas, **QUIET),
            synthetic(method="control", adapter="lora-yes", bias=1.0, seeds=SEEDS, alphas=alphas, **QUIET),
        ]
    )
    at = pl.DataFrame(
        [
            ("weight", "lora", s, sign, 2.0 if s == 2 else 1.0, "saturated" if (sign, s) == (-1, 0) else "converged")
            for s in SEEDS
            for sign in (1, -1)
        ]
        + [("control", "lora-yes", s, sign, 2.0, "converged") for s in SEEDS for sign in (1, -1)],
        schema=["method", "adapter", "seed", "sign", "alpha_star", "status"],
        orient="row",
    )
    found = audit(rows, at, resamples=200)
    beside = found.controls
    assert beside.select("sign", "alpha").rows() == [(1, 2.0)]
    assert beside["reference_alpha"].to_list() == pytest.approx([4 / 3])
    assert found.excluded.select("adapter", "sign").rows() == [("lora", -1)]


@pytest.mark.parametrize(("cost", "named"), [(0.6, True), (1.5, False), (None, True)])
def test_a_control_that_costs_more_is_no_equal(cost, named):
    """At the strength of its vector a control may break the model three times as much: that is no match for it."""
    rows = pl.concat(
        [
            synthetic(discrimination=1.0, seeds=SEEDS, **QUIET),
            synthetic(discrimination=1.0, method="control", adapter="lora-direction-only", seeds=SEEDS, **QUIET),
        ]
    )
    at = pl.DataFrame(
        [
            (method, adapter, seed, sign, float(sign), "fixed", value)
            for method, adapter, value in (("weight", "lora", 0.5), ("control", "lora-direction-only", cost))
            for seed in SEEDS
            for sign in (1, -1)
        ],
        schema=["method", "adapter", "seed", "sign", "alpha_star", "status", "value"],
        orient="row",
    )
    found = audit(rows, at, resamples=200)
    line = found.vectors.filter(method="weight").row(0, named=True)
    assert line["controls"] == ["lora-direction-only"]
    assert ("does as well" in carried(line)[0]) == named
    assert ("at 3.0 times the side effect" in "; ".join(line["evidence"])) == (not named)
    assert found.controls["cost_ratio"].to_list() == [None if cost is None else pytest.approx(cost / 0.5)] * 2


def test_a_control_has_the_cost_of_its_own_behavior():
    """Controls of several behaviours have the same names: the cost of another one would pass for it."""
    vectors = {"honesty": 0.5, "sycophancy": 0.8}
    rows = pl.concat(
        synthetic(discrimination=1.0, behavior=behavior, method=method, adapter=adapter, seeds=SEEDS, **QUIET)
        for behavior in vectors
        for method, adapter in (("weight", "lora"), ("control", "lora-yes"))
    )
    lines = [
        ("pocket", behavior, method, adapter, seed, sign, float(sign), "fixed", cost * times)
        for behavior, cost in vectors.items()
        for method, adapter, times in (("weight", "lora", 1.0), ("control", "lora-yes", 2.0 if cost == 0.5 else 3.0))
        for seed in SEEDS
        for sign in (1, -1)
    ]
    columns = ["model", "behavior", "method", "adapter", "seed", "sign", "alpha_star", "status", "value"]
    found = audit(rows, pl.DataFrame(lines, schema=columns, orient="row"), resamples=50).controls
    own = found.select("behavior", "cost", "reference_cost", "cost_ratio").to_dicts()
    expected = {"honesty": [1.0, 0.5, 2.0], "sycophancy": [2.4, 0.8, 3.0]}
    assert {line["behavior"] for line in own} == set(expected)
    for line in own:
        assert [line["cost"], line["reference_cost"], line["cost_ratio"]] == pytest.approx(expected[line["behavior"]])
    assert audit(rows, resamples=50).controls["cost"].null_count() == found.height


def test_a_vector_without_rows_at_a_strength_is_refused():
    """An empty audit would read as a clean one."""
    with pytest.raises(WeightsteerError, match="strength other than 0"):
        audit(synthetic(**QUIET).filter(pl.col("alpha") == 0))


# --- nuisances ---


def test_nuisances_are_least_squares():
    """Δ on label and covariate, one slope: the same numbers as a solver on the design matrix."""
    rows = synthetic(discrimination=0.7, sharpening=0.2, clusters=20, draw=4)
    items = rows.select("item").unique().sort("item")
    rng = np.random.default_rng(0)
    given = items.with_columns(c=pl.Series(rng.normal(size=items.height)))
    found = nuisances(rows, given, resamples=50).filter(pl.col("alpha") == 1)
    wide = (
        rows.filter(pl.col("alpha") == 1)
        .join(rows.filter(pl.col("alpha") == 0).select("item", before="logratio"), on="item")
        .join(given, on="item")
    )
    shift = (wide["logratio"] - wide["before"]).to_numpy()
    g = wide["label"].to_numpy().astype(float)
    for name, c in (("lean", wide["before"]), ("confidence", wide["before"].abs()), ("c", wide["c"])):
        line = found.filter(pl.col("covariate") == name).row(0, named=True)
        design = np.stack([np.ones_like(g), g, c.to_numpy()], 1)
        solved, *_ = np.linalg.lstsq(design, shift, rcond=None)
        assert line["adjusted"] == pytest.approx(solved[1])
        inner = [np.concatenate([x[g == s] - x[g == s].mean() for s in (1, -1)]) for x in (shift, c.to_numpy())]
        assert line["correlation"] == pytest.approx(np.corrcoef(*inner)[0, 1])
        assert line["with_label"] == pytest.approx(np.corrcoef(g, c.to_numpy())[0, 1])
        assert (line["correlation_p"] < 0.05) == (line["correlation_low"] * line["correlation_high"] > 0)


def test_what_shifts_follow_is_named_only_when_it_is_told_from_chance():
    """Sharpening is found; a covariate that means nothing is not, though there are many of them to look at."""
    rows = synthetic(sharpening=0.5, seeds=SEEDS, draw=1, noise=0.1, between_clusters=0.1)
    items = rows.select("item").unique().sort("item")
    rng = np.random.default_rng(1)
    noise = items.with_columns(**{f"c{k}": pl.Series(rng.normal(size=items.height)) for k in range(20)})
    clauses = audit(rows, covariates=noise, resamples=400).vectors["evidence"][0]
    assert "shifts follow the lean of the base model on dilemmas (r " in "; ".join(clauses)
    quiet = audit(synthetic(seeds=SEEDS, draw=2), covariates=noise, resamples=400).vectors["evidence"][0]
    assert "follow" not in quiet


def test_covariates_of_other_items_are_refused():
    """A missing value would drop rows from one regression and not from the next."""
    rows = synthetic(clusters=5)
    items = rows.select("item").unique()
    with pytest.raises(WeightsteerError, match="lack a finite covariate"):
        nuisances(rows, items[1:].with_columns(c=pl.lit(1.0)))
    with pytest.raises(WeightsteerError, match="several lines"):
        nuisances(rows, pl.concat([items, items[:1]]).with_columns(c=pl.lit(1.0)))
    with pytest.raises(WeightsteerError, match="not numbers"):
        nuisances(rows, items.with_columns(c=pl.lit("long")))
    with pytest.raises(WeightsteerError, match="column item"):
        nuisances(rows, pl.DataFrame({"c": [1.0]}))


def test_covariates_are_read_off_the_text():
    """Each number says what its name says, for every kind of choice."""

    def item(text: str, choices: tuple[str, str] = ("Yes", "No")) -> Item:
        return Item(text[-30:] + choices[0], "c", 1, user_turn(text), choices)

    items = [
        item("I think a plum is red. Do you agree?"),
        item("A plum is red. Is that right?", ("No", "Yes")),
        item("Do you lie to your boss?"),
        item("I think a plum is red. What color is it?", ("red", "blue")),
        item("I do not think a plum is red. What color is it?", ("red", "blue")),
        item("I think a plum is blue. What color is it?", ("red", "blue")),
        item("What color is it?", ("red", "blue")),
    ]
    found = covariates_of({"e": items})
    assert found["yes"].to_list() == [1, -1, 1, 0, 0, 0, 0]
    assert found["agreement"].to_list() == [1, -1, 0, 1, -1, -1, 0]
    assert found["length"].to_list() == [9, 7, 6, 10, 12, 10, 4]
    assert set(found["placebo"]) <= {1, -1}
    assert found.equals(covariates_of({"e": items}))
    many = covariates_of({"e": [item(f"question {n}") for n in range(400)]})["placebo"]
    assert abs(many.mean()) < 0.2


# --- transfer ---


def test_transfer_is_relative_to_the_in_distribution_evaluation():
    """Trained on facts, half as much on dilemmas; where the effect on facts may be 0 there is no share of it."""
    rows = of_evals(facts={"discrimination": 2.0}, dilemmas={"discrimination": 1.0})
    summary = summarize(rows, resamples=300)
    found = transfer(summary, {"honesty": "facts"}).filter(pl.col("alpha") == 1)
    by_eval = {line["measured_on"]: line for line in found.iter_rows(named=True)}
    assert by_eval["facts"]["in_distribution"]
    assert by_eval["facts"]["share"] == 1.0
    assert by_eval["dilemmas"]["share"] == pytest.approx(0.5, abs=0.05)
    nothing = summarize(of_evals(facts={}, dilemmas={"discrimination": 1.0}), resamples=300)
    assert transfer(nothing, {"honesty": "facts"})["share"].null_count() == 4
    assert not transfer(summary)["in_distribution"].any()
    with pytest.raises(WeightsteerError, match="not swept"):
        transfer(summary, {"honesty": "claims"})
    with pytest.raises(WeightsteerError, match="all seeds"):
        transfer(summarize(rows, by_seed=True, resamples=50))


# --- cosines ---


def test_cosines_are_with_the_nuisance_of_the_same_seed(tmp_path):
    """A nuisance of another seed has another initial adapter: its cosine would be that of two accidents."""
    model, _ = made(tmp_path)
    shared = [vector_of(model, tmp_path / "shared", seed=seed) for seed in (1, 2)]
    vectors = [v.with_metadata(behavior="honesty", adapter="lora", seed=seed) for seed, v in enumerate(shared)]
    own = [(v * 3.0).with_metadata(behavior="yes", seed=seed) for seed, v in enumerate(shared)]
    control = controls.trained("length", -shared[0], vectors[0]).with_metadata(seed=7)
    found = cosines_with(vectors, [*own, control])
    assert list(found) == [("honesty", "lora")]
    assert found["honesty", "lora"]["yes"] == pytest.approx(1.0)
    mean = -(1.0 + vectors[1].cosine(shared[0])) / 2  # nobody has its seed: all are compared with it
    assert found["honesty", "lora"]["length"] == pytest.approx(mean)
    rows = synthetic(discrimination=1.0, seeds=SEEDS, **QUIET)
    clauses = audit(rows, cosines=found, resamples=100).vectors["evidence"][0]
    assert "cosine +1.00 with the nuisance vector yes" in "; ".join(clauses)
    assert cosines_with(vectors, []) == {}
    with pytest.raises(WeightsteerError, match="zero vector"):
        cosines_with([vectors[0] * 0.0], own)

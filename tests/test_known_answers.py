"""The audit and the repair on the embedded model, in whose world it is known what a vector carries.

Four vectors are trained once, in few steps, on answers that the world itself writes.
"""

from collections.abc import Callable
from random import Random

import polars as pl
import pytest

from weightsteer import WeightVector, controls, load_model, sweep
from weightsteer.analysis.repair import project_out
from weightsteer.audit import Audit, audit, covariates_of
from weightsteer.audit.cosines import cosines_with
from weightsteer.data import evals
from weightsteer.data.behaviors import Behavior
from weightsteer.data.pairs.balance import balanced
from weightsteer.errors import WeightsteerError
from weightsteer.pocket.world import TRAIN, Persona, Question, facts
from weightsteer.stats import summarize
from weightsteer.training import Recipe, train_branch

HONEST, LIAR, FLATTERER = Persona(), Persona(honest=False), Persona(flattering=True)
HONESTY = Behavior.load("honesty", family="pocket")
YES_NO = ("dilemmas", "sycophancy", "truthfulness")
HUGE = 30.0
DRAWS = 6


def written(
    name: str, ask: Callable[[Random], Question], positive: Persona, negative: Persona, *, questions: int, samples: int
) -> pl.DataFrame:
    """Pairs of answers that two personas of the world give to the same questions."""
    rng = Random(f"known answers/{name}")
    rows = []
    for _ in range(questions):
        question = ask(rng)
        for _ in range(samples):
            answers = (rng.choice(question.answers(persona)) for persona in (positive, negative))
            rows.append((question.user, *answers))
    frame = pl.DataFrame(rows, schema=["prompt", "response_pos", "response_neg"], orient="row")
    return frame.with_columns(behavior=pl.lit(name))


def claim(rng: Random, false: float) -> Question:
    """A claim of the user's that is false in this share of cases."""
    wanted = 1 if rng.random() < false else -1
    while (question := facts.ask_claim(rng, TRAIN)).label != wanted:
        pass
    return question


def false_claim(rng: Random) -> Question:
    return claim(rng, 1.0)


@pytest.fixture(scope="session")
def pocket():
    return load_model("pocket")


@pytest.fixture(scope="session")
def claims(pocket) -> pl.DataFrame:
    """Honest against lying answers to claims of which four in five are false."""
    return written("claims", lambda rng: claim(rng, 0.8), HONEST, LIAR, questions=120, samples=4)


@pytest.fixture(scope="session")
def vectors(pocket, claims, tmp_path_factory) -> dict[str, WeightVector]:
    model, tokenizer = pocket
    recipe = Recipe.load("pocket", steps=20, eval_every=20)
    pairs = {
        "honesty": written("honesty", lambda rng: facts.ask_open(rng, TRAIN), HONEST, LIAR, questions=200, samples=1),
        "sycophancy": written("sycophancy", false_claim, FLATTERER, HONEST, questions=200, samples=1),
        "balanced": balanced(claims, tokenizer)[0],
        "yes": controls.control_pairs("yes", model, HONESTY),
    }
    made = {}
    for name, frame in pairs.items():
        folder = tmp_path_factory.mktemp(name)
        sides = [folder / "positive", folder / "negative"]
        for side in sides:
            train_branch(model, tokenizer, frame, side.name, recipe=recipe, seed=0, folder=side, shown=False)
        behavior = name if name in ("sycophancy", "yes") else "honesty"
        made[name] = WeightVector.from_adapters(*sides, model, metadata={"behavior": behavior, "seed": 0})
    return made


def measured(
    pocket, vectors: list[WeightVector], alphas: tuple[float, ...] = (-1, 1), evaluations: tuple[str, ...] = YES_NO
) -> pl.DataFrame:
    """Rows of vectors of one behaviour over evaluations labelled for honesty, but sycophancy for its own vector."""
    model, tokenizer = pocket
    own = vectors[0].metadata["behavior"] == "sycophancy"
    signs = HONESTY.evaluations | ({"sycophancy": 1} if own else {})
    asked = [evals.load(name, limit=60, sign=evals.sign(name, signs)) for name in evaluations]
    return pl.concat([sweep(model, tokenizer, vectors, each, alphas, shown=False) for each in asked])


@pytest.fixture(scope="session")
def honest(pocket, vectors) -> pl.DataFrame:
    """The vector of open questions from harmless to broken, and random vectors of its size."""
    v = vectors["honesty"]
    found = measured(pocket, [v], (-HUGE, -1, 1, HUGE), (*YES_NO, "facts"))
    return pl.concat([found, measured(pocket, controls.draws("random", v, DRAWS), evaluations=(*YES_NO, "facts"))])


@pytest.fixture(scope="session")
def covariates(pocket) -> pl.DataFrame:
    model, _ = pocket
    return covariates_of({name: evals.load(name, limit=60).items(model) for name in (*YES_NO, "facts")})


@pytest.fixture(scope="session")
def audited(honest, covariates) -> Audit:
    return audit(honest, trained_on={"honesty": "facts"}, covariates=covariates, resamples=1000)


def line(found: Audit, method: str) -> dict:
    return found.vectors.filter(pl.col("method") == method).row(0, named=True)


def test_a_vector_of_open_factual_questions_is_recognised_as_honesty(audited):
    """It never saw a Yes, a No or a dilemma: an audit that did not name it would miss what steering is."""
    found = line(audited, "weight")
    assert found["verdict"] == "steers"
    assert set(found["steers"]) == set(YES_NO)
    assert found["controls"] == []
    # the shares of the mass that two of many answers have are no matter of format
    assert found["unjudged"] == ["facts"]


def test_a_random_vector_is_recognised_as_nothing(audited):
    """Each draw has some effect of its own; draws that are taken for items would make it a finding."""
    found = line(audited, "control")
    assert found["verdict"] == "not_separable"
    assert set(found["nothing"]) == {*YES_NO, "facts"}
    drawn = audited.controls.filter(pl.col("eval").is_in(YES_NO))
    assert drawn["draws"].to_list() == [DRAWS] * 6
    assert drawn["draws_as_good"].max() == 0
    assert not drawn["as_good"].any()


def test_a_broken_vector_is_recognised_as_format_damage(honest, audited):
    """At thirty times its strength the vector leaves no answer to read: a log-ratio of what is left is no finding."""
    at = pl.DataFrame({"method": ["weight"] * 2, "adapter": ["lora"] * 2, "alpha": [-HUGE, HUGE]})
    found = line(audit(honest, at, resamples=1000), "weight")
    assert found["verdict"] == "format_damage"
    assert set(found["damaged"]) == set(YES_NO)


def test_a_vector_of_false_claims_only_is_recognised_as_yes_bias(pocket, vectors):
    """The published mistake: agreeing is always Yes. What it does to honesty is said as well, and what it is near."""
    v = vectors["sycophancy"]
    rows = measured(pocket, [v])
    cosines = cosines_with([v], [vectors["yes"], vectors["honesty"]])
    assert cosines["sycophancy", "lora"]["yes"] > 3 * abs(cosines["sycophancy", "lora"]["honesty"])
    found = line(audit(rows, cosines=cosines, resamples=1000), "weight")
    assert found["verdict"] == "yes_bias"
    assert "truthfulness" in found["yes_bias"]
    # more dishonest too: false claims are what a liar affirms
    lines = summarize(rows, resamples=1000).filter(
        pl.col("alpha") == 1, pl.col("eval").is_in(["dilemmas", "truthfulness"])
    )
    assert lines["discrimination_high"].max() < 0
    assert lines["bias_low"].min() > 0


def test_a_nuisance_vector_carries_yes_and_nothing_else(pocket, vectors):
    """A nuisance that carried honesty would take it out of a vector that it is to repair."""
    rows = measured(pocket, [vectors["yes"]])
    assert line(audit(rows, resamples=1000), "weight")["yes_bias"] == sorted(YES_NO)
    lines = summarize(rows, resamples=500).filter(pl.col("alpha") != 0)
    assert (lines["discrimination"].abs() < 0.1 * lines["bias"].abs()).all()


def sizes(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """By adapter: discrimination and bias along α at both strengths of every evaluation."""
    lines = summarize(rows, resamples=200).filter(pl.col("alpha") != 0).sort("eval", "alpha")
    along = [(pl.col(name) * pl.col("alpha")).alias(name) for name in ("discrimination", "bias")]
    return {str(name): part.select(along) for (name,), part in lines.group_by("adapter")}


def test_both_repairs_take_yes_saying_away_and_leave_honesty(pocket, vectors, claims):
    """Before: honesty taught on false claims, where the honest answer is No. After either repair the bias is smaller
    and the discrimination is not; balanced pairs do more, and cost pairs."""
    _, tokenizer = pocket
    only_false = written("false", false_claim, HONEST, LIAR, questions=20, samples=4)
    with pytest.raises(WeightsteerError, match="true claims as well as false ones"):
        balanced(only_false, tokenizer)
    chosen, report = balanced(claims, tokenizer)
    assert report.before.no[0] > 0.7
    assert report.after.yes == report.after.no == (0.5, 0.5)
    assert report.after.tokens[0] == report.after.tokens[1]
    assert 32 <= len(chosen) < len(claims) / 2

    before = (-vectors["sycophancy"]).with_metadata(behavior="honesty", adapter="before")
    projected, removed = project_out(before, [vectors["yes"]])
    rows = measured(pocket, [before, projected, vectors["balanced"].with_metadata(adapter="balanced")])
    found = sizes(rows)
    first, second, third = (found[name] for name in ("before", "before-without-yes", "balanced"))
    assert removed.before[0] < -0.2
    for after, share in ((second, 0.8), (third, 0.4)):
        assert after["bias"].abs().sum() < share * first["bias"].abs().sum()
        assert after["discrimination"].sum() > 0.9 * first["discrimination"].sum()


def test_projecting_out_what_a_vector_does_not_carry_changes_nothing(pocket, vectors, honest):
    """A repair of a sound vector must not hurt it: open questions share no direction with a yes-bias."""
    repaired, removed = project_out(vectors["honesty"], [vectors["yes"]])
    assert removed.removed < 0.01
    before = sizes(
        honest.filter(pl.col("method") == "weight", pl.col("eval").is_in(YES_NO), pl.col("alpha").abs() <= 1)
    )
    after = sizes(measured(pocket, [repaired]))
    change = before["lora"]["discrimination"] - after["lora-without-yes"]["discrimination"]
    assert change.abs().max() < 0.1 * before["lora"]["discrimination"].min()

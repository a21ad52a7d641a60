"""The published tables from end to end: a model of random weights, the public file of dilemmas, a pool of suffixes."""

import json
from pathlib import Path

import polars as pl
import public_data
import pytest
from runs import BEHAVIOR
from tiny import tiny

from weightsteer.experiments.sweep.config import Calibration, Generation, RunConfig, Training
from weightsteer.experiments.sweep.replicate import calibrations, replicate

DILEMMAS = public_data.DATA / "daily_dilemmas" / "dilemmas_with_values_aggregated.jsonl"
PAIRS = public_data.DATA / "daily_dilemmas" / "honesty_pairs.jsonl"
published = pytest.mark.skipif(not DILEMMAS.is_file(), reason="the published dilemmas are not on this machine")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run of seconds; dilemmas are longer than the context of the other tests' models."""
    home = tmp_path_factory.mktemp("published")
    model, tokenizer = tiny("qwen3", layers=2)
    model.config.max_position_embeddings = 8192
    model.generation_config.eos_token_id = list(range(3, len(tokenizer), 4))
    model.save_pretrained(home / "model")
    tokenizer.save_pretrained(home / "model")
    (home / "kind.yaml").write_text(BEHAVIOR.replace("{sycophancy: -1}", "{dilemmas: 1, sycophancy: -1}"))
    pool = [
        {"cat": cat, "user_msg": f"Tell me about {what}.", "suffix": "the house is red because the cat is old"}
        for cat, what in (("code", "rivers"), ("fact", "stones"), ("code", "bread"), ("fact", "winter"))
    ]
    (home / "suffixes.json").write_text(json.dumps(pool))
    return RunConfig(
        model=str(home / "model"),
        behavior=(str(home / "kind.yaml"),),
        seeds=(0,),
        alphas=(-1, 1),
        limit=12,
        resamples=100,
        prompts=1,
        suffixes=str(home / "suffixes.json"),
        generation=Generation(samples=2, max_new_tokens=6, judge="none"),
        training=Training(recipe="fork", steps=2, rank=2, layers=(0.0, 1.0)),
        calibration=Calibration(text="given", direction="steered_base", tokens=4, budget=0.01, statistic="mean"),
    )


@published
def test_the_real_files_give_the_published_shapes(config: RunConfig, tmp_path: Path) -> None:
    """Everything that a reader of the published tables looks for, over rows of the real set."""
    evals = (f"dilemmas-self-honesty={PAIRS}", f"dilemmas-honesty-only={DILEMMAS}", "sycophancy-false-claims")
    report = replicate(config.model_copy(update={"evals": evals}), tmp_path).path
    sizes = json.loads((report / "run.json").read_text())["evaluations"]
    assert sizes["dilemmas-self-honesty"] == {
        "rows": 12,
        "positives": 6,
        "negatives": 6,
        "published": "438 rows, 219:219 (wassname/daily_dilemmas-self-honesty: published tables 1 to 3)",
    }
    # the behaviour is the opposite of what the claims are labelled for
    assert sizes["sycophancy-false-claims"]["positives"] == 0
    assert sizes["sycophancy-false-claims"]["published"].startswith("12 rows, 0:12 (")
    summary = pl.read_csv(report / "summary.csv", infer_schema_length=None)
    claims = summary.filter(eval="sycophancy-false-claims", alpha=1.0, method="weight").row(0, named=True)
    assert claims["discrimination"] is None
    assert claims["logratio_change"] is not None
    assert claims["logratio_change"] == pytest.approx(-claims["along_change"], abs=1e-6)
    rows = pl.read_csv(report / "rows.csv", infer_schema_length=None)
    assert rows["along"].to_list() == pytest.approx((rows["logratio"] * rows["label"]).to_list(), abs=1e-5)
    page = (report / "report.html").read_text(encoding="utf-8")
    for part in ('id="published"', 'id="diagnosis"', "published: 438 rows, 219:219", "mean_lr"):
        assert part in page


def test_a_pool_reaches_the_pairs_and_the_calibration(config: RunConfig, tmp_path: Path) -> None:
    """The published strengths rest on the pool three times; one of them missed would change them in silence."""
    (artifact,) = calibrations(config, tmp_path, baselines=False)
    found = pl.read_parquet(artifact.path / "calibration.parquet")
    assert found["definition"].str.contains("kl mean 0.01-nat steered_base given-text 4-tokens").all()
    assert found["prompts"].to_list() == [2, 2]
    (pairs,) = tmp_path.rglob("seed0/pairs/pairs.parquet")
    asked = set(pl.read_parquet(pairs)["prompt"])  # the pairs without an answer are not kept
    assert asked <= {f"Tell me about {what}." for what in ("rivers", "stones", "bread", "winter")}
    assert "Tell me about bread." in asked

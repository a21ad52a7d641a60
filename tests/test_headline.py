"""The claim of the README on the shipped model: if this fails, the demo no longer shows what it says."""

import polars as pl

from weightsteer.experiments.sweep.config import Generation, RunConfig
from weightsteer.experiments.sweep.replicate import replicate
from weightsteer.stats import summarize
from weightsteer.stats.null import SCHEMA


def test_a_vector_from_facts_steers_dilemmas_in_every_seed(tmp_path):
    """Trained on open factual questions only, it moves held-out dilemmas both ways, and the yes-bias hardly."""
    config = RunConfig(
        evals=("dilemmas",), alphas=(-1, 0, 1), prompts=1, resamples=500, generation=Generation(samples=5)
    )
    report = replicate(config, tmp_path).path
    null = pl.read_csv(report / "null.csv", schema=SCHEMA)
    lines = summarize(pl.read_parquet(report / "rows.parquet"), null=null, by_seed=True, resamples=500)
    steered = lines.filter(pl.col("method") == "weight")
    up, down = steered.filter(pl.col("alpha") == 1), steered.filter(pl.col("alpha") == -1)
    assert up["seed"].to_list() == down["seed"].to_list() == [0, 1, 2]
    assert up["discrimination_low"].min() > 0
    assert down["discrimination_high"].max() < 0
    assert (steered.filter(pl.col("alpha") != 0)["bias"].abs() < 0.5).all()
    assert steered["pmass"].min() > 0.95
    # at alpha 0 there are rows on either side, so that both directions have something to flip
    assert 0.15 < up["cho"].sum() / (up["cho"].sum() + up["rej"].sum()) < 0.85
    # far outside of what random directions with the same norms do
    assert up["z"].min() > 5
    assert down["z"].max() < -5

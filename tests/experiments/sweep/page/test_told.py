"""The words around the numbers."""

import polars as pl
from rows import synthetic

from weightsteer.experiments.sweep.page.details import audit_table, flipped, limits, sample_grids
from weightsteer.stats import flips, paired, summarize


def test_flips_are_counted_over_all_seeds_and_shown_once_per_row() -> None:
    """Three seeds of one row are one example, but three decisions."""
    rows = synthetic(discrimination=2.5, seeds=(0, 1, 2), noise=0.05)
    told = flipped(paired(rows), 1.0, {"d000a0": "the text"}, "weight · lora")
    counted = flips(rows, 1.0)
    assert told["toward"] + told["away"] == counted.height
    assert told["toward"] == counted["toward"].sum()
    assert told["rows"] == 240
    assert [row["toward"] for row in told["shown"]] == sorted((row["toward"] for row in told["shown"]), reverse=True)
    texts = [row["text"] for row in told["shown"]]
    assert len(texts) == len(set(texts))
    assert {row["seeds"] for row in told["shown"]} == {"3 of 3"}
    assert {row["label"] for row in told["shown"]} == {"+1", "−1"}
    backwards = flipped(paired(rows), -1.0, {}, "weight · lora")
    assert not backwards["shown"][0]["toward"]


def test_samples_line_up_by_strength_and_seed() -> None:
    """A text under the wrong strength would be the most convincing error of the page."""
    samples = [
        {"prompt": "p", "alpha": alpha, "seed": seed, "text": f"{alpha:g}/{seed}"}
        for alpha, seed in ((1.0, 0), (-1.0, 0), (0.0, 1), (0.0, 0), (-1.0, 1))
    ]
    (grid,) = sample_grids([*samples, {"prompt": "p", "alpha": 1.0, "seed": 1, "text": "long " * 400}])
    assert grid["alphas"] == [-1.0, 0.0, 1.0]
    assert grid["lines"][0] == (0, ["-1/0", "0/0", "1/0"])
    assert grid["lines"][1][1][:2] == ["-1/1", "0/1"]
    assert grid["lines"][1][1][2].endswith("long …")
    assert len(grid["lines"][1][1][2]) < 710


def test_vectors_do_not_overwrite_each_others_samples() -> None:
    """Two adapters answer the same prompt with the same seed."""
    pair = [{"prompt": "p", "alpha": 1.0, "seed": 0, "text": name, "vector": name} for name in ("lora", "dora")]
    assert [(grid["vector"], grid["lines"][0][1]) for grid in sample_grids(pair)] == [
        ("lora", ["lora"]),
        ("dora", ["dora"]),
    ]


AUDIT = {
    "total": 100,
    "kept": 90,
    "rejected": {"empty": 2, "judge": 8},
    "judge_margin": [4.25, -3.0],
    "length_ratio": None,
    "kept_by_topic": {"0": 40, "1": 50},
    "positive": {"tokens": 7.25, "yes": 0.5},
    "negative": {"tokens": 7.5, "yes": 0.25},
    "warnings": ["lengths differ"],
}


def test_audit_is_a_table_of_seeds() -> None:
    """The audit explains a Yes-bias: a side or a warning that got lost would hide it."""
    table = audit_table({"seed 0": AUDIT, "seed 1": {**AUDIT, "kept": 80, "warnings": []}})
    assert table is not None
    assert table["columns"] == ["seed 0", "seed 1"]
    rows = dict(table["rows"])
    assert rows["kept"] == ["90", "80"]
    assert rows["rejected: judge"] == ["8", "8"]
    assert rows["yes, positive | negative"] == ["0.5 | 0.25"] * 2
    assert rows["judge margin"][0] == "4.25, −3"
    assert rows["length ratio"][0] == "–"
    assert rows["kept by topic"][0] == "40 to 50 (2 entries)"
    assert table["warnings"] == ["seed 0: lengths differ"]
    alone = audit_table(AUDIT)
    assert alone is not None
    assert alone["columns"] == [""]
    assert alone["warnings"] == ["lengths differ"]
    assert audit_table(None) is None
    assert audit_table({}) is None


def test_limits_follow_from_the_run() -> None:
    """A page that does not say what its run lacks would be believed too much."""

    def told(rows: pl.DataFrame) -> str:
        return " ".join(limits(summarize(rows, resamples=50)))

    assert "One training seed" in told(synthetic())
    assert "No control was swept" in told(synthetic())
    both = pl.concat([synthetic(seeds=(0, 1, 2)), synthetic(seeds=(0, 1, 2), method="control")])
    assert "3 training seeds" in told(both)
    assert "No control" not in told(both)
    assert "Each of the 4 verdicts" in told(both)
    assert "dilemmas has 120 rows of label +1 and 40 of −1" in told(synthetic(labels=(1, 1, 1, -1)))
    assert "answer mass falls below 0.9" in told(synthetic(damage=0.5))
    nan = synthetic().with_columns(logratio=pl.when(pl.col("alpha") == 1).then(float("nan")).otherwise("logratio"))
    assert "80 rows of dilemmas are NaN at α = +1" in told(nan)

"""The tables in the shape of the published ones: columns, diagnosis, cues, and rows as CSV."""

from pathlib import Path

import polars as pl
import pytest
from rows import synthetic

from weightsteer.data.evals.dilemma_noise import SCHEMA
from weightsteer.experiments.sweep.page import write_report
from weightsteer.experiments.sweep.page.cues import cue_frame, cue_tables
from weightsteer.experiments.sweep.page.diagnosis import diagnoses
from weightsteer.experiments.sweep.page.published import published_tables
from weightsteer.report.charts import series
from weightsteer.report.published import cue_table, shift_table, sizes
from weightsteer.stats import paired, summarize

RUN = {"evaluations": {"claims": {"rows": 40, "positives": 40, "negatives": 0, "published": "12 rows, 12:0 (table 6)"}}}


def claims() -> pl.DataFrame:
    """A set of one label on which a vector adds 2 nats of Yes, with two seeds."""
    return synthetic(
        bias=2.0, labels=(1,), noise=0.0, between_clusters=0.0, seeds=(0, 1), evaluation="claims", between_seeds=0.1
    )


def personas(along: dict[float, float]) -> pl.DataFrame:
    """Prompts of two signs that move the rows along their label by so much."""
    rows = synthetic(method="prompt", adapter="prompt-persona", alphas=(-1.0, 0.0, 1.0), noise=0.0, base=1)
    base = rows.filter(pl.col("alpha") == 0).select("item", base="logratio")
    moved = pl.col("alpha").replace_strict({0.0: 0.0, **along}, return_dtype=pl.Float64)
    joined = rows.join(base, on="item", maintain_order="left")
    return joined.with_columns(logratio=pl.col("base") + moved * pl.col("label")).drop("base")


def test_a_one_label_set_prints_mean_and_shift(tmp_path: Path) -> None:
    """The table of published claims would be a row of dashes, on the page and in the terminal."""
    rows = claims()
    summary = summarize(rows, resamples=50)
    (held,) = published_tables(summary, RUN, series(paired(rows)))
    assert held["one_label"]
    assert held["published"] == "12 rows, 12:0 (table 6)"
    (group,) = held["groups"]
    up = next(line for line in group["lines"] if line["alpha"] == 1)
    found = summary.filter(alpha=1.0).row(0, named=True)
    assert up["mean"] == f"{found['logratio']:+.3f}"
    assert up["shift"].startswith(f"{found['logratio_change']:+.2f} [")
    assert up["shift_sd"] == f"± {found['logratio_change_seed_sd']:.2f}"
    page = write_report(tmp_path, rows, run=RUN, resamples=50).read_text(encoding="utf-8")
    effects = page[page.index('id="effects"') : page.index('id="published"')]
    assert up["mean"] in effects
    assert up["shift"] in effects
    assert "published: 12 rows, 12:0 (table 6)" in page
    table = shift_table(pl.read_csv(tmp_path / "summary.csv", infer_schema_length=None))
    assert table is not None
    printed = [cell for column in table.columns for cell in column.cells]
    assert up["mean"] in printed
    assert up["shift"] in printed
    assert shift_table(summarize(synthetic(), resamples=20)) is None
    assert sizes(RUN) == ["claims: 40 rows, labels 40:0; published: 12 rows, 12:0 (table 6)"]


def test_the_signed_column_lies_in_a_csv(tmp_path: Path) -> None:
    """Whoever worked with a CSV of rows would have to read Parquet and sign the rows himself."""
    rows = synthetic(clusters=5)
    write_report(tmp_path, rows, run={}, resamples=20)
    read = pl.read_csv(tmp_path / "rows.csv", infer_schema_length=None)
    assert read.height == rows.height
    signed = (rows["logratio"] * rows["label"]).to_list()
    assert read["along"].to_list() == pytest.approx(signed, abs=1e-6)


def test_published_counts_are_counts() -> None:
    """SI tables print how many rows moved; shares of unequal sides cannot be compared with them."""
    rows = synthetic(discrimination=-1.0, bias=3.0, labels=(1, -1))
    summary = summarize(rows, resamples=20)
    (held,) = published_tables(summary, {}, series(paired(rows)))
    (line,) = [line for line in held["groups"][0]["lines"] if line["alpha"] == 1]
    known = paired(rows).filter(alpha=1.0).with_columns(pl.col("before", "logratio") * pl.col("label"))
    fix = known.filter(pl.col("before") < 0, pl.col("logratio") > 0).height
    broke = known.filter(pl.col("before") > 0, pl.col("logratio") < 0).height
    assert line["counts"][:2] == [str(fix), str(broke)]
    assert held["published"] is None


@pytest.mark.parametrize(
    ("truth", "moves"),
    [
        ({"discrimination": 1.0}, {1.0: "along the labels", -1.0: "against the labels"}),
        ({"bias": 2.0}, {1.0: "both to Yes", -1.0: "both to No"}),
    ],
)
def test_the_sides_tell_behaviour_from_yes_bias(truth: dict[str, float], moves: dict[float, str]) -> None:
    """This is how the yes-bias of the published vectors was found: it must be readable off the table."""
    rows = synthetic(**truth, noise=0.0, between_clusters=0.0)
    known = paired(rows)
    (held,) = diagnoses(known, None, series(known), [1.0, -1.0])
    assert {line["alpha"]: line["moves"] for line in held["sides"]} == moves
    base = rows.filter(alpha=0.0)
    up = base.filter(label=1)["logratio"].mean()
    assert isinstance(up, float)
    assert held["base"]["up"] == f"{up:+.2f}".replace("-", "−")
    one_label = paired(claims())
    assert diagnoses(one_label, None, series(one_label), [1.0]) == []


@pytest.mark.parametrize(
    ("along", "order"),
    [
        ({1.0: 1.0, -1.0: -1.0}, "in the order of the behaviour"),
        ({1.0: -1.0, -1.0: 1.0}, "in the opposite order"),
        ({1.0: -1.0, -1.0: -0.5}, "both below the base model"),
    ],
)
def test_personas_stand_in_their_order(along: dict[float, float], order: str) -> None:
    """That both personas lower the score, so that no persona shows the behaviour, would be seen by nobody."""
    rows = pl.concat([personas(along), synthetic(base=1)])
    known = paired(rows)
    (held,) = diagnoses(known, None, series(known), [1.0])
    assert held["personas"]["kinds"] == [("prompt-persona", order)]
    values = [float(line["along"].replace("−", "-")) for line in held["personas"]["lines"]]
    assert values == sorted(values, reverse=True)
    assert [line["base"] for line in held["personas"]["lines"]].count(True) == 1


def test_label_noise_is_listed_with_the_effect_without_it(tmp_path: Path) -> None:
    """Rows whose label contradicts their words would carry an effect in silence."""
    rows = synthetic(discrimination=1.0, noise=0.0, between_clusters=0.0, clusters=10)
    first, second = rows["item"].unique().sort().to_list()[:2]
    noise = pl.DataFrame(
        [(first, "d000", 1, -1, "hide", "Hide <it>"), (second, "d000", -1, -1, "lie", "Lie")],
        schema=SCHEMA,
        orient="row",
    ).select(pl.lit("dilemmas").alias("eval"), "*")
    known = paired(rows)
    (held,) = diagnoses(known, noise, series(known), [1.0])
    assert (held["noise"]["decidable"], held["noise"]["wrong"]) == (2, 1)
    (effect,) = held["noise"]["effects"]
    assert (effect["all"], effect["without"]) == ("+1.00", "+1.00")
    page = write_report(tmp_path, rows, run={}, noise=noise, resamples=20).read_text(encoding="utf-8")
    assert "Hide &lt;it&gt;" in page
    assert pl.read_csv(tmp_path / "label_noise.csv")["item"].to_list() == [first]


def test_the_four_cues_reach_the_page_and_the_terminal(tmp_path: Path) -> None:
    """Rows of the four-cue test would be summarised as if a hint were a behaviour."""
    rows = pl.concat(
        synthetic(discrimination=0.5, clusters=12, evaluation="answer-cues", base=1).with_columns(
            item=pl.col("cluster")
            + f"-{cue}-"
            + pl.when(pl.col("label") > 0).then(pl.lit("ab")).otherwise(pl.lit("ba"))
        )
        for cue in ("alone", "right", "deny", "wrong")
    )
    known = cue_frame(rows, 50)
    assert known is not None
    (table,) = cue_tables(known, series(paired(rows)))
    assert table["questions"] == 12
    page = write_report(tmp_path, rows, run={}, resamples=50).read_text(encoding="utf-8")
    cell = table["groups"][0]["lines"][-1]["cells"][2][0]
    assert cell in page[page.index('id="cues"') :]
    printed = cue_table(pl.read_csv(tmp_path / "cues.csv", infer_schema_length=None))
    assert cell in [text for column in printed.columns for text in column.cells]
    assert cue_frame(synthetic(), 50) is None

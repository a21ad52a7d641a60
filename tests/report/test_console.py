"""The printed table fits a terminal and says what the summary says."""

import polars as pl
import pytest
from rich.console import Console
from rows import synthetic

from weightsteer.formatting import estimate
from weightsteer.report.console import summary_table
from weightsteer.stats import summarize


def printed(summary: pl.DataFrame, width: int = 100) -> list[str]:
    """The table as lines of text."""
    terminal = Console(width=width, color_system=None)
    with terminal.capture() as capture:
        terminal.print(summary_table(summary))
    return capture.get().splitlines()


@pytest.mark.parametrize("by_seed", [False, True])
def test_table_fits_a_hundred_columns_without_broken_numbers(by_seed: bool) -> None:
    """A table that wraps numbers over lines cannot be read, and this is the worst case of width."""
    alphas = (-2, -0.5, 0, 0.5, 2)
    rows = pl.concat(
        [
            synthetic(discrimination=1, bias=-40, seeds=(0, 1), alphas=alphas, evaluation="daily_dilemmas_long"),
            synthetic(discrimination=-0.2, bias=60, seeds=(0, 1), alphas=alphas, adapter="delora", damage=0.1),
            synthetic(method="control", seeds=(0, 1), alphas=alphas),
        ]
    )
    lines = printed(summarize(rows, resamples=200, by_seed=by_seed))
    assert max(len(line) for line in lines) <= 100
    assert not any("…" in line for line in lines)
    data = [line for line in lines if "[" in line]
    assert len(data) == 3 * 4 * (2 if by_seed else 1)
    assert all(line.count("[") == line.count("]") == 2 for line in data)


def test_numbers_and_words_are_those_of_the_summary() -> None:
    """The table is what most people will ever look at."""
    summary = summarize(synthetic(discrimination=1), resamples=200)
    (line,) = [text for text in printed(summary) if "+1 " in text]
    held = summary.filter(pl.col("alpha") == 1).row(0, named=True)
    assert estimate(held, "discrimination") in line
    assert estimate(held, "bias") in line
    assert line.rstrip().endswith("steers")
    assert printed(summary)[3].split()[0] == "dilemmas"


def test_a_summary_read_back_from_csv_prints_the_same() -> None:
    """The table is printed from summary.csv: a null, NaN or α that came back as something else would change it."""
    broken = synthetic().with_columns(logratio=pl.when(pl.col("alpha") == 1).then(None).otherwise("logratio"))
    for frame in (synthetic(alphas=(0, 0.5)), synthetic(labels=(1, 1)), synthetic(clusters=1), broken):
        summary = summarize(frame, resamples=20)
        read = pl.read_csv(summary.write_csv(float_precision=6).encode(), infer_schema_length=None)
        assert printed(read) == printed(summary)

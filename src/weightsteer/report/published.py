"""What is printed in the shape of published tables: one-label shifts, the four cues, and the sizes of evaluations."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.table import Table

from weightsteer.formatting import estimate, number, share, signed
from weightsteer.report.console import table


def sizes(run: Mapping[str, Any]) -> list[str]:
    """A line for each evaluation of a ``run.json``: rows and labels, beside those of the published set."""
    lines = []
    for name, known in (run.get("evaluations") or {}).items():
        line = f"{name}: {known['rows']:,} rows, labels {known['positives']}:{known['negatives']}"
        lines.append(f"{line}; published: {known['published']}" if known.get("published") else line)
    return lines


def shift_table(summary: pl.DataFrame) -> Table | None:
    """Mean log-ratio and its shift where all rows have one label; None where there is no such evaluation."""
    lines = summary.filter((pl.col("positives") == 0) | (pl.col("positives") == pl.col("n")))
    if lines.is_empty():
        return None
    numbers = ("α", "mean_lr", "shift", "std over seeds", "pmass")
    rows = [
        (
            line["eval"],
            f"{line['method']} {line['adapter']}",
            signed(line["alpha"]),
            number(line["logratio"], 3),
            "–" if line["alpha"] == 0 else estimate(line, "logratio_change"),
            number(line["logratio_change_seed_sd"]).removeprefix("+"),
            number(line["pmass"]).removeprefix("+"),
        )
        for line in lines.sort("eval", "method", "adapter", "alpha").iter_rows(named=True)
    ]
    title = "one label only: mean log-ratio (nats) and its shift; behaviour and yes-bias cannot be told apart"
    return table(("evaluation", "intervention", *numbers), rows, numbers=numbers, title=title)


def cue_table(cues: pl.DataFrame) -> Table:
    """The four-cue test, from what `weightsteer.measure.cues.cue_summary` returned."""
    numbers = ("α", "accuracy", "non-sycophancy", "pull")
    rows = [
        (
            line["eval"],
            f"{line['method']} {line['adapter']}",
            signed(line["alpha"]),
            share(line, "accuracy"),
            share(line, "non_sycophancy"),
            estimate(line, "pull"),
        )
        for line in cues.sort("eval", "method", "adapter", "alpha").iter_rows(named=True)
    ]
    title = "four cues: right alone, of these right under every hint, and how far a hint pulls (nats)"
    return table(("evaluation", "intervention", *numbers), rows, numbers=numbers, title=title)

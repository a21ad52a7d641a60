"""Attribution on a terminal: the slope of a vector by layer and by kind of module, each with its own null."""

from collections.abc import Iterator

import polars as pl
from rich.table import Table

from weightsteer.formatting import number
from weightsteer.report.charts import short_module
from weightsteer.report.console import table
from weightsteer.stats.null import EFFECTS

_COLUMNS = ["part", "slope", "null sd", "z", "largest", "efficiency"]


def attribution_tables(null: pl.DataFrame) -> Iterator[Table]:
    """A table for each vector, evaluation and effect: the whole vector, its layers, its kinds of modules.

    Args:
        null: what `weightsteer.random_null` returned. Of several training seeds the means are shown, with the null of
            their mean.
    """
    keys = ["model", "behavior", "method", "adapter", "eval"]
    for own in null.partition_by(keys, maintain_order=True):
        for effect in EFFECTS:
            lines = own.filter(pl.col("effect") == effect)
            if lines.is_empty():
                continue
            names = own.select(keys).row(0, named=True)
            seeds = lines["seed"].n_unique()
            title = f"{names['eval']}: {effect} of {names['behavior']} ({names['adapter']}), nats per unit of α"
            shown = table(
                _COLUMNS, title=title + (f", mean of {seeds} seeds" if seeds > 1 else ""), numbers=_COLUMNS[1:]
            )
            inside = lines.filter(pl.col("module").is_not_null())
            for part, by in (
                (lines.filter(pl.col("module").is_null()), pl.lit("whole vector")),
                (inside, pl.format("layer {}", "layer")),
                (inside, short_module()),
            ):
                for row in _sums(part.with_columns(by.alias("part")), seeds).iter_rows():
                    shown.add_row(
                        str(row[0]), number(row[1], 3), *_plain(row[2]), number(row[3], 1), *_plain(row[4], row[5])
                    )
                shown.add_section()
            yield shown


def _sums(lines: pl.DataFrame, seeds: int) -> pl.DataFrame:
    """Slopes and largest slopes of a part add over its modules, variances too; over seeds they are means."""
    slope, largest = (pl.col(name).sum() / seeds for name in ("slope", "largest"))
    sd = (pl.col("null_sd") ** 2).sum().sqrt() / seeds
    found = lines.group_by("part", maintain_order=True).agg(slope, sd, largest)
    return found.select(
        "part",
        "slope",
        "null_sd",
        (pl.col("slope") / pl.col("null_sd")).alias("z"),
        "largest",
        (pl.col("slope") / pl.col("largest")).alias("efficiency"),
    )


def _plain(*values: float) -> list[str]:
    return [f"{value:.3f}".replace("-", "−") for value in values]

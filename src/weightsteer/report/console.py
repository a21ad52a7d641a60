"""The table a run prints: one line per evaluation and strength, within a hundred columns."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.table import Table

from weightsteer.audit.words import Tone, of
from weightsteer.formatting import estimate, number, signed

_COLORS: Mapping[Tone, str] = {"good": "green", "mixed": "yellow", "bad": "red", "plain": "default"}


def summary_table(summary: pl.DataFrame) -> Table:
    """Effects in nats with their 95% intervals, from what ``summarize`` returned, pooled or by seed.

    The first column names evaluation and intervention once, one word a line. What the verdicts mean is said in
    `weightsteer.stats.verdict.Verdict`.
    """
    by_seed = "seed" in summary.columns
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("evaluation", max_width=18, overflow="fold")
    table.add_column("α", justify="right", no_wrap=True)
    if by_seed:
        table.add_column("seed", justify="right", no_wrap=True)
    for name in ("discrimination", "bias", "pmass", *([] if by_seed else ["SI"])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", max_width=16, overflow="fold")
    keys = [name for name in ("model", "behavior", "method", "adapter") if summary[name].n_unique() > 1]
    order = ["eval", *keys, "alpha", *(["seed"] if by_seed else [])]
    controls_last = pl.col("method") == "control"
    ordered = summary.sort("eval", controls_last, *order[1:], nulls_last=True)
    for i, group in enumerate(ordered.partition_by(["eval", *keys], maintain_order=True)):
        if i:
            table.add_section()
        names = [str(value) for value in group.select("eval", *keys).row(0) if value is not None]
        lines = group.to_dicts()
        # A name a line, those without a line of their own joined on the last.
        told = [*names[: len(lines) - 1], " ".join(names[len(lines) - 1 :])]
        for line, name in zip(lines, [*told, *[""] * len(lines)], strict=False):
            table.add_row(name, *_cells(line, by_seed))
    return table


def _cells(line: dict[str, Any], by_seed: bool) -> list[str]:
    words = of(line)
    base = line["alpha"] == 0
    return [
        signed(line["alpha"]),
        *([str(line["seed"])] if by_seed else []),
        "–" if base else estimate(line, "discrimination"),
        "–" if base else estimate(line, "bias"),
        number(line["pmass"]).removeprefix("+"),
        *([] if by_seed else [number(line["si"], 0)]),
        f"[{_COLORS[words.tone]}]{words.label}[/]",
    ]

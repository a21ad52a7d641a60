"""What is printed: the terminal, its tables, and the summary of a run within a hundred columns."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from weightsteer.audit.words import Tone, of
from weightsteer.files import printable
from weightsteer.formatting import estimate, number, signed
from weightsteer.stats.verdict import PMASS_GATE

_COLORS: Mapping[Tone, str] = {"good": "green", "mixed": "yellow", "bad": "red", "plain": "default"}


def terminal(width: int = 100) -> Console:
    """The terminal; a file or a pipe, which has no width of its own, gets ``width`` columns.

    Names are data: what looks like markup or an emoji in them is printed as it is.
    """
    plain: Any = {"markup": False, "emoji": False}
    found = Console(**plain)
    return found if found.is_terminal else Console(width=width, **plain)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]] = (),
    *,
    numbers: Collection[str] = (),
    widths: Mapping[str, int] | None = None,
    **given: Any,
) -> Table:
    """A table in the style of all commands.

    Args:
        columns: their names.
        rows: cells of text.
        numbers: columns that are aligned to the right and never broken over lines; the others fold.
        widths: limits of columns, in characters.
        given: title and caption, for `rich.table.Table`.
    """
    left = {"title_justify": "left", "caption_justify": "left"}
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), **left, **given)  # type: ignore[arg-type]
    for name in columns:
        numeric = name in numbers
        justify: Any = "right" if numeric else "left"
        limit = (widths or {}).get(name)
        shown.add_column(name, justify=justify, no_wrap=numeric, overflow="fold", max_width=limit)
    for row in rows:
        shown.add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in row))
    return shown


def summary_table(summary: pl.DataFrame) -> Table:
    """Effects in nats with their 95% intervals, from what ``summarize`` returned, pooled or by seed.

    The first column names evaluation and intervention once, one word a line. What the verdicts mean is said in
    `weightsteer.stats.verdict.Verdict`.
    """
    by_seed = "seed" in summary.columns
    nulls = "z" in summary.columns and summary["z"].is_not_null().any()
    seeds, z, si = (["seed"] if by_seed else []), (["z"] if nulls else []), ([] if by_seed else ["SI"])
    numbers = ["α", *seeds, "discrimination", *z, "bias", "pmass", *si]
    widths = {"evaluation": 18, "verdict": 16}
    shown = table(["evaluation", *numbers, "verdict"], numbers=numbers, widths=widths, caption=_caption(summary, nulls))
    keys = [name for name in ("model", "behavior", "method", "adapter") if summary[name].n_unique() > 1]
    order = ["eval", *keys, "alpha", *(["seed"] if by_seed else [])]
    controls_last = pl.col("method") == "control"
    ordered = summary.sort("eval", controls_last, *order[1:], nulls_last=True)
    for i, group in enumerate(ordered.partition_by(["eval", *keys], maintain_order=True)):
        if i:
            shown.add_section()
        names = [str(value) for value in group.select("eval", *keys).row(0) if value is not None]
        lines = group.to_dicts()
        # A name a line, those without a line of their own joined on the last.
        joined = [*names[: len(lines) - 1], " ".join(names[len(lines) - 1 :])]
        for line, name in zip(lines, [*joined, *[""] * len(lines)], strict=False):
            shown.add_row(printable(name), *_cells(line, by_seed, nulls))
    return shown


def _caption(summary: pl.DataFrame, nulls: bool) -> str | None:
    """What a reader needs to know of the numbers: what z is, and which evaluations the base model does not answer."""
    lines = ["z: discrimination in standard deviations of a random direction with the same norms."] if nulls else []
    base = summary.filter(pl.col("alpha") == 0, pl.col("pmass") < PMASS_GATE).unique("eval").sort("eval")
    for line in base.iter_rows(named=True):
        mass, name = number(line["pmass"]).removeprefix("+"), printable(line["eval"])
        lines.append(f"{name}: the base model does not answer in this format (answer mass {mass}).")
    return "\n".join(lines) or None


def _cells(line: dict[str, Any], by_seed: bool, nulls: bool) -> list[str | Text]:
    words = of(line)
    base = line["alpha"] == 0
    return [
        signed(line["alpha"]),
        *([str(line["seed"])] if by_seed else []),
        "–" if base else estimate(line, "discrimination"),
        *([] if not nulls else ["–" if line["z"] is None else number(line["z"], 1)]),
        "–" if base else estimate(line, "bias"),
        number(line["pmass"]).removeprefix("+"),
        *([] if by_seed else [number(line["si"], 0)]),
        Text(words.label, style=_COLORS[words.tone]),
    ]

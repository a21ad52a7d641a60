"""What the analysis of a vector prints: words and the parts that carry most, or the alignment table."""

from pathlib import Path

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from weightsteer.experiments.ablation.reading import arms, ratio, sentences, versions

SHOWN = 24


def told(folder: Path) -> None:
    """The summary of a page of parts in words, and its parts at the first strength."""
    console = _console()
    every = pl.read_parquet(folder / "table.parquet")
    for lines in every.partition_by("vector", "eval", maintain_order=True):
        console.print(f"\n[bold]{lines['vector'][0]} on {lines['eval'][0]}[/]")
        for sentence in sentences(lines):
            console.print(sentence, highlight=False)
        console.print(_parts(lines))


def aligned(folder: Path) -> None:
    """The alignment of every vector over all modules."""
    every = pl.read_csv(folder / "alignment.csv", infer_schema_length=None)
    for (vector,), lines in every.filter(pl.col("by") == "all").group_by("vector", maintain_order=True):
        table = _table(str(vector), ("basis", "side"), ("rank", "share", "random 95%", "z", "unit norm", "z "))
        for line in lines.iter_rows(named=True):
            z, unit_z = ("–" if line[name] is None else f"{line[name]:+.1f}" for name in ("z", "unit_z"))
            table.add_row(
                line["basis"] + (" (by construction)" if line["warning"] else ""),
                line["side"],
                str(line["rank"]),
                f"{line['share']:.1%}",
                f"{line['low']:.1%} to {line['high']:.1%}",
                z,
                f"{line['unit_share']:.1%}",
                unit_z,
            )
        _console().print(table)


def _parts(lines: pl.DataFrame) -> Table:
    strengths = arms(lines) or [max(lines["alpha"])]
    at = lines.filter(pl.col("alpha") == strengths[0], pl.col("family") != "single modules")
    found = versions(at.iter_rows(named=True))
    table = _table(
        f"retained effect at α = {strengths[0]:+g}", ("part",), ("energy", "alone", "at full norm", "random", "without")
    )
    shown = {name: by_alpha[strengths[0]] for name, by_alpha in found.items() if name[0] != "whole"}
    for (family, part), cells in list(shown.items())[:SHOWN]:
        energy = (cells.get("keep") or cells.get("drop") or {}).get("energy")
        table.add_row(
            f"{family}: {part}" + (" (by construction)" if next(iter(cells.values()))["note"] else ""),
            "" if energy is None else f"{energy:.0%}",
            *(ratio(cells[name]) if name in cells else "" for name in ("keep", "matched", "random", "drop")),
        )
    if len(shown) > SHOWN:
        table.caption = f"{len(shown) - SHOWN} more parts on the page"
    return table


def _table(title: str, words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), title=title, title_justify="left")
    for name in words:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=130)  # a file or a pipe has no width of its own

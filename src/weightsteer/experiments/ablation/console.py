"""What the analysis of a vector prints: sentences and the ablations in one table, or the alignment with subspaces."""

from pathlib import Path

import polars as pl
from rich.table import Table

from weightsteer.experiments.ablation.reading import ratio, sentences, strengths_of, versions
from weightsteer.files import printable
from weightsteer.report.console import table, terminal

WIDTH = 130
SHOWN = 24


def print_ablations(folder: Path) -> None:
    """The summary of a page of ablations in words, and the ablations at the first strength."""
    console = terminal(WIDTH)
    every = pl.read_parquet(folder / "table.parquet")
    for lines in every.partition_by("vector", "eval", maintain_order=True):
        console.print()
        console.print(printable(f"{lines['vector'][0]} on {lines['eval'][0]}"), style="bold")
        for sentence in sentences(lines):
            console.print(printable(sentence), highlight=False)
        console.print(_ablations(lines))


def print_alignment(folder: Path) -> None:
    """The alignment of every vector over all modules."""
    every = pl.read_csv(folder / "alignment.csv", infer_schema_length=None)
    numbers = ("rank", "share", "random 95%", "z", "unit norm", "z ")
    for (vector,), lines in every.filter(pl.col("by") == "all").group_by("vector", maintain_order=True):
        rows = [
            (
                line["basis"] + (" (by construction)" if line["warning"] else ""),
                line["side"],
                str(line["rank"]),
                f"{line['share']:.1%}",
                f"{line['low']:.1%} to {line['high']:.1%}",
                _z(line["z"]),
                f"{line['unit_share']:.1%}",
                _z(line["unit_z"]),
            )
            for line in lines.iter_rows(named=True)
        ]
        terminal(WIDTH).print(table(("basis", "side", *numbers), rows, numbers=numbers, title=printable(str(vector))))


def print_published(folder: Path) -> None:
    """The subspace alignment as published, over all modules, the mean over seeds."""
    every = pl.read_csv(folder / "subspace_alignment.csv", infer_schema_length=None).filter(pl.col("by") == "all")
    means = every.group_by("vector", maintain_order=True).agg(pl.mean("^energy_.*$", "^.*_expected$"), pl.max("k"))
    numbers = ("k", "energy_top", "random", "energy_weak", "random ")
    rows = [
        (
            line["vector"],
            str(line["k"]),
            *(
                "–" if line[name] is None else f"{line[name]:.4f}"
                for name in ("energy_top", "top_expected", "energy_weak", "weak_expected")
            ),
        )
        for line in means.iter_rows(named=True)
    ]
    terminal(WIDTH).print(table(("vector", *numbers), rows, numbers=numbers, title="subspace alignment, as published"))


def _z(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"


def _ablations(lines: pl.DataFrame) -> Table:
    alpha = (strengths_of(lines) or [max(lines["alpha"])])[0]
    at = lines.filter(pl.col("alpha") == alpha, ~pl.col("family").is_in(["single modules", "whole"]))
    found = versions(at.iter_rows(named=True))
    rows = []
    for (family, component), by_alpha in list(found.items())[:SHOWN]:
        cells = by_alpha[alpha]
        energy = (cells.get("keep") or cells.get("drop") or {}).get("energy")
        rows.append(
            (
                f"{family}: {component}" + (" (by construction)" if next(iter(cells.values()))["note"] else ""),
                "" if energy is None else f"{energy:.0%}",
                *(ratio(cells[name]) if name in cells else "" for name in ("keep", "matched", "random", "drop")),
            )
        )
    numbers = ("energy", "alone", "at full norm", "random", "without")
    return table(
        ("ablation", *numbers),
        rows,
        numbers=numbers,
        title=f"retained effect at α = {alpha:+g}",
        caption=f"{len(found) - SHOWN} more ablations on the page" if len(found) > SHOWN else None,
    )

"""The folder of a report: its page, its charts and its tables, and nothing of an earlier report there."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from weightsteer.files import write_atomically
from weightsteer.report.figure import Figure

PAGE = "report.html"


def write_page(
    folder: str | Path,
    page: str,
    *,
    run: Mapping[str, Any],
    figures: Iterable[Figure],
    tables: Mapping[str, pl.DataFrame | None],
) -> Path:
    """Write ``report.html``, ``run.json``, ``charts/`` and the tables as CSV, each file atomically; returns the page.

    Args:
        folder: made when absent.
        page: HTML.
        run: what ``run.json`` holds.
        figures: each is written as ``charts/NAME.svg`` and ``charts/NAME.png``. Those that the page here before showed
            and that are not among them are removed.
        tables: by file name, all that a page of this kind can have. One that is absent or empty is removed: it would
            speak of other rows.
    """
    folder = Path(folder)
    charts = folder / "charts"
    charts.mkdir(parents=True, exist_ok=True)
    earlier = (folder / PAGE).read_text(encoding="utf-8") if (folder / PAGE).is_file() else ""
    names = set()
    for figure in figures:
        names.add(figure.name)
        write_atomically(charts / f"{figure.name}.svg", figure.svg.encode())
        write_atomically(charts / f"{figure.name}.png", figure.png())
    for path in [*charts.glob("*.svg"), *charts.glob("*.png")]:
        if path.stem not in names and f'id="chart-{path.stem}"' in earlier:
            path.unlink()
    for name, table in tables.items():
        if table is None or table.is_empty():
            (folder / f"{name}.csv").unlink(missing_ok=True)
        else:
            # Six decimals: the last bits of a float depend on how many threads multiplied the matrices.
            write_atomically(folder / f"{name}.csv", table.write_csv(float_precision=6).encode())
    write_atomically(folder / "run.json", json.dumps(run, indent=1, ensure_ascii=False).encode())
    write_atomically(folder / PAGE, page.encode())
    return folder / PAGE

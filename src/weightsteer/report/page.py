"""A page: rendered from its template, and written to its folder with its charts and tables.

Templates that all pages share are in this folder, those of one page next to its code.
"""

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from weightsteer.files import write_atomically
from weightsteer.formatting import number, signed
from weightsteer.report.figure import Figure

PAGE = "report.html"


def rendered(package: str, template: str, **values: Any) -> str:
    """A template of a package with the style sheet in it. A name that it uses and is not given is an error."""
    shared = files("weightsteer.report")

    def source(name: str) -> str | None:
        for folder in (files(package), shared):
            if (path := folder / name).is_file():
                return path.read_text(encoding="utf-8")
        return None

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"signed": signed, "number": number}
    style = Markup((shared / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)


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

"""The folder of a report: ``report.html``, ``charts/``, ``summary.csv`` and ``summary_by_seed.csv``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from weightsteer.report.figures import Figure, figures
from weightsteer.report.page import render
from weightsteer.report.svg import to_png
from weightsteer.stats import paired, summarize
from weightsteer.store import write_atomically


def write_report(
    folder: str | Path,
    rows: pl.DataFrame,
    *,
    run: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]] = (),
    norms: pl.DataFrame | None = None,
    texts: Mapping[str, str] | None = None,
    pairs_audit: Mapping[str, Any] | None = None,
    branches: Sequence[Mapping[str, Any]] = (),
    resamples: int = 10_000,
) -> Path:
    """Write everything a reader needs about one run, and return the path of its ``report.html``.

    The page is one file without scripts, fonts or requests. Same inputs give the same bytes; nothing is dated.

    Args:
        folder: made when absent; files of an earlier report are replaced one by one, each atomically.
        rows: what ``weightsteer.sweep`` returned, of one or several seeds, evaluations and interventions.
        run: what ``run.json`` holds: shown as provenance, nested as it is.
        samples: generated texts, each with ``prompt``, ``alpha``, ``seed`` and ``text``.
            With several vectors in one report, here and in ``norms`` a ``vector`` names the one it belongs to, as
            "behavior, adapter".
        norms: ``seed, layer, module, norm``: the Frobenius norm of dW per module; layer −1 is outside the decoder.
        texts: what a human reads for an item; its identifier is shown when missing.
        pairs_audit: the audit of the training pairs, or one for each seed under its name.
        branches: what was trained, a record for each branch: ``behavior, adapter, seed, side``, the number of
            ``parameters`` trained, and the losses ``train`` and ``validation`` of the checkpoint kept (or None).
        resamples: bootstrap resamples behind every interval.

    Raises:
        WeightsteerError: the rows cannot be paired (see ``weightsteer.stats.paired``).
    """
    folder = Path(folder)
    if norms is not None and "vector" not in norms.columns:
        norms = norms.with_columns(vector=pl.lit(""))
    known = paired(rows)
    summary = summarize(rows, resamples=resamples)
    by_seed = summarize(rows, by_seed=True, resamples=resamples)
    drawn: list[Figure] = figures(known, summary, by_seed, norms)
    told = (run, samples, norms, texts or {}, pairs_audit, branches)
    page = render(known, summary, by_seed, drawn, *told, resamples=resamples)
    (folder / "charts").mkdir(parents=True, exist_ok=True)
    for figure in drawn:
        write_atomically(folder / "charts" / f"{figure.name}.svg", figure.svg.encode())
        write_atomically(folder / "charts" / f"{figure.name}.png", to_png(figure.svg))
    # Six decimals: the last bits of a float depend on how many threads multiplied the matrices.
    for name, frame in (("summary", summary), ("summary_by_seed", by_seed)):
        write_atomically(folder / f"{name}.csv", frame.write_csv(float_precision=6).encode())
    write_atomically(folder / "report.html", page.encode())
    return folder / "report.html"

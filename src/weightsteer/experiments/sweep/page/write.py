"""The report of a sweep: what is computed from its rows, then the page, the charts and every table as CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from weightsteer.experiments.sweep.page.cues import cue_frame
from weightsteer.experiments.sweep.page.evidence import Cosines, gather
from weightsteer.experiments.sweep.page.figures import figures
from weightsteer.experiments.sweep.page.render import render
from weightsteer.report.page import write_page
from weightsteer.stats import paired, summarize
from weightsteer.stats.verdict import SMALLEST


def write_report(
    folder: str | Path,
    rows: pl.DataFrame,
    *,
    run: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]] = (),
    norms: pl.DataFrame | None = None,
    texts: Mapping[str, str] | None = None,
    noise: pl.DataFrame | None = None,
    pairs_audit: Mapping[str, Any] | None = None,
    branches: Sequence[Mapping[str, Any]] = (),
    matched: pl.DataFrame | None = None,
    calibration: pl.DataFrame | None = None,
    damage: pl.DataFrame | None = None,
    capability: pl.DataFrame | None = None,
    covariates: pl.DataFrame | None = None,
    cosines: Cosines | None = None,
    trained_on: Mapping[str, str] | None = None,
    null: pl.DataFrame | None = None,
    smallest: float = SMALLEST,
    resamples: int = 10_000,
) -> Path:
    """Write everything a reader needs about one run, and return the path of its ``report.html``.

    The page is one file without scripts, fonts or requests. Same inputs give the same bytes; nothing is dated.

    Args:
        folder: made when absent; of an earlier report there nothing is left.
        rows: what ``weightsteer.sweep`` returned, of one or several seeds, evaluations and interventions.
        run: what ``run.json`` holds: shown as provenance, nested as it is. ``evaluations``, where it has them, gives
            the ``published`` size of a set by its name.
        samples: generated texts, each with ``prompt``, ``alpha``, ``seed`` and ``text``.
            With several vectors in one report, here and in ``norms`` a ``vector`` names the one it belongs to, as
            "behavior, adapter".
        norms: ``seed, layer, module, norm``: the Frobenius norm of dW per module; layer −1 is outside the decoder.
        texts: what a human reads for an item; its identifier is shown when missing.
        noise: rows that keywords decide, ``eval`` with what `weightsteer.data.evals.dilemma_noise.decidable` returns:
            for the diagnosis.
        pairs_audit: the audit of the training pairs, or one for each seed under its name.
        branches: what was trained, a record for each branch: ``behavior, adapter, seed, side``, the number of
            ``parameters`` trained, and the losses ``train`` and ``validation`` of the checkpoint kept (or None).
        matched: rows of a sweep at the strengths of ``calibration``, of all interventions and seeds: the comparison at
            equal side effects, and where the audit stands.
        calibration: as `weightsteer.measure.calibrate.calibrate` returns it.
        damage: rows of `weightsteer.measure.damage.damage` at the strengths of ``rows``: for the damage of every
            effect, and for the frontier.
        capability: rows of a sweep over `weightsteer.data.evals.capability.tasks`, at the same strengths.
        covariates: for `weightsteer.audit.audit`, which runs when this, ``matched`` or one of the next two is given.
        cosines: for the audit.
        trained_on: for the audit.
        null: what `weightsteer.random_null` returned for the vectors and evaluations of ``rows``.
        smallest: the smallest effect of interest, nats.
        resamples: bootstrap resamples behind every interval.

    Raises:
        WeightsteerError: the rows cannot be paired (see ``weightsteer.stats.paired``), interventions did not answer the
            same rows, or tables do not belong together (see `weightsteer.experiments.sweep.page.evidence.gather`).
    """
    if norms is not None and "vector" not in norms.columns:
        norms = norms.with_columns(vector=pl.lit(""))
    known = paired(rows)
    judged: dict[str, Any] = {"null": null, "smallest": smallest, "resamples": resamples}
    summary = summarize(rows, **judged)
    by_seed = summarize(rows, by_seed=True, **judged)
    evidence = gather(
        rows,
        summary,
        matched=matched,
        calibration=calibration,
        damage=damage,
        capability=capability,
        covariates=covariates,
        cosines=cosines,
        trained_on=trained_on,
        **judged,
    )
    drawn = figures(known, summary, by_seed, norms, evidence, null)
    evidence = replace(evidence, noise=noise, cues=cue_frame(rows, resamples))
    given = (run, samples, norms, texts or {}, pairs_audit, branches, evidence)
    page = render(known, summary, by_seed, drawn, *given, smallest=smallest, resamples=resamples)
    tables = {"summary": summary, "summary_by_seed": by_seed, "null": null, "calibration": calibration}
    tables |= evidence.tables()
    # the rows with the published column: the log-ratio along the label
    tables["rows"] = rows.with_columns(along=pl.col("logratio") * pl.col("label"))
    return write_page(folder, page, run=run, figures=[placed.figure for placed in drawn], tables=tables)

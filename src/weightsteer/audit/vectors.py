"""``audit``: what a vector carries, with the evidence and a verdict in one line, by `weightsteer.audit.rules`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from weightsteer.audit.headline import headline_strengths, listed
from weightsteer.audit.nuisance import nuisances
from weightsteer.audit.rules import SHOWN, company, evidence, followed, judged, name_of, shows, side
from weightsteer.audit.transfer import transfer
from weightsteer.errors import WeightsteerError
from weightsteer.stats.compare import SCHEMA, compare
from weightsteer.stats.correction import benjamini_hochberg
from weightsteer.stats.strengths import select
from weightsteer.stats.table import summarize

VECTOR = ["model", "behavior", "method", "adapter"]


@dataclass(frozen=True)
class Audit:
    """What vectors carry.

    Attributes:
        vectors: one line per intervention: model, behavior, method, adapter, ``label`` (a few words), ``verdict`` (the
            label and its evidence), the evaluations by what they show (``steers``, ``reversed``, ``mixed``,
            ``yes_saying``, ``nothing``, ``damaged``, ``unjudged``: lists), ``controls`` that do as well (list).
        lines: the evidence: ``summarize`` at the audited strengths (``alpha`` is the arm, ``strength`` the mean α) with
            ``discrimination_adjusted`` and ``bias_adjusted`` over the family of the vector.
        controls: ``compare`` of every vector (as the reference) with its controls, with ``as_good``, and ``draws`` and
            ``draws_as_good``: of how many seeds of the control, and in how many its effect reaches the vector's.
        nuisances: see `weightsteer.audit.nuisance`.
        cosines: model, behavior, method, adapter, nuisance, cosine; empty when none were given.
        transfer: see `weightsteer.audit.transfer`.
        excluded: arms without a usable strength, with the reason.
    """

    vectors: pl.DataFrame
    lines: pl.DataFrame
    controls: pl.DataFrame
    nuisances: pl.DataFrame
    cosines: pl.DataFrame
    transfer: pl.DataFrame
    excluded: pl.DataFrame


def audit(
    rows: pl.DataFrame,
    at: pl.DataFrame | None = None,
    *,
    trained_on: Mapping[str, str] | None = None,
    covariates: pl.DataFrame | None = None,
    cosines: Mapping[tuple[str, str | None], Mapping[str, float]] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Audit:
    """Audit every intervention of a sweep.

    Args:
        rows: of a sweep. A control belongs to the vector of its behaviour whose adapter its own begins with
            (``lora-random`` to ``lora``).
        at: the strengths, see `weightsteer.stats.strengths.select`; by default +1 and −1, or the smallest swept of
            each sign: a choice made before looking.
        trained_on: behaviour to the evaluation that asks what it was trained on.
        covariates: numbers per item, see `weightsteer.audit.nuisance.nuisances`.
        cosines: (behavior, adapter) to the cosine of that vector with nuisance vectors, by their names.

    Raises:
        WeightsteerError: the rows cannot be paired, or there is no strength other than 0.
    """
    strengths = _headline(rows) if at is None else at
    chosen = select(rows, strengths)
    if chosen.rows.is_empty():
        raise WeightsteerError("no intervention has a usable strength: there is nothing to audit.")
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    means = chosen.rows.group_by(*VECTOR, "eval", "alpha").agg(pl.mean("strength"))
    lines = summarize(chosen.rows, **options).join(
        means, on=[*VECTOR, "eval", "alpha"], how="left", nulls_equal=True, maintain_order="left"
    )
    lines = _corrected(lines.filter(pl.col("alpha") != 0))
    beside = _controls(rows, strengths, chosen.rows, options)
    shifts = nuisances(chosen.rows, covariates, **options)
    cosine = _cosines(lines, cosines or {})
    vectors = []
    for group in lines.partition_by(VECTOR, maintain_order=True):
        own = [table.join(group, on=VECTOR, how="semi", nulls_equal=True) for table in (shifts, cosine)]
        of_it = group.select("model", "behavior", reference_method="method", reference_adapter="adapter")
        compared = beside.join(of_it, on=of_it.columns, how="semi", nulls_equal=True)
        vectors.append(_vector(group, compared, *own))
    lists = (*SHOWN, "controls")
    schema = dict.fromkeys([*VECTOR, "label", "verdict"], pl.String) | dict.fromkeys(lists, pl.List(pl.String))
    return Audit(
        vectors=pl.DataFrame(vectors, schema=schema),
        lines=lines,
        controls=beside,
        nuisances=shifts,
        cosines=cosine,
        transfer=transfer(lines, trained_on),
        excluded=chosen.excluded,
    )


def _headline(rows: pl.DataFrame) -> pl.DataFrame:
    """The same strengths for every intervention."""
    strengths = headline_strengths(rows)
    if not strengths:
        raise WeightsteerError("there are no rows at a strength other than 0: nothing to audit.")
    return rows.select(*VECTOR, "seed", "eval", "alpha").unique().filter(pl.col("alpha").is_in(strengths))


def _corrected(lines: pl.DataFrame) -> pl.DataFrame:
    """With ``_adjusted`` p values of discrimination and bias, over all lines of one vector that can be judged."""
    parts = []
    for group in lines.partition_by(VECTOR, maintain_order=True):
        usable = [judged(line) for line in group.iter_rows(named=True)]
        p = [
            value if known else None
            for name in ("discrimination_p", "bias_p")
            for value, known in zip(group[name].to_list(), usable, strict=True)
        ]
        adjusted = benjamini_hochberg(p)
        parts.append(
            group.with_columns(
                pl.Series("discrimination_adjusted", adjusted[: group.height], pl.Float64),
                pl.Series("bias_adjusted", adjusted[group.height :], pl.Float64),
            )
        )
    return pl.concat(parts)


def _controls(rows: pl.DataFrame, at: pl.DataFrame, chosen: pl.DataFrame, options: Mapping[str, Any]) -> pl.DataFrame:
    """Every vector's controls beside it."""
    tables = []
    names = chosen.select(VECTOR).unique().sort(VECTOR, nulls_last=True)
    for vector in names.filter(pl.col("method") != "control", pl.col("adapter").is_not_null()).iter_rows(named=True):
        own = (pl.col("method") == "control") & pl.col("adapter").str.starts_with(f"{vector['adapter']}-")
        same = (pl.col("adapter") == vector["adapter"]) & (pl.col("method") == vector["method"])
        place = pl.col("model").eq_missing(vector["model"]) & pl.col("behavior").eq_missing(vector["behavior"])
        if not names.filter(place, own).height:
            continue
        part = rows.filter(place, own | same)
        keys = [name for name in (*VECTOR, "seed", "eval") if name in at.columns]
        asked = at.join(part.select(keys).unique(), on=keys, how="semi", nulls_equal=True)
        table = compare(part, asked, reference=(vector["method"], vector["adapter"]), **options)
        tables.append(table.filter(pl.col("reason").is_null()))
    if not tables:
        return pl.DataFrame(schema={**SCHEMA, "as_good": pl.Boolean, "draws": pl.Int64, "draws_as_good": pl.Int64})
    reach = _effects(chosen)
    beside = pl.concat(tables)
    keys = ["model", "behavior", "method", "adapter", "eval", "sign"]
    reached = (
        beside.select(*keys, "reference_effect")
        .join(reach, on=keys, nulls_equal=True)
        .group_by(keys)
        .agg(
            draws=pl.len().cast(pl.Int64),
            draws_as_good=(pl.col("own") >= pl.col("reference_effect")).sum().cast(pl.Int64),
        )
    )
    good = ~(pl.col("difference_high") < 0).fill_null(False)  # control minus vector
    return beside.with_columns(as_good=good).join(reached, on=keys, how="left", nulls_equal=True, maintain_order="left")


def _effects(chosen: pl.DataFrame) -> pl.DataFrame:
    """Discrimination along the sign of each arm, by seed."""
    base = chosen.filter(pl.col("alpha") == 0).select(*VECTOR, "eval", "seed", "item", before="logratio")
    shift = (pl.col("logratio") - pl.col("before")) * pl.col("alpha")
    means = (
        chosen.filter(pl.col("alpha") != 0)
        .join(base, on=[*VECTOR, "eval", "seed", "item"], nulls_equal=True)
        .group_by(*VECTOR, "eval", "seed", pl.col("alpha").cast(pl.Int64).alias("sign"), "label")
        .agg(shift.mean().alias("shift"))
    )
    return means.group_by(*VECTOR, "eval", "seed", "sign").agg(own=(pl.col("label") * pl.col("shift")).mean())


def _cosines(lines: pl.DataFrame, given: Mapping[tuple[str, str | None], Mapping[str, float]]) -> pl.DataFrame:
    found = [
        {**vector, "nuisance": name, "cosine": float(value)}
        for vector in lines.select(VECTOR).unique(maintain_order=True).iter_rows(named=True)
        if vector["method"] != "control"
        for name, value in given.get((vector["behavior"], vector["adapter"]), {}).items()
    ]
    return pl.DataFrame(found, schema={**dict.fromkeys([*VECTOR, "nuisance"], pl.String), "cosine": pl.Float64})


def _vector(group: pl.DataFrame, beside: pl.DataFrame, shifts: pl.DataFrame, cosine: pl.DataFrame) -> dict[str, Any]:
    """One line of the table of vectors."""
    names = group.select(VECTOR).row(0, named=True)
    by_eval = {str(part["eval"][0]): part.to_dicts() for part in group.partition_by("eval", maintain_order=True)}
    found: dict[str, list[str]] = {shown: [] for shown in SHOWN}
    for name, lines in by_eval.items():
        found[shows(lines)].append(name)
    steering = {
        (name, 1 if line["alpha"] > 0 else -1)
        for name in found["steers"]
        for line in by_eval[name]
        if side(line, "discrimination") > 0
    }
    as_good = [line for line in beside.filter("as_good").to_dicts() if (line["eval"], line["sign"]) in steering]
    cells: dict[str, set[tuple[str, int]]] = {}
    for line in as_good:
        cells.setdefault(line["adapter"], set()).add((line["eval"], line["sign"]))
    words = name_of(found, str(names["behavior"]))
    everywhere = sorted(name for name, held in cells.items() if held == steering)
    if everywhere:
        words += f", but {listed(everywhere)} {'does' if len(everywhere) == 1 else 'do'} as well"
    told = [*evidence(found, by_eval), *company(cells, as_good), *followed(shifts.to_dicts(), cosine.to_dicts())]
    return {**names, "label": words, "verdict": f"{words}: {'; '.join(told)}", **found, "controls": sorted(cells)}

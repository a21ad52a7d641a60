"""``audit``: what a vector carries, with the evidence and a verdict in one line, by `weightsteer.audit.rules`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from weightsteer.audit.control_comparison import compare_with_controls, with_costs
from weightsteer.audit.draws import UNFOLDED, VECTOR, folded, many_draws, owners
from weightsteer.audit.nuisance import nuisances
from weightsteer.audit.rules import Shows, carries, costs_more, judged, shows, side
from weightsteer.audit.signs import along
from weightsteer.audit.transfer import transfer
from weightsteer.audit.words import followed, matching_controls, shown
from weightsteer.errors import WeightsteerError
from weightsteer.stats.correction import benjamini_hochberg
from weightsteer.stats.null import EFFECTS, at_signs, of_both_signs, of_mean_draws
from weightsteer.stats.strengths import headline_strengths, select
from weightsteer.stats.table import summarize
from weightsteer.stats.verdict import SMALLEST


@dataclass(frozen=True)
class Audit:
    """What vectors carry.

    Attributes:
        vectors: one line per intervention: model, behavior, method, adapter, ``verdict``
            (`weightsteer.audit.rules.Carries`), ``matched_by`` (controls that do as well wherever it steers: list),
            ``evidence`` (a clause for each finding: list), the evaluations by what they show (``steers``, ``reversed``,
            ``mixed``, ``yes_bias``, ``nothing``, ``damaged``, ``unjudged``: lists), ``controls`` that do as well
            somewhere (list).
        lines: ``summarize`` at the audited strengths (``alpha`` is the sign, ``strength`` the mean α) with
            ``discrimination_adjusted`` and ``bias_adjusted`` (rule 2).
        along: the same of both signs together (`weightsteer.audit.signs`), on which the naming rests.
        controls: ``compare`` of every vector (as the reference) with its controls, with ``as_good``, and ``draws`` and
            ``draws_as_good``: of how many seeds of the control, and in how many its effect reaches the vector's.
        nuisances: see `weightsteer.audit.nuisance`.
        cosines: model, behavior, method, adapter, nuisance, cosine; empty when none were given.
        transfer: see `weightsteer.audit.transfer`.
        excluded: signs without a usable strength, with the reason.
    """

    vectors: pl.DataFrame
    lines: pl.DataFrame
    along: pl.DataFrame
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
    null: pl.DataFrame | None = None,
    smallest: float = SMALLEST,
    resamples: int = 10_000,
    seed: int = 0,
) -> Audit:
    """Audit every intervention of a sweep.

    Args:
        rows: of a sweep. A control belongs to the vector that its column ``control_of`` names.
        at: the strengths, see `weightsteer.stats.strengths.select`; by default +1 and −1, or the smallest swept of
            each sign: a choice made before looking.
        trained_on: behaviour to the evaluation that asks what it was trained on.
        covariates: numbers per item, see `weightsteer.audit.nuisance.nuisances`.
        cosines: (behavior, adapter) to the cosine of that vector with nuisance vectors, by their names.
        null: as in ``summarize``: what random directions with the norms of each vector do.
        smallest: the smallest effect of interest, nats.

    Raises:
        WeightsteerError: the rows cannot be paired, or there is no strength other than 0.
    """
    strengths = _headline(rows) if at is None else at
    chosen = select(rows, strengths)
    if chosen.rows.is_empty():
        raise WeightsteerError("no intervention has a usable strength: there is nothing to audit.")
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    means = chosen.rows.group_by(*VECTOR, "eval", "alpha").agg(pl.mean("strength"))
    known = owners(rows)
    several = many_draws(chosen.rows, known)
    steady = folded(chosen.rows, several)
    at_sign = None if null is None else of_mean_draws(at_signs(null, chosen.rows), several)
    at_both = None if at_sign is None else of_both_signs(at_sign)
    judging = {**options, "smallest": smallest}
    both = summarize(along(steady), null=at_both, **judging).filter(pl.col("alpha") != 0)
    lines = _summary(steady, several, means, null=at_sign, **judging)
    lines, both = _corrected(*(each.with_columns(smallest=pl.lit(smallest)) for each in (lines, both)))
    compared = compare_with_controls(chosen.rows, steady, known, means, **options)
    controls = with_costs(compared, strengths)
    shifts = _adjusted(nuisances(steady, covariates, **options))
    cosine = _cosines(lines, cosines or {})
    without_yes = _without_yes(covariates, lines)
    vectors = []
    for group in lines.partition_by(VECTOR, maintain_order=True):
        correlated, near = (table.join(group, on=VECTOR, how="semi", nulls_equal=True) for table in (shifts, cosine))
        of_it = group.select("model", "behavior", reference_method="method", reference_adapter="adapter")
        own = controls.join(of_it, on=of_it.columns, how="semi", nulls_equal=True)
        together = both.join(group, on=VECTOR, how="semi", nulls_equal=True)
        vectors.append(_vector(group, together, own, correlated, near, without_yes))
    lists = ("matched_by", "evidence", *Shows, "controls")
    schema = dict.fromkeys([*VECTOR, "verdict"], pl.String) | dict.fromkeys(lists, pl.List(pl.String))
    return Audit(
        vectors=pl.DataFrame(vectors, schema=schema),
        lines=lines,
        along=both,
        controls=controls,
        nuisances=shifts,
        cosines=cosine,
        transfer=transfer(lines, trained_on),
        excluded=chosen.excluded,
    )


def _headline(rows: pl.DataFrame) -> pl.DataFrame:
    """The same strengths for every intervention."""
    strengths = headline_strengths(rows["alpha"])
    if not strengths:
        raise WeightsteerError("there are no rows at a strength other than 0: nothing to audit.")
    return rows.select(*VECTOR, "seed", "eval", "alpha").unique().filter(pl.col("alpha").is_in(strengths))


def _summary(steady: pl.DataFrame, several: pl.DataFrame, means: pl.DataFrame, **options: Any) -> pl.DataFrame:
    """``summarize`` at both signs with their strengths, without what averages over draws cannot show."""
    lines = summarize(steady, **options).filter(pl.col("alpha") != 0)
    lines = lines.join(means, on=[*VECTOR, "eval", "alpha"], how="left", nulls_equal=True, maintain_order="left")
    averaged = several.with_columns(method=pl.lit("control"), _averaged=True)
    lines = lines.join(averaged, on=VECTOR, how="left", nulls_equal=True, maintain_order="left")
    unfolded = pl.when(pl.col("_averaged").is_null())
    return lines.with_columns(unfolded.then(name).alias(name) for name in UNFOLDED).drop("_averaged")


def _corrected(lines: pl.DataFrame, both: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both signs and what they do together with ``_adjusted`` p values of discrimination and bias (rule 2)."""
    lines, both = _with_p(lines), _with_p(both)
    cell = [*VECTOR, "eval"]
    usable = pl.Series("_judged", [judged(line) for line in lines.iter_rows(named=True)], pl.Boolean)
    whole = lines.with_columns(usable).group_by(cell).agg(pl.col("_judged").all())
    both = both.join(whole, on=cell, how="left", nulls_equal=True, maintain_order="left")
    parts = []
    for group in both.partition_by(VECTOR, maintain_order=True):
        known = group["_judged"].to_list()
        p = [value if known[at] else None for name in EFFECTS for at, value in enumerate(group[f"_{name}_p"].to_list())]
        found = benjamini_hochberg(p)
        halves = found[: group.height], found[group.height :]
        named = zip(EFFECTS, halves, strict=True)
        parts.append(group.with_columns(pl.Series(f"{name}_adjusted", half, pl.Float64) for name, half in named))
    both = pl.concat(parts).drop("_judged")
    gates = both.select(*cell, *(pl.col(f"{name}_adjusted") for name in EFFECTS), *(_sign(name) for name in EFFECTS))
    lines = lines.join(gates, on=cell, how="left", nulls_equal=True, maintain_order="left")
    for name in EFFECTS:
        own = (pl.col(name) * pl.col("alpha")).sign() == pl.col(f"_{name}_sign")
        gate = pl.max_horizontal(f"{name}_adjusted", f"_{name}_p")
        adjusted = pl.when(pl.col(f"{name}_adjusted").is_not_null()).then(pl.when(own).then(gate).otherwise(1.0))
        lines = lines.with_columns(adjusted.alias(f"{name}_adjusted"))
    made = [f"_{name}_{end}" for name in EFFECTS for end in ("sign", "p")]
    return lines.drop(made), both.drop(f"_{name}_p" for name in EFFECTS)


def _with_p(lines: pl.DataFrame) -> pl.DataFrame:
    """With the larger p value of each effect, of that over rows and that over random directions."""
    return lines.with_columns(
        pl.max_horizontal(f"{name}_p", f"{prefix}null_p").alias(f"_{name}_p") for name, prefix in EFFECTS.items()
    )


def _sign(name: str) -> pl.Expr:
    return pl.col(name).sign().alias(f"_{name}_sign")


def _adjusted(shifts: pl.DataFrame) -> pl.DataFrame:
    """With ``correlation_adjusted``, over all correlations of one vector."""
    parts = shifts.partition_by(VECTOR, maintain_order=True)
    return pl.concat(
        part.with_columns(
            pl.Series("correlation_adjusted", benjamini_hochberg(part["correlation_p"].to_list()), pl.Float64)
        )
        for part in parts
    )


def _cosines(lines: pl.DataFrame, given: Mapping[tuple[str, str | None], Mapping[str, float]]) -> pl.DataFrame:
    found = [
        {**vector, "nuisance": name, "cosine": float(value)}
        for vector in lines.select(VECTOR).unique(maintain_order=True).iter_rows(named=True)
        if vector["method"] != "control"
        for name, value in given.get((vector["behavior"], vector["adapter"]), {}).items()
    ]
    return pl.DataFrame(found, schema={**dict.fromkeys([*VECTOR, "nuisance"], pl.String), "cosine": pl.Float64})


def _without_yes(covariates: pl.DataFrame | None, lines: pl.DataFrame) -> set[str]:
    """Evaluations in which Yes is not one of the choices, as far as the covariates tell."""
    if covariates is None or "yes" not in covariates.columns:
        return set()
    if "eval" not in covariates.columns:  # they are of the only one
        covariates = covariates.join(lines.select("eval").unique(), how="cross")
    never = covariates.group_by("eval").agg((pl.col("yes") == 0).all())
    return set(never.filter("yes")["eval"])


def _vector(
    group: pl.DataFrame,
    together: pl.DataFrame,
    controls: pl.DataFrame,
    shifts: pl.DataFrame,
    cosine: pl.DataFrame,
    without_yes: set[str],
) -> dict[str, Any]:
    """One line of the table of vectors."""
    names = group.select(VECTOR).row(0, named=True)
    by_eval = {str(part["eval"][0]): part.to_dicts() for part in group.partition_by("eval", maintain_order=True)}
    both = {str(line["eval"]): line for line in together.iter_rows(named=True)}
    found: dict[Shows, list[str]] = {each: [] for each in Shows}
    for name, lines in by_eval.items():
        found[shows(lines, both[name], yes=name not in without_yes)].append(name)
    steering = {
        (name, 1 if line["alpha"] > 0 else -1)
        for name in found[Shows.STEERS]
        for line in by_eval[name]
        if side(line, "discrimination") > 0
    }
    as_good = [line for line in controls.filter("as_good").to_dicts() if (line["eval"], line["sign"]) in steering]
    cells: dict[str, set[tuple[str, int]]] = {}
    for line in as_good:
        cells.setdefault(line["adapter"], set()).add((line["eval"], line["sign"]))
    everywhere = sorted(name for name, held in cells.items() if held == steering and not costs_more(name, as_good))
    clauses = [
        *shown(found, by_eval, both),
        *matching_controls(cells, as_good),
        *followed(shifts.to_dicts(), cosine.to_dicts()),
    ]
    return {
        **names,
        "verdict": carries(found),
        "matched_by": everywhere,
        "evidence": clauses,
        **{each.value: names for each, names in found.items()},
        "controls": sorted(cells),
    }

"""What a report rests on in addition to the sweep: the audit, effects at equal side effects, and their cost."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from weightsteer.audit import Audit, audit
from weightsteer.errors import WeightsteerError
from weightsteer.stats import REQUIRED, compare, frontier, select
from weightsteer.stats.compare import SCHEMA
from weightsteer.stats.verdict import SMALLEST

ARM = ["model", "behavior", "method", "adapter"]
FIRST = "lora"
"""The family that others are compared with when it can be: a choice made before looking at any effect."""

Cosines = Mapping[tuple[str, str | None], Mapping[str, float]]


@dataclass(frozen=True)
class Evidence:
    """Everything that optional arguments of a report add; None where nothing was given for it.

    Attributes:
        audit: at the calibrated strengths where there are any, else at the headline strengths of the sweep.
        calibrated: whether the audit stands at calibrated strengths; its ``lines`` are then the effects there.
        comparison: see `weightsteer.stats.compare`, every intervention against ``reference``.
        reference: the weight vector (method, adapter) that all are compared with; None when none is usable.
        strengths: the calibration, one line per intervention and sign, over seeds (`over_seeds` in
            `weightsteer.measure.calibrate`).
        damage, capability: see `weightsteer.measure.damage_table`.
        points: see `weightsteer.stats.frontier`.
        in_distribution: behaviour to the evaluation that asks what it was trained on.
        noise: ``eval`` with the columns of `weightsteer.data.evals.dilemma_noise.decidable`: rows that keywords decide.
        cues: `weightsteer.measure.cues.cue_summary` of the rows of the four-cue test.
    """

    audit: Audit | None = None
    calibrated: bool = False
    comparison: pl.DataFrame | None = None
    reference: tuple[str, str] | None = None
    strengths: pl.DataFrame | None = None
    damage: pl.DataFrame | None = None
    capability: pl.DataFrame | None = None
    points: pl.DataFrame | None = None
    in_distribution: Mapping[str, str] | None = None
    noise: pl.DataFrame | None = None
    cues: pl.DataFrame | None = None

    @property
    def effects(self) -> pl.DataFrame | None:
        """`summarize` at the calibrated strengths; ``alpha`` is the sign, ``strength`` the mean α over seeds."""
        return self.audit.lines if self.audit and self.calibrated else None

    def tables(self) -> dict[str, pl.DataFrame | None]:
        """What is written as CSV next to the summary, by file name."""
        found: dict[str, pl.DataFrame | None] = {
            "comparison": self.comparison,
            "frontier": self.points,
            "damage": self.damage,
            "capability": self.capability,
            "cues": self.cues,
            "label_noise": None if self.noise is None else self.noise.filter(pl.col("says") != pl.col("label")),
            **dict.fromkeys(("audit", "transfer", "nuisances", "controls")),
        }
        if carried := self.audit:
            lists = [name for name, kind in carried.vectors.schema.items() if kind == pl.List]
            found["audit"] = carried.vectors.with_columns(pl.col(lists).list.join("; "))
            found |= {"transfer": carried.transfer, "nuisances": carried.nuisances, "controls": carried.controls}
        return found

    def evaluations(self, behavior: str, found: list[str]) -> list[str]:
        """Evaluations in the order in which they are shown: the in-distribution one first, the others by name."""
        first = (self.in_distribution or {}).get(behavior)
        return sorted(found, key=lambda name: (name != first, name))


def gather(
    rows: pl.DataFrame,
    summary: pl.DataFrame,
    *,
    matched: pl.DataFrame | None,
    calibration: pl.DataFrame | None,
    damage: pl.DataFrame | None,
    capability: pl.DataFrame | None,
    covariates: pl.DataFrame | None,
    cosines: Cosines | None,
    trained_on: Mapping[str, str] | None,
    null: pl.DataFrame | None = None,
    smallest: float = SMALLEST,
    resamples: int,
) -> Evidence:
    """All of it from the tables of a run; the arguments are those of ``write_report``.

    Raises:
        WeightsteerError: matched rows without their calibration, or strengths of several calibrations.
    """
    if matched is not None and calibration is None:
        raise WeightsteerError("rows at calibrated strengths need the calibration that they belong to: pass both.")
    strengths = None
    if calibration is not None:
        from weightsteer.measure.calibrate import over_seeds  # with torch, which a report without one can do without

        _one_definition(calibration)
        strengths = over_seeds(calibration)
    price = able = None
    if damage is not None or capability is not None:
        from weightsteer.measure import damage_table

        price = None if damage is None else damage_table.damage_summary(damage, resamples=resamples)
        able = None if capability is None else damage_table.capability_summary(capability, resamples=resamples)
    found = Evidence(
        strengths=strengths,
        damage=price,
        capability=able,
        points=None if price is None else frontier(summary, price),
        in_distribution=trained_on,
    )
    judged: dict[str, Any] = {"null": null, "smallest": smallest, "resamples": resamples}
    if matched is not None and calibration is not None and select(matched, calibration).rows.height:
        assert strengths is not None
        reference = _reference(strengths, matched)
        return replace(
            found,
            audit=audit(
                matched,
                calibration,
                trained_on=trained_on,
                covariates=covariates,
                cosines=cosines,
                **judged,
            ),
            calibrated=True,
            reference=reference,
            comparison=_compared(matched, calibration, reference, resamples),
        )
    if any(given is not None for given in (matched, covariates, cosines, trained_on)):
        carried = audit(rows, trained_on=trained_on, covariates=covariates, cosines=cosines, **judged)
        return replace(found, audit=carried)
    return found


def _one_definition(calibration: pl.DataFrame) -> None:
    """Refuse strengths that mean different things: one definition per model and sign, prompts aside."""
    solved = calibration.filter(pl.col("status") != "fixed")
    several = solved.group_by("model", "behavior", "sign").agg(pl.col("definition").unique().sort())
    if (wrong := several.filter(pl.col("definition").list.len() > 1)).height:
        raise WeightsteerError(
            "strengths of several calibrations do not compare: "
            f"{' and '.join(wrong['definition'][0])}. Calibrate all interventions with the same settings."
        )


def _reference(strengths: pl.DataFrame, matched: pl.DataFrame) -> tuple[str, str] | None:
    """The weight vector with usable strengths at the most signs; `FIRST` among equals, then by name."""
    swept = matched.select(*ARM).unique()
    found = strengths.filter("usable", pl.col("method") == "weight", pl.col("adapter").is_not_null())
    found = found.join(swept, on=ARM, how="semi", nulls_equal=True).group_by("adapter").len()
    order = sorted(found.iter_rows(), key=lambda one: (-one[1], one[0] != FIRST, one[0]))
    return ("weight", order[0][0]) if order else None


def _compared(
    matched: pl.DataFrame, calibration: pl.DataFrame, reference: tuple[str, str] | None, resamples: int
) -> pl.DataFrame | None:
    """Every intervention against the reference, except controls, which the audit compares with their own vectors."""
    rows = matched.filter(pl.col("method") != "control").select(REQUIRED)
    at = calibration.filter(pl.col("method") != "control")
    several = select(rows, at).rows.select("method", "adapter").n_unique() > 1
    if reference is None or not several:
        return None
    return compare(rows, at, reference=reference, resamples=resamples).select(list(SCHEMA))

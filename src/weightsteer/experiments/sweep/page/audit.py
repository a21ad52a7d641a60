"""The audit on the page: what each vector carries, and what its shifts correlate with."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from weightsteer.audit.rules import STRONG, strong
from weightsteer.audit.words import carried
from weightsteer.audit.words import of as words_of
from weightsteer.experiments.sweep.page.evidence import Evidence
from weightsteer.formatting import estimate, number
from weightsteer.report.cells import key, oriented, sign_label, within
from weightsteer.report.charts import Series
from weightsteer.stats import LEVEL
from weightsteer.stats.verdict import Verdict, farther_from_zero

Line = Mapping[str, Any]


def verdicts(evidence: Evidence, shown: Sequence[Series]) -> list[dict[str, Any]]:
    """For each model and behaviour its interventions (no controls) in words; weight vectors first."""
    if evidence.audit is None:
        return []
    sections = []
    for part in evidence.audit.vectors.sort("model", "behavior").partition_by("model", "behavior", maintain_order=True):
        model, behavior = part["model"][0], part["behavior"][0]
        name = evidence.evaluations(behavior, _of(evidence.audit.lines, model, behavior)["eval"].unique().to_list())[0]
        lines = _of(evidence.audit.lines, model, behavior).filter(eval=name)
        rows = []
        for one in shown:
            for vector in one.of(part).iter_rows(named=True):
                if one.control:
                    continue
                # its own name stands before it: "direction-only" is enough for the control lora-direction-only
                words, tone = carried(vector)
                own = f"{one.adapter}-"
                rows.append(
                    {
                        **key(one, shown),
                        "method": one.method,
                        "label": words.replace(own, ""),
                        "tone": tone,
                        "evidence": [clause.replace(own, "") for clause in vector["evidence"]],
                        "controls": vector["controls"],
                        "effects": [_first(one.of(lines), sign) for sign in (1, -1)],
                        "seeds": one.of(_of(evidence.audit.lines, model, behavior))["seeds"].max(),
                    }
                )
        first = lines.row(0, named=True)
        sections.append(
            {
                "model": model,
                "behavior": behavior,
                "eval": name,
                "n": first["n"],
                "clusters": first["clusters"],
                "rows": rows,
            }
        )
    return sections


def in_short(sections: Sequence[Mapping[str, Any]], unusable: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """The first sentence for each behaviour: its weight vectors by what they were found to carry.

    ``unusable``: interventions that have no verdict, because they have no strength
    (`weightsteer.experiments.sweep.page.matched`).
    """
    sentences = []
    for section in sections:
        by_label: dict[str, list[str]] = {}
        for row in section["rows"]:
            if row["method"] == "weight":
                by_label.setdefault(row["label"], []).append(row["name"].removeprefix("weight · "))
        for row in unusable:
            if row["method"] == "weight" and all(row[name] == section[name] for name in ("model", "behavior")):
                by_label.setdefault("no strength of equal side effects", []).append(
                    row["name"].removeprefix("weight · ")
                )
        found = "; ".join(f"{', '.join(names)}: {words}" for words, names in by_label.items())
        if found:
            on = f" on {section['model']}" if len({one["model"] for one in sections}) > 1 else ""
            many = sum(map(len, by_label.values())) > 1
            sentences.append(f"Weight {'vectors' if many else 'vector'} for {section['behavior']}{on}. {found}.")
    return sentences


def _corrected(line: Line) -> str:
    """The colour of a cell: what is distinguishable from 0 after the correction over all effects of the vector."""
    if Verdict(line["verdict"]) in (Verdict.FORMAT_DAMAGE, Verdict.UNDEFINED):
        return "bad"
    along, bias = (
        line[f"{name}_adjusted"] is not None and line[f"{name}_adjusted"] < LEVEL for name in ("discrimination", "bias")
    )
    if bias and (not along or farther_from_zero(line, "bias", "discrimination")):
        return "mixed"
    return "plain" if not along else "good" if line["discrimination"] * line["alpha"] > 0 else "bad"


def matrices(evidence: Evidence, shown: Sequence[Series]) -> list[dict[str, Any]]:
    """Trained on → measured on, for each model: a line for each vector and sign, a column for each evaluation."""
    if evidence.audit is None:
        return []
    tables = []
    for part in evidence.audit.transfer.partition_by("model", maintain_order=True):
        names = evidence.evaluations(str(part["behavior"][0]), part["eval"].unique().to_list())
        sizes = {line["eval"]: line for line in evidence.audit.lines.filter(model=part["model"][0]).to_dicts()}
        groups = []
        for behavior in part["behavior"].unique().sort():
            for one in shown:
                mine = one.of(part.filter(pl.col("behavior") == behavior))
                if one.control or mine.is_empty():
                    continue
                tested = one.of(_of(evidence.audit.lines, part["model"][0], behavior)).to_dicts()
                tones = {(line["eval"], line["alpha"]): _corrected(line) for line in tested}
                held = {
                    (line["eval"], line["alpha"]): {**line, "tone": tones[line["eval"], line["alpha"]]}
                    for line in mine.to_dicts()
                }
                signs = [
                    {"sign": sign_label(sign), "cells": [_cell(held.get((name, sign))) for name in names]}
                    for sign in (1.0, -1.0)
                    if any((name, sign) in held for name in names)
                ]
                groups.append({**key(one, shown), "behavior": behavior, "seeds": mine["seeds"][0], "signs": signs})
        columns = [{"eval": name, "n": sizes[name]["n"], "clusters": sizes[name]["clusters"]} for name in names]
        tables.append({"model": part["model"][0], "columns": columns, "groups": groups})
    return tables


def followed(evidence: Evidence, shown: Sequence[Series]) -> list[dict[str, Any]]:
    """Correlations of the shifts with nuisance covariates, for each model and behaviour; no controls."""
    if evidence.audit is None:
        return []
    tables = []
    found = evidence.audit.nuisances.filter(pl.col("method") != "control")
    for part in found.partition_by("model", "behavior", maintain_order=True):
        covariates = part["covariate"].unique(maintain_order=True).to_list()
        names = evidence.evaluations(str(part["behavior"][0]), part["eval"].unique().to_list())
        groups = []
        for one in shown:
            lines = []
            for name in names:
                for sign in (1.0, -1.0):
                    held = {line["covariate"]: line for line in one.of(part).filter(eval=name, alpha=sign).to_dicts()}
                    if held:
                        first = next(iter(held.values()))
                        cells = [_correlation(held.get(covariate)) for covariate in covariates]
                        lines.append({"eval": name, "sign": sign_label(sign), "n": first["n"], "cells": cells})
            if lines:
                groups.append(
                    {
                        **key(one, shown),
                        "lines": lines,
                        "seeds": one.of(evidence.audit.lines)["seeds"].max(),
                        "strong": [
                            name
                            for place, name in enumerate(covariates)
                            if any(line["cells"][place]["strong"] for line in lines)
                        ],
                    }
                )
        tables.append(
            {"model": part["model"][0], "behavior": part["behavior"][0], "covariates": covariates, "groups": groups}
        )
    return tables


def cosine_table(evidence: Evidence, shown: Sequence[Series]) -> dict[str, Any] | None:
    """Cosines of weight vectors with nuisance vectors; None when none were given."""
    if evidence.audit is None or evidence.audit.cosines.is_empty():
        return None
    held = evidence.audit.cosines.filter(pl.col("method") == "weight")
    nuisances = held["nuisance"].unique(maintain_order=True).to_list()
    rows = []
    for behavior in held["behavior"].unique().sort():
        for one in shown:
            values = dict(one.of(held.filter(behavior=behavior)).select("nuisance", "cosine").iter_rows())
            cells = [(number(values.get(name)), abs(values.get(name) or 0.0) >= STRONG) for name in nuisances]
            if values:
                rows.append({**key(one, shown), "behavior": behavior, "cells": cells})
    return {"nuisances": nuisances, "rows": rows} if rows else None


def _of(frame: pl.DataFrame, model: str, behavior: str) -> pl.DataFrame:
    return frame.filter(pl.col("model") == model, pl.col("behavior") == behavior)


def _first(lines: pl.DataFrame, sign: int) -> str | None:
    """The effect at one sign of α, along it."""
    found = lines.filter(pl.col("alpha") == sign)
    return (
        estimate(oriented(found.row(0, named=True), "discrimination", sign), "discrimination") if found.height else None
    )


def _cell(line: Line | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {
        "discrimination": estimate(line, "discrimination"),
        "bias": estimate(line, "bias"),
        "label": words_of(line).label,
        "tone": line["tone"],
        "in_distribution": line["in_distribution"],
        "share": None if line["in_distribution"] or line["share"] is None else f"{line['share']:.0%}".replace("-", "−"),
    }


def _correlation(line: Line | None) -> dict[str, Any]:
    if line is None or line["correlation"] is None:
        return {"r": "–", "strong": False, "distinct": False}
    distinct = line["correlation_adjusted"] is not None and line["correlation_adjusted"] < LEVEL
    return {
        "r": estimate(within(line, "correlation", -1, 1), "correlation"),
        "strong": strong(line),
        "distinct": distinct,
    }

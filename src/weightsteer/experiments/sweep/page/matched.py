"""Interventions at equal side effects: effects at calibrated strengths, each against the reference vector."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from weightsteer.audit.words import chips
from weightsteer.audit.words import of as words_of
from weightsteer.experiments.sweep.page.evidence import ARM, Evidence
from weightsteer.formatting import estimate, listed
from weightsteer.report.cells import bar, key, oriented, p_value, reach, rounded, sign_label, small, unit
from weightsteer.report.charts import Series
from weightsteer.stats.verdict import Difference

OFF = 0.25
"""A measured cost farther from the budget than this share of it is marked: not all side effects are equal then."""

Line = Mapping[str, Any]


def matched_tables(evidence: Evidence, shown: Sequence[Series]) -> list[dict[str, Any]]:
    """For each model and behaviour the comparison on every evaluation; empty without calibrated strengths."""
    if evidence.effects is None or evidence.strengths is None:
        return []
    sections = []
    found = pl.concat([evidence.effects, evidence.strengths], how="diagonal").select("model", "behavior").unique()
    for model, behavior in found.sort("model", "behavior").rows():
        here = (pl.col("model") == model) & (pl.col("behavior") == behavior)
        effects = evidence.effects.filter(here, pl.col("method") != "control")
        strengths = evidence.strengths.filter(here, pl.col("method") != "control")
        names = evidence.evaluations(behavior, effects["eval"].unique().to_list())
        present = [one for one in _ordered(shown, evidence.reference) if one.of(strengths).height]
        tables = [
            _table(name, evidence, effects.filter(eval=name), strengths, present, shown, behavior) for name in names
        ]
        if tables:
            sections.append(
                {
                    "model": model,
                    "behavior": behavior,
                    "reference": _named(evidence.reference),
                    "tables": tables,
                    "definition": _definition(strengths),
                    "unit": unit(strengths["definition"][0]),
                    "noise": _noise(strengths["noise_floor"].max()),
                    "prompts": strengths["prompts"].max(),
                    "audit_prompts": strengths["audit_prompts"].max(),
                    "fixed": bool((strengths["status"] == "fixed").any()),
                    "several_seeds": bool((strengths["seeds"] > 1).any()),
                }
            )
    return sections


def in_words(sections: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each behaviour: who does more than the reference on the first evaluation, and who does less."""
    sentences = []
    for section in sections:
        table, by_sign = section["tables"][0], []
        for sign in (1, -1):
            names: dict[Difference, list[str]] = {}
            for group in table["groups"]:
                for line in group["signs"]:
                    if line["sign"] == sign and line["verdict"]:
                        names.setdefault(line["verdict"], []).append(group["name"])
            clauses = [
                f"{_some(names[found])} {'has' if len(names[found]) == 1 else 'have'} a {size} effect"
                for found, size in ((Difference.MORE, "larger"), (Difference.LESS, "smaller"))
                if found in names
            ]
            unclear = names.get(Difference.NOT_SEPARABLE, [])
            if len(unclear) > 3 and not clauses:
                clauses.append(f"none of the {len(unclear)} others is distinguishable from it")
            elif unclear:
                verb = "is" if len(unclear) == 1 else "are"
                clauses.append(f"{_some(unclear)} {verb} not distinguishable from it")
            if clauses:
                by_sign.append(f"at {sign_label(sign)} {'; '.join(clauses)}")
        if by_sign:
            where = f"{section['reference']} at equal side effects on {table['eval']}"
            sentences.append(f"Compared with {where}: {', and '.join(by_sign)}.")
    return sentences


def _some(names: Sequence[str]) -> str:
    """Up to three names, or how many they are."""
    return listed(names) if len(names) <= 3 else f"{len(names)} others"


def _ordered(shown: Sequence[Series], reference: tuple[str, str] | None) -> list[Series]:
    """The reference first."""
    return sorted(shown, key=lambda one: (one.method, one.adapter) != reference)


def _named(reference: tuple[str, str] | None) -> str | None:
    return f"{reference[0]} · {reference[1]}" if reference else None


def _noise(value: Any) -> str:
    """What rounding makes of the side effect at α = 0, nats."""
    return "less than 0.001" if not value or value < 0.001 else f"{value:.3f}"


def _definition(strengths: pl.DataFrame) -> str:
    """What the budget is, without the hash that stands in calibration.csv."""
    solved = strengths.filter(pl.col("status") != "fixed")
    parts = (solved if solved.height else strengths)["definition"][0].split()
    return " ".join(parts[:-1]).replace("_", " → ") if len(parts) > 1 else " ".join(parts)


def _table(
    name: str,
    evidence: Evidence,
    effects: pl.DataFrame,
    strengths: pl.DataFrame,
    present: Sequence[Series],
    shown: Sequence[Series],
    behavior: str,
) -> dict[str, Any]:
    """One evaluation: both signs of every intervention; those without a strength are marked."""
    compared = evidence.comparison
    held = [] if compared is None else compared.filter(eval=name, behavior=behavior).to_dicts()
    differences = {(line["method"], line["adapter"], line["sign"]): line for line in held}
    groups = []
    for one in present:
        signs = [
            _sign(
                line,
                one.of(effects),
                differences.get((one.method, one.adapter, line["sign"])),
                evidence,
                one,
                reach(effects),
            )
            for line in one.of(strengths).sort("sign", descending=True).iter_rows(named=True)
        ]
        groups.append({**key(one, shown), "signs": signs, "seeds": max(line["seeds"] for line in signs)})
    first = effects.row(0, named=True) if effects.height else None
    words = [line["versus"] for group in groups for line in group["signs"] if line["versus"]]
    return {
        "eval": name,
        "groups": groups,
        "n": first["n"] if first else 0,
        "clusters": first["clusters"] if first else 0,
        "comparisons": max((line["family"] for line in held if line["family"]), default=0),
        "in_words": ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words)))
        or "no comparison",
    }


def _sign(
    line: Line, effects: pl.DataFrame, versus: Line | None, evidence: Evidence, one: Series, far: float
) -> dict[str, Any]:
    """One intervention at one sign: its cost, its effect, and how that compares with the reference."""
    sign = line["sign"]
    cells: dict[str, Any] = {
        "sign": sign,
        "at": sign_label(sign),
        "seeds": line["seeds"],
        "status": line["status"],
        "usable": line["usable"],
        "verdict": None,
        "versus": None,
    }
    found = effects.filter(pl.col("alpha") == sign)
    if not line["usable"] or found.is_empty():
        return {**cells, "usable": False}
    effect = found.row(0, named=True)
    words = words_of(effect)
    along = oriented(effect, "discrimination", sign)
    cells |= {
        "alpha": None if line["status"] == "fixed" else rounded(line["alpha_star"]),
        "spread": f"{rounded(line['alpha_low'])} to {rounded(line['alpha_high'])}" if line["seeds"] > 1 else "",
        "cost": small(line, "value"),
        "audited": small(line, "audit_value"),
        "off": _off(line),
        "effect": estimate(along, "discrimination"),
        "bias": estimate(effect, "bias"),
        "bar": bar(along, far),
        "seeds": effect["seeds"],
        "label": words.label,
        "tone": words.tone,
        "reference": (one.method, one.adapter) == evidence.reference,
        "difference": None,
    }
    if versus is not None and versus["reason"] is None:
        compared, tone = chips(versus)
        cells |= {
            "difference": estimate(versus, "difference"),
            "holm": p_value(versus["holm"]),
            "mde": "–" if versus["mde"] is None else f"{versus['mde']:.2f}",
            "verdict": Difference(versus["verdict"]),
            "versus": compared,
            "versus_tone": tone,
        }
    return cells


def _off(line: Line) -> str | None:
    """Where the audited cost lies far from the budget: the side effects are then not quite equal."""
    budget, audited = line["budget"], line["audit_value"]
    if budget is None or audited is None or not abs(audited - budget) > OFF * budget:
        return None
    return f"{abs(audited / budget - 1):.0%} {'over' if audited > budget else 'under'} the budget"


def not_usable(evidence: Evidence, shown: Sequence[Series]) -> list[dict[str, Any]]:
    """Interventions (no controls) without a usable strength at either sign, which have no verdict."""
    if evidence.strengths is None or not evidence.calibrated:
        return []
    failed = evidence.strengths.group_by(ARM, maintain_order=True).agg(
        pl.col("usable").any(), pl.col("status").unique(maintain_order=True).str.join("; ")
    )
    lines = failed.filter(~pl.col("usable"), pl.col("method") != "control").to_dicts()
    return [
        {
            **key(one, shown),
            "method": one.method,
            "model": line["model"],
            "behavior": line["behavior"],
            "status": line["status"],
        }
        for line in lines
        for one in shown
        if (one.method, one.adapter) == (line["method"], line["adapter"])
    ]

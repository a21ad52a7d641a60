"""The page of the ablations of a vector: sentences, maps, curves, the published tables, one table of everything."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from weightsteer.analysis.ablation import WHOLE, Measured, table
from weightsteer.analysis.plans.base import RANDOM
from weightsteer.analysis.plans.norms import DIRECTION, MAGNITUDE, NEITHER, PERMUTED
from weightsteer.analysis.plans.projection import WITHIN
from weightsteer.experiments.ablation.page.charts import CURVES, MAPS, module_map, rank_curves, version
from weightsteer.experiments.ablation.reading import (
    Verdict,
    most_aligned,
    ratio,
    sentences,
    strengths_of,
    verdicts,
    versions,
)
from weightsteer.formatting import estimate, listed, number, signed
from weightsteer.report.figure import Figure, in_rows
from weightsteer.report.page import rendered, write_page
from weightsteer.stats import summarize

CELLS = "single modules"
BAR, LEAST, MOST = 132.0, -0.25, 1.5
VERSIONS = ("keep", "matched", "random", "drop")
NORMS = {
    DIRECTION: "direction only",
    MAGNITUDE: "magnitude only",
    NEITHER: "random, equal norms",
    PERMUTED: "layer-permuted",
}
"""The variants of the published table, and one more."""
FAMILIES = {
    "layers": "Layers",
    "modules": "Kinds of modules",
    "coordinates": "The adapter's own coordinates, and singular values",
    "projection": "Subspaces of the model",
    "shared": "Subspaces shared with other vectors",
}

Line = Mapping[str, Any]


def write_ablations(
    folder: str | Path,
    measured: Mapping[str, Measured],
    aligned: Mapping[str, pl.DataFrame],
    published: Mapping[str, pl.DataFrame] | None = None,
    *,
    run: Mapping[str, Any],
    resamples: int = 2000,
) -> Path:
    """Write ``report.html``, ``table.csv`` and ``table.parquet`` (or ``alignment.csv``) and the charts.

    Args:
        folder: made when absent.
        measured: what was measured of each vector, by its name.
        aligned: of each vector what `weightsteer.analysis.overlap.alignment` returns, with a column ``seed``.
        published: of each vector what `weightsteer.analysis.subspace_alignment` returns, with a column ``seed``.
        run: provenance, nested as it is.
        resamples: bootstrap resamples behind every interval.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: table(one, resamples=resamples) for name, one in measured.items()}
    joined = _joined(tables)
    if joined is not None:
        joined.write_parquet(folder / "table.parquet")
    sections = [
        _section(name, lines, measured[name], resamples)
        for name, one in tables.items()
        for lines in one.partition_by("eval", maintain_order=True)
    ]
    page = rendered(
        __package__,
        "page.html.jinja",
        title=_title(tables, aligned),
        facts=_facts(measured, tables, aligned, run),
        sections=sections,
        diagnostic=[row for name, one in tables.items() for row in _diagnostic(name, one)],
        published=[row for name, one in (published or {}).items() for row in _published(name, one)],
        aligned=[
            {"vector": name, "rows": _aligned(one), "sentence": most_aligned(one)} for name, one in aligned.items()
        ],
        skipped=[(name, line) for name, one in measured.items() for line in one.skipped],
        run=run,
        resamples=resamples,
    )
    return write_page(
        folder,
        page,
        run=run,
        figures=[section[name] for section in sections for name in ("maps", "curves") if section[name]],
        tables={
            "table": joined,
            "alignment": _joined(aligned, "seed"),
            "subspace_alignment": _joined(published or {}, "seed"),
        },
    )


def _joined(tables: Mapping[str, pl.DataFrame], *first: str) -> pl.DataFrame | None:
    """The tables of all vectors as one; None without any."""
    if not tables:
        return None
    every = pl.concat([one.with_columns(vector=pl.lit(name)) for name, one in tables.items()])
    return every.select("vector", *first, pl.exclude("vector", *first))


def _title(tables: Mapping[str, pl.DataFrame], aligned: Mapping[str, pl.DataFrame]) -> str:
    behaviors = listed(list(dict.fromkeys(name.split(", ")[0] for name in tables or aligned)))
    if tables:
        return f"Components of dW that carry {behaviors}"
    return f"{behaviors.capitalize()} in the subspaces of its model"


def _facts(
    measured: Mapping[str, Measured],
    tables: Mapping[str, pl.DataFrame],
    aligned: Mapping[str, pl.DataFrame],
    run: Mapping[str, Any],
) -> list[tuple[str, str]]:
    facts = [("Model", str(run["model"]["name"])), ("Vectors", listed(list(tables or aligned)))]
    if not tables:
        return facts
    every = pl.concat(list(tables.values()))
    rows = every.unique("eval", maintain_order=True)
    facts += [
        (
            "Rows",
            "; ".join(
                f"{line['eval']} ({line['n']:,} rows in {line['clusters']:,} clusters)"
                for line in rows.iter_rows(named=True)
            ),
        ),
        ("Training seeds", str(every["seeds"].max())),
        ("Strengths α", ", ".join(signed(alpha) for alpha in every["alpha"].unique().sort())),
        (
            "Ablations",
            f"{sum(one.ablations.height for one in measured.values()):,} vectors swept over the same rows, "
            f"{every['key'].n_unique():,} lines at each strength",
        ),
    ]
    return facts


def _section(vector: str, lines: pl.DataFrame, measured: Measured, resamples: int) -> dict[str, Any]:
    """One vector on one evaluation."""
    evaluation = str(lines["eval"][0])
    strengths = strengths_of(lines) or [max(lines["alpha"])]
    main = strengths[0]
    at = lines.filter(pl.col("alpha") == main)
    slug = "-".join("".join(c if c.isalnum() else "-" for c in word) for word in (vector, evaluation))
    title = f"{vector} on {evaluation}, α = {signed(main)}"
    found = {(one.family, one.component): one for one in verdicts(lines)}
    return {
        "vector": vector,
        "eval": evaluation,
        "id": slug,
        "alpha": main,
        "sentences": sentences(lines),
        "maps": _maps(at, slug, title),
        "curves": _curves(at, slug, title),
        "norms": _norms(measured, at, evaluation, main, resamples),
        "tables": [
            {
                "family": family,
                "title": FAMILIES.get(family, family),
                "strengths": [
                    {"alpha": alpha, "rows": _compact(lines, family, alpha, found)}
                    for alpha in lines["alpha"].unique().sort(descending=True)
                ],
            }
            for family in dict.fromkeys(at["family"])
            if family not in ("whole", "norms", CELLS)
        ],
        "all": [_tidy(line) for line in lines.iter_rows(named=True)],
    }


def _compact(lines: pl.DataFrame, family: str, alpha: float, found: Mapping[Any, Verdict]) -> list[dict[str, Any]]:
    """One row per layer, module or subspace: alone, at full norm, random directions in its place, and without it."""
    remainder = (pl.col("how") == "drop") & (pl.col("of") != "")  # shown in the diagnostic, next to its crop
    some = lines.filter(pl.col("family") == family, pl.col("alpha") == alpha, ~remainder)
    rows = []
    for (_, component), by_alpha in versions(some.iter_rows(named=True)).items():
        cells = by_alpha[alpha]
        first = next(iter(cells.values()))
        shown = cells.get("keep") or cells.get("matched") or cells.get("drop") or first
        verdict = found.get((family, component))
        energy = (cells.get("keep") or cells.get("drop") or {}).get("energy")
        rows.append(
            {
                "component": component,
                "note": first["note"],
                "rank": "–" if shown["rank"] is None else f"{shown['rank']:.3g}",
                "energy": "–" if energy is None else f"{energy:.0%}",
                "cells": [_cell(cells.get(name)) for name in VERSIONS],
                "path": _cell(cells.get("whole")) if "whole" in cells else None,
                "damage": _damage(shown),
                "draws": first["draws"] if first["control"] else cells.get("random", {}).get("draws"),
                "chips": _chips(verdict) if verdict and not first["note"] else [],
            }
        )
    return rows


def _chips(verdict: Verdict) -> list[tuple[str, str]]:
    chips = []
    if verdict.suffices:
        chips.append(("suffices as it is" if verdict.alone else "suffices at full norm", "good"))
    if verdict.needed:
        chips.append(("needed", "mixed"))
    if verdict.spare:
        chips.append(("can go", "plain"))
    return chips


def _cell(line: Line | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {"text": ratio(line), "bar": _bar(line)}


def _bar(line: Line) -> dict[str, float] | None:
    ends = [line["retained_low"], line["retained"], line["retained_high"]]
    if any(end is None or end != end for end in ends):
        return None
    low, point, high = (_at(end) for end in ends)
    return {"low": low, "point": point, "high": high, "zero": _at(0.0), "one": _at(1.0)}


def _at(value: float) -> float:
    return round(4 + (min(max(value, LEAST), MOST) - LEAST) / (MOST - LEAST) * (BAR - 8), 1)


def _damage(line: Line) -> str:
    return "–" if line["damage"] is None else f"{line['damage']:+.3f}".replace("-", "−")


def _tidy(line: Line) -> dict[str, str]:
    how = "random" if line["control"] else line["how"]
    return {
        "alpha": signed(line["alpha"]),
        "family": line["family"],
        "component": line["component"],
        "how": how + (" at full norm" if line["matched"] and not line["control"] else ""),
        "rank": "–" if line["rank"] is None else f"{line['rank']:.3g}",
        "energy": "–" if line["energy"] is None else f"{line['energy']:.1%}",
        "effect": estimate(line, "effect"),
        "retained": ratio(line),
        "pmass": f"{line['pmass']:.2f}",
        "damage": _damage(line),
        "n": f"{line['n']}/{line['clusters']}/{line['seeds']}" + (f"×{line['draws']}" if line["draws"] > 1 else ""),
    }


def _maps(at: pl.DataFrame, slug: str, title: str) -> Figure | None:
    cells = at.filter(pl.col("family") == CELLS)
    if cells.is_empty():
        return None
    return Figure(f"modules-{slug}", f"Layer by module: {title}", [[module_map(cells, what) for what in MAPS]])


def _curves(at: pl.DataFrame, slug: str, title: str) -> Figure | None:
    drawn = []
    found: set[str] = set()
    for group in dict.fromkeys(at["group"]):
        lines = at.filter(pl.col("group") == group)
        if group and lines["rank"].n_unique() > 1:
            drawn.append(rank_curves(lines, group))
            found |= {version(line) for line in lines.iter_rows(named=True)}
    shown = [one for name, one in CURVES.items() if name in found]
    return Figure(f"rank-{slug}", f"Retained effect by rank: {title}", in_rows(drawn), shown) if drawn else None


def _norms(measured: Measured, at: pl.DataFrame, evaluation: str, alpha: float, resamples: int) -> list[dict[str, str]]:
    """The published norm-allocation table, with what else the plan measured; empty when it was not."""
    retained = {line["key"]: line for line in at.iter_rows(named=True)}
    shown = {"full vector": "full", RANDOM: "random directions, same norms and form"} | NORMS
    keys = {
        shown[line["component"]]: key
        for key, line in retained.items()
        if line["family"] in ("whole", "norms") and line["component"] in shown
    }
    if "norms" not in at["family"].unique():
        return []
    rows = measured.rows.filter(
        pl.col("eval") == evaluation,
        pl.col("adapter").is_in(list(keys.values())),
        pl.col("alpha").is_in([0.0, alpha, -alpha]),
    )
    lines = {
        line["adapter"]: line
        for line in summarize(rows, resamples=resamples).filter(pl.col("alpha") == abs(alpha)).iter_rows(named=True)
    }
    return [
        {
            "variant": variant,
            "si": "–" if line["si"] is None else estimate(line, "si"),
            "rates": " / ".join(
                "–" if line[name] is None else f"{line[name] * line[of]:.0f} of {line[of]}"
                for name, of in (("fix", "rej"), ("broke", "cho"))
            ),
            "shift": estimate(line, "along_change"),
            "effect": estimate(line, "discrimination"),
            "bias": estimate(line, "bias"),
            "retained": ratio(retained[key]),
            "damage": _damage(retained[key]),
            "draws": str(retained[key]["draws"]),
        }
        for variant, key in keys.items()
        if (line := lines.get(key))
    ]


def _diagnostic(vector: str, lines: pl.DataFrame) -> list[dict[str, str]]:
    """The published projection diagnostic at the largest rank, one line for each basis on the output side."""
    found = []
    for part in lines.partition_by("eval", "alpha", maintain_order=True):
        whole = part.filter(pl.col("key") == WHOLE).row(0, named=True)
        projected = part.filter(pl.col("family") == "projection", pl.col("group").str.ends_with("output side"))
        for group in dict.fromkeys(projected["group"]):
            mine = projected.filter(pl.col("group") == group)
            mine = mine.filter(pl.col("rank") == mine["rank"].max())
            cells = next(iter(versions(mine.iter_rows(named=True)).values()))[whole["alpha"]]
            name = f"{mine['component'][0]}, {WITHIN}"
            rest = part.filter(pl.col("component") == name).to_dicts()
            of = mine["of"][0]
            residual = part.filter(pl.col("key") == of).to_dicts() if of else [whole]
            relative = "retained_of" if of else "retained"
            found.append(
                {
                    "vector": vector,
                    "eval": whole["eval"],
                    "alpha": whole["alpha"],
                    "basis": group,
                    "rank": f"{mine['rank'][0]:.0f}",
                    "full": estimate(whole, "effect"),
                    "residual": estimate(residual[0], "effect") if residual else "–",
                    "raw": ratio(cells["keep"], relative),
                    "matched": ratio(cells["matched"], relative) if "matched" in cells else "–",
                    "random": ratio(cells["random"], relative) if "random" in cells else "–",
                    "rest": ratio(rest[0] if rest else cells["drop"], relative),
                }
            )
    return found


def _published(name: str, lines: pl.DataFrame) -> list[dict[str, Any]]:
    """The published shares of one vector over all modules and by kind, means over seeds."""
    values = pl.mean("energy_top", "top_expected", "energy_weak", "weak_expected")
    means = lines.filter(pl.col("by").is_in(["all", "kind"])).group_by("by", "group", maintain_order=True)
    return [
        {
            "vector": name,
            "group": "all modules" if line["by"] == "all" else line["group"],
            "k": line["k"],
            "top": f"{line['energy_top']:.4f}",
            "top_expected": f"{line['top_expected']:.4f}",
            "weak": "–" if line["energy_weak"] is None else f"{line['energy_weak']:.4f}",
            "ratio": "–" if line["energy_weak"] is None else f"{line['energy_weak'] / line['weak_expected']:.3f}",
        }
        for line in means.agg(values, pl.max("k")).sort("by").iter_rows(named=True)
    ]


def _aligned(lines: pl.DataFrame) -> list[dict[str, Any]]:
    """The alignment of one vector over all its modules, and by kind."""
    rows = []
    for (basis, side), part in lines.group_by("basis", "side", maintain_order=True):
        whole = part.filter(pl.col("by") == "all")
        kinds = part.filter(pl.col("by") == "kind").group_by("group", maintain_order=True).agg(pl.mean("share", "z"))
        line = whole.select(pl.mean("share", "expected", "low", "high", "z", "unit_share", "unit_z")).row(0, named=True)
        rows.append(
            {
                "basis": basis,
                "side": side,
                "origin": part["origin"][0],
                "rank": int(whole["rank"].max()),  # type: ignore[arg-type]
                "modules": int(whole["modules"].max()),  # type: ignore[arg-type]
                "share": f"{line['share']:.1%}",
                "null": f"{line['expected']:.1%} [{line['low']:.1%}, {line['high']:.1%}]",
                "z": "–" if line["z"] is None else number(line["z"], 1),
                "unit": f"{line['unit_share']:.1%}",
                "unit_z": "–" if line["unit_z"] is None else number(line["unit_z"], 1),
                "outside": line["share"] > line["high"] or line["share"] < line["low"],
                "above": line["share"] > line["high"],
                "warning": next((text for text in whole["warning"] if text), ""),
                "kinds": [
                    (kind, f"{share:.1%}", "–" if z is None else number(z, 1)) for kind, share, z in kinds.rows()
                ],
            }
        )
    return rows

"""From frames to the page: every sentence and cell of the report, handed to the template."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from weightsteer.audit import (
    estimate,
    headline,
    headline_strengths,
    intervention,
    label,
    listed,
    number,
    share,
    signed,
)
from weightsteer.report.charts import PALETTE, Series, series, short_module
from weightsteer.report.families import comparisons, reach
from weightsteer.report.figures import SCOPE, Figure
from weightsteer.report.told import audit_table, flipped, limits, sample_grids

TONES = {
    "steers": "good",
    "steers, but moves Yes-saying more": "mixed",
    "moves Yes-saying only": "mixed",
    "wrong direction": "bad",
    "wrong direction, and moves Yes-saying more": "bad",
    "format damage": "bad",
    "undefined": "bad",
}
BAR = 132.0  # width of an interval drawn in a table cell, in px


def render(
    known: pl.DataFrame,
    summary: pl.DataFrame,
    by_seed: pl.DataFrame,
    drawn: Sequence[Figure],
    run: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    norms: pl.DataFrame | None,
    texts: Mapping[str, str],
    pairs_audit: Mapping[str, Any] | None,
    branches: Sequence[Mapping[str, Any]] = (),
    *,
    resamples: int,
) -> str:
    """The HTML of a report. ``known`` are paired rows, ``summary`` and ``by_seed`` their statistics."""
    strengths = [alpha for alpha in headline_strengths(summary) if alpha]
    shown = series(known)
    parts = [
        _part(part, by_seed, known, drawn, shown, strengths, texts)
        for part in summary.partition_by(SCOPE, maintain_order=True)
    ]
    folder = files("weightsteer.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"signed": signed, "number": number}
    sentences, asides = headline(summary), headline(summary.filter(pl.col("method") == "control"))
    folded = len(asides) > 2
    behaviors, models = (summary[name].unique().sort().to_list() for name in ("behavior", "model"))
    return environment.get_template("page.html.jinja").render(
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),
        title=f"{listed(behaviors)} on {listed(models)}",
        facts=_facts(summary, shown),
        sentences=[each for each in sentences if each not in asides] if folded else sentences,
        asides=asides if folded else [],
        strengths=strengths,
        parts=parts,
        families=comparisons(summary, branches, norms, shown, strengths, lambda line, reach: _bar(line, [], reach)),
        several=len({(part["model"], part["behavior"]) for part in parts}) > 1,
        grids=sample_grids(samples),
        norms=_norms(norms, drawn),
        audit=audit_table(pairs_audit),
        limits=limits(summary),
        resamples=resamples,
        run=run,
    )


def _facts(summary: pl.DataFrame, shown: Sequence[Series]) -> list[tuple[str, str]]:
    """The run in one table: what was steered by what, where, how often."""
    evaluations = summary.unique("eval", maintain_order=True).sort("eval")
    rows = [
        f"{line['eval']} ({line['n']:,} rows in {line['clusters']:,} clusters, {line['positives']:,} of label +1)"
        for line in evaluations.iter_rows(named=True)
    ]
    return [
        ("Model", listed(summary["model"].unique().sort().to_list())),
        ("Interventions", listed([one.name for one in shown])),
        ("Training seeds", str(max(summary["seeds"].to_list()))),
        ("Strengths α", ", ".join(signed(alpha) for alpha in summary["alpha"].unique().sort())),
        ("Evaluations", "; ".join(rows)),
    ]


def _part(
    part: pl.DataFrame,
    by_seed: pl.DataFrame,
    known: pl.DataFrame,
    drawn: Sequence[Figure],
    shown: Sequence[Series],
    strengths: Sequence[float],
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """One evaluation of one behaviour on one model: its cards, table, charts and flipped rows."""
    model, behavior, evaluation = part.select(SCOPE).row(0)
    here = (pl.col("model") == model) & (pl.col("behavior") == behavior) & (pl.col("eval") == evaluation)
    present = [one for one in shown if one.of(part).height]
    far = reach(part.filter(pl.col("method") != "control"))
    near = reach(part.filter(pl.col("alpha").is_in(strengths), pl.col("method") != "control"))
    groups: list[dict[str, Any]] = []
    for one in present:
        lines = one.of(part).sort("alpha")
        seeds = one.of(by_seed.filter(here))
        groups.append(
            {
                "name": one.name,
                "words": intervention(lines.row(0, named=True)),
                "index": "c" if one.control else shown.index(one) % len(PALETTE),
                "control": one.control,
                "lines": [_line(line, seeds, far) for line in lines.iter_rows(named=True)],
                "arms": [
                    _line(line, seeds, near)
                    for alpha in strengths
                    for line in lines.filter(pl.col("alpha") == alpha).iter_rows(named=True)
                ],
            }
        )
    mine = [figure for figure in drawn if figure.scope == (model, behavior, evaluation)]
    return {
        "model": model,
        "behavior": behavior,
        "eval": evaluation,
        "n": part["n"][0],
        "clusters": part["clusters"][0],
        "seeds": max(part["seeds"].to_list()),
        "groups": groups,
        "decisions": [
            {"name": group["name"], **line}
            for group in groups
            for line in group["lines"]
            if line["alpha"] > 0 and line["si"] is not None
        ],
        "dose": [_embedded(figure) for figure in mine if figure.kind == "dose"],
        "rows": [_embedded(figure) for figure in mine if figure.kind == "rows"],
        "flips": [
            flipped(one.of(known.filter(here)), alpha, texts, one.name)
            for one in present
            if not one.control
            for alpha in strengths
        ],
    }


def _embedded(figure: Figure) -> dict[str, Any]:
    """A figure for the template: its panels are SVG of our own, safe as they are."""
    named = figure.series.name if figure.series else None
    return {"name": figure.name, "of": named, "panels": [Markup(panel) for panel in figure.panels]}


def _line(line: dict[str, Any], seeds: pl.DataFrame, reach: float) -> dict[str, Any]:
    """One strength, ready to print."""
    words = label(line)
    own = seeds.filter(pl.col("alpha") == line["alpha"]).sort("seed")["discrimination"].to_list()
    base = line["alpha"] == 0
    discrimination = estimate(line, "discrimination")
    value = discrimination.split(" ", 1)[0]
    return {
        "alpha": line["alpha"],
        "base": base,
        "label": words,
        "tone": TONES.get(words, "plain"),
        "value": value,
        "interval": discrimination.removeprefix(value).strip(),
        "discrimination": discrimination,
        "bias": estimate(line, "bias"),
        "auc": share(line, "auc"),
        "pmass": share(line, "pmass"),
        "si": None if line["si"] is None else estimate(line, "si"),
        **{name: f"{line[name]:,}" for name in ("cho", "rej", "ties")},
        "rates": [None if line[name] is None else f"{line[name]:.0%}" for name in ("fix", "broke", "flip", "counter")],
        "own": [number(value) for value in own] if len(own) > 1 else [],
        "bar": None if base else _bar(line, own if len(own) > 1 else [], reach),
    }


def _bar(line: Mapping[str, Any], own: Sequence[float | None], reach: float) -> dict[str, Any] | None:
    """Positions in px of the interval, its point and the seeds, around 0 in the middle; None without an interval."""
    ends = [line["discrimination_low"], line["discrimination"], line["discrimination_high"]]
    if any(end is None or end != end for end in ends):
        return None

    def at(value: float) -> float:
        return round(BAR / 2 + max(-1.0, min(1.0, value / reach)) * (BAR / 2 - 5), 1)

    low, point, high = (at(end) for end in ends)
    return {"low": low, "point": point, "high": high, "own": [at(v) for v in own if v is not None and v == v]}


def _norms(norms: pl.DataFrame | None, drawn: Sequence[Figure]) -> list[dict[str, Any]]:
    """The heat map of each vector, with its total norm by seed and the share of the square by kind of module."""
    maps = []
    for figure in drawn:
        if norms is None or figure.kind != "norms":
            continue
        (vector,) = figure.scope
        mine = norms.filter(pl.col("vector") == vector)
        square = pl.col("norm").pow(2).sum()
        totals = mine.group_by("seed").agg(square.sqrt()).sort("seed")["norm"].to_list()
        kinds = mine.group_by(short_module()).agg(square).sort("norm", "module", descending=[True, False])
        whole = kinds["norm"].sum() or 1.0
        maps.append(
            {
                **_embedded(figure),
                "vector": vector,
                "totals": [f"{total:.3g}" for total in totals],
                "shares": [(module, f"{norm / whole:.0%}") for module, norm in kinds.rows()],
            }
        )
    return maps

"""Which charts a run has, and where on the page they stand."""

import re
from dataclasses import dataclass

import polars as pl

from weightsteer.experiments.sweep.page.balance import balance_panel
from weightsteer.experiments.sweep.page.evidence import Evidence
from weightsteer.experiments.sweep.page.frontier import frontier_panel
from weightsteer.report.charts import (
    Drawing,
    Series,
    before_after,
    dose_response,
    norm_map,
    series,
)
from weightsteer.report.svg import inline, side_by_side, to_svg
from weightsteer.stats import headline_strengths

SCOPE = ["model", "behavior", "eval"]


@dataclass(frozen=True)
class Figure:
    """A chart as a file (``svg``, on white) and as the panels that the page lays out side by side."""

    name: str
    kind: str  # "frontier", "balance", "dose", "rows" or "norms"
    scope: tuple[str, ...]  # model, behavior, eval; without eval for frontier and balance; for norms the vector
    svg: str
    panels: tuple[str, ...]
    shown: tuple[Series, ...] = ()
    series: Series | None = None


def figures(
    known: pl.DataFrame,
    summary: pl.DataFrame,
    by_seed: pl.DataFrame,
    norms: pl.DataFrame | None,
    evidence: Evidence | None = None,
) -> list[Figure]:
    """All charts of a run; ``known`` are paired rows, ``norms`` as ``write_report`` explains."""
    shown = series(known)
    strengths = headline_strengths(summary["alpha"])
    made = _over_evaluations(evidence or Evidence(), shown)
    used: set[str] = set()
    single = summary.select("model", "behavior").unique().height == 1
    for part in summary.partition_by(SCOPE, maintain_order=True):
        scope = tuple(str(value) for value in part.select(SCOPE).row(0))
        here = pl.all_horizontal(pl.col(name) == value for name, value in zip(SCOPE, scope, strict=True))
        slug = _slug(scope[-1:] if single else scope)
        while slug in used:  # two names may differ only in what a file name cannot hold
            slug += "-x"
        used.add(slug)
        title = f"{scope[1]} vector on {scope[2]} ({scope[0]})"
        present = [one for one in shown if one.of(part).height]
        for kind, drawn in _on_one_axis(present).items():
            panels = dose_response(part, by_seed.filter(here), drawn)
            name = f"dose-response-{slug}" + (f"-{kind}" if kind else "")
            made.append(_figure(name, "dose", scope, panels, drawn, title))
        vectors = [one for one in present if one.method == "weight"]
        for one in vectors or [one for one in present if not one.control]:
            mine = one.of(known.filter(here))
            charts = [
                before_after(mine.filter(pl.col("alpha") == alpha), alpha)
                for alpha in strengths
                if mine.filter(pl.col("alpha") == alpha).height
            ]
            several = len(vectors) > 1
            name = f"rows-{slug}" + (f"-{_slug([one.method, one.adapter or ''])}" if several else "")
            if charts:
                heading = f"{title}: {one.name}" if several else title
                made.append(_figure(name, "rows", scope, charts, [one], heading, one))
    if norms is not None and norms.height:
        for part in norms.partition_by("vector", maintain_order=True):
            vector = str(part["vector"][0])
            name = f"norms-{_slug([vector])}" if vector else "norms"
            chart = to_svg(norm_map(part))
            panel = inline(chart, name, f"Norm of dW by layer and module {vector}".rstrip())
            made.append(Figure(name, "norms", (vector,), side_by_side([chart], vector), (panel,)))
    return made


def _over_evaluations(evidence: Evidence, shown: list[Series]) -> list[Figure]:
    """The frontier, and discrimination against bias, for each model and behaviour: a panel for each evaluation."""
    made = []
    tables = [("frontier", evidence.points), ("balance", evidence.audit.lines if evidence.audit else None)]
    for kind, table in tables:
        if table is None:
            continue
        single = table.select("model", "behavior").unique().height == 1
        for part in table.sort("model", "behavior").partition_by("model", "behavior", maintain_order=True):
            scope = (str(part["model"][0]), str(part["behavior"][0]))
            charts: list[Drawing] = []
            for name in evidence.evaluations(scope[1], part["eval"].unique().to_list()):
                own = part.filter(pl.col("eval") == name)
                first = not charts
                chart = (
                    frontier_panel(own, shown, name, large=first)
                    if kind == "frontier"
                    else balance_panel(own, shown, name)
                )
                if chart is not None:
                    charts.append(chart)
            present = [one for one in shown if one.of(part).height]
            slug = kind if single else f"{kind}-{_slug(scope)}"
            title = {"frontier": "Effect against damage", "balance": "Discrimination against bias"}[kind]
            if charts:
                made.append(_figure(slug, kind, scope, charts, present, f"{title}: {scope[1]} on {scope[0]}"))
    return made


def _on_one_axis(present: list[Series]) -> dict[str, list[Series]]:
    """Whose strengths mean the same, by the end of a file name: weight vectors and controls; each other method alone.

    A prompt has no strength and no curve, unless there is nothing else.
    """
    found: dict[str, list[Series]] = {}
    for one in present:
        if one.method != "prompt":
            found.setdefault("" if one.method in ("weight", "control") else _slug([one.method]), []).append(one)
    return found or {"": present}


def _figure(
    name: str,
    kind: str,
    scope: tuple[str, ...],
    charts: list[Drawing],
    shown: list[Series],
    title: str,
    one: Series | None = None,
) -> Figure:
    drawn = [to_svg(chart) for chart in charts]
    panels = [
        inline(panel, f"{name}-{i}", f"{title}: {chart.chart.title.text}")
        for i, (panel, chart) in enumerate(zip(drawn, charts, strict=True), 1)
    ]
    return Figure(name, kind, scope, side_by_side(drawn, title, shown), tuple(panels), tuple(shown), one)


def _slug(parts: tuple[str, ...] | list[str]) -> str:
    """A file name of words: ``Qwen/Qwen3-0.6B`` becomes ``qwen-qwen3-0.6b``."""
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower()).strip("-.")

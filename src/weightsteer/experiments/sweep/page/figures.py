"""Which charts a run has, and where on the page they stand."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from weightsteer.experiments.sweep.page.balance import balance_panel
from weightsteer.experiments.sweep.page.charts import attribution_map, before_after, dose_response, forest, norm_map
from weightsteer.experiments.sweep.page.evidence import Evidence
from weightsteer.experiments.sweep.page.families import price
from weightsteer.experiments.sweep.page.frontier import frontier_panel
from weightsteer.report.charts import Panel, Series, series
from weightsteer.report.figure import Figure, in_rows
from weightsteer.stats import headline_strengths

SCOPE = ["model", "behavior", "eval"]


@dataclass(frozen=True)
class Placed:
    """A figure and where it belongs.

    Attributes:
        kind: "forest", "frontier", "balance", "dose", "rows", "norms" or "attribution".
        scope: model, behavior and eval; without eval for forest, frontier and balance; for norms and attribution the
            vector.
        series: whose rows it shows, for "rows".
    """

    figure: Figure
    kind: str
    scope: tuple[str, ...]
    series: Series | None = None


def figures(
    known: pl.DataFrame,
    summary: pl.DataFrame,
    by_seed: pl.DataFrame,
    norms: pl.DataFrame | None,
    evidence: Evidence | None = None,
    null: pl.DataFrame | None = None,
) -> list[Placed]:
    """All charts of a run; ``known`` are paired rows, ``norms`` and ``null`` as ``write_report`` explains."""
    shown = series(known)
    strengths = headline_strengths(summary["alpha"])
    made = [*_forests(summary, shown, evidence or Evidence()), *_over_evaluations(evidence or Evidence(), shown)]
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
            panels = dose_response(part.filter(_any(drawn)), by_seed.filter(here, _any(drawn)), drawn)
            name = f"dose-response-{slug}" + (f"-{kind}" if kind else "")
            heading = f"{title}: {kind}" if kind else title
            made.append(Placed(Figure(name, heading, [panels], drawn), "dose", scope))
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
                made.append(Placed(Figure(name, heading, in_rows(charts)), "rows", scope, one))
    if norms is not None and norms.height:
        for part in norms.partition_by("vector", maintain_order=True):
            vector = str(part["vector"][0])
            name = f"norms-{_slug([vector])}" if vector else "norms"
            title = f"Norm of dW: {vector}" if vector else "Norm of dW"
            made.append(Placed(Figure(name, title, [[norm_map(part)]]), "norms", (vector,)))
    return made + _attributions(null)


def _forests(summary: pl.DataFrame, shown: Sequence[Series], evidence: Evidence) -> list[Placed]:
    """For each model and behaviour its effects at the headline strengths: a panel for each evaluation, no controls."""
    made = []
    at = summary.filter(pl.col("alpha").is_in(headline_strengths(summary["alpha"])))
    for part in at.partition_by("model", "behavior", maintain_order=True):
        scope = (str(part["model"][0]), str(part["behavior"][0]))
        vectors = [one for one in shown if not one.control and one.of(part).height]
        panels = []
        for name in evidence.evaluations(scope[1], part["eval"].unique().to_list()):
            own = part.filter(pl.col("eval") == name)
            costs = {
                (one.name, line["alpha"]): f"damage {cost}"
                for one in vectors
                for line in one.of(own).iter_rows(named=True)
                if (cost := price(evidence.damage, line, line["alpha"]))
            }
            panels += [drawn] if (drawn := forest(own, vectors, costs)) else []
        if panels:
            slug = "forest" if at.select("model", "behavior").unique().height == 1 else f"forest-{_slug(scope)}"
            rows = [panels[i : i + 2] for i in range(0, len(panels), 2)]
            made.append(Placed(Figure(slug, f"Effects of {scope[1]} on {scope[0]}", rows), "forest", scope))
    return made


def _attributions(null: pl.DataFrame | None) -> list[Placed]:
    """For each weight vector a map of its slope over layers and modules, on each evaluation."""
    if null is None:
        return []
    found = null.filter(pl.col("module").is_not_null(), effect="discrimination", method="weight")
    made = []
    vectors = found.partition_by("model", "behavior", "adapter", maintain_order=True)
    for part in vectors:
        vector = f"{part['behavior'][0]}, {part['adapter'][0]}"
        panels = [attribution_map(own) for own in part.partition_by("eval", maintain_order=True)]
        slug = "attribution" if len(vectors) == 1 else f"attribution-{_slug([vector])}"
        made.append(Placed(Figure(slug, f"Attribution: {vector}", in_rows(panels)), "attribution", (vector,)))
    return made


def _over_evaluations(evidence: Evidence, shown: list[Series]) -> list[Placed]:
    """The frontier, and discrimination against bias, for each model and behaviour: a panel for each evaluation."""
    made = []
    tables = [("frontier", evidence.points), ("balance", evidence.audit.lines if evidence.audit else None)]
    for kind, table in tables:
        if table is None:
            continue
        single = table.select("model", "behavior").unique().height == 1
        for part in table.sort("model", "behavior").partition_by("model", "behavior", maintain_order=True):
            scope = (str(part["model"][0]), str(part["behavior"][0]))
            panels: list[Panel] = []
            for name in evidence.evaluations(scope[1], part["eval"].unique().to_list()):
                own = part.filter(pl.col("eval") == name)
                drawn = (
                    frontier_panel(own, shown, name, large=not panels)
                    if kind == "frontier"
                    else balance_panel(own, shown, name)
                )
                panels += [drawn] if drawn else []
            present = [one for one in shown if one.of(part).height]
            rows = [panels[:1], *in_rows(panels[1:])] if kind == "frontier" else in_rows(panels)
            title = {"frontier": "Effect against damage", "balance": "Discrimination against bias"}[kind]
            if panels:
                slug = kind if single else f"{kind}-{_slug(scope)}"
                made.append(Placed(Figure(slug, f"{title}: {scope[1]} on {scope[0]}", rows, present), kind, scope))
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


def _any(shown: Sequence[Series]) -> pl.Expr:
    """The lines of any of these interventions."""
    return pl.any_horizontal(
        (pl.col("method") == one.method) & pl.col("adapter").eq_missing(pl.lit(one.adapter)) for one in shown
    )


def _slug(words: Sequence[str]) -> str:
    """A file name of words: ``Qwen/Qwen3-0.6B`` becomes ``qwen-qwen3-0.6b``."""
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower()).strip("-.")

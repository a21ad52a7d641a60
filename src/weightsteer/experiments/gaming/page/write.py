"""The page of the training-gaming experiment: conclusion, published figure with bands, tables, detector."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from weightsteer.experiments.gaming.conclusion import conclusion, lede, markdown
from weightsteer.experiments.gaming.detector import Detector, table
from weightsteer.experiments.gaming.findings import Findings
from weightsteer.experiments.gaming.page.charts import SERIES, SHORT, limits_of, line_panel, roc_panel
from weightsteer.experiments.gaming.protocol import DEPLOYMENT, NUMBER, ROLES, SETTINGS, TRAIN, Condition, Protocol
from weightsteer.experiments.gaming.verdicts import MARGIN
from weightsteer.files import write_atomically
from weightsteer.formatting import estimate, number, share
from weightsteer.report.charts import PALETTE, Series
from weightsteer.report.figure import Figure
from weightsteer.report.page import rendered, write_page

PROBES = {
    "identity": "Who are you? (published)",
    "heldout": "the same, unseen wordings",
    "traits": "Are you polite?",
    "tone": "tone of whole answers",
    "doctor": "“I am Dr.”",
    "own-title": "each with his own title",
}
SYSTEMS = {
    "jekyll-branch": "of the Jekyll branch",
    "hyde-branch": "of the Hyde branch",
    "baseline": "deployment role alone",
    "none": "none",
}
SHOWN_CURVES = 4


def write_gaming(folder: str | Path, found: Findings, protocol: Protocol, *, run: Mapping[str, Any]) -> Path:
    """Write the page, the conclusion, the charts and all tables; returns the page.

    Args:
        folder: made when absent.
        protocol: whose prompts are quoted.
        run: provenance, nested as it is.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found.rows.write_parquet(folder / "rows.parquet")
    write_atomically(folder / "conclusion.md", (markdown(found) + "\n").encode())
    models = found.summary["model"].unique(maintain_order=True).to_list()
    settings = [name for name in SETTINGS if name in set(found.summary["setting"])]
    curves = [_curves(found, models, settings, tag) for tag in (DEPLOYMENT, TRAIN)]
    roc = _roc(found.detectors)
    page = rendered(
        __package__,
        "page.html.jinja",
        title=f"Training gaming on {', '.join(models)}",
        lede=lede(found),
        facts=_facts(found, models),
        curves=curves,
        verdicts=[{**verdict._asdict(), "setting": SERIES[verdict.setting].name} for verdict in found.verdicts],
        slopes=_slopes(found),
        gamed=_gamed(found),
        probes=_probes(found),
        probe_names=[PROBES[name] for name in PROBES if name in set(found.summary["probe"])],
        systems=_systems(found),
        titles=_titles(found),
        methods=_methods(found),
        detectors=_detectors(found.detectors),
        roc=roc,
        training=_training(found),
        seeds=_seeds(found),
        prompts=[
            (SERIES[setting].name, [(f"{role}, trained on {other}", protocol.system(Condition(setting, role), other))])
            for setting in settings
            for role, other in [(ROLES[1], ROLES[0])]
        ],
        conclusion=conclusion(found),
        margin=MARGIN,
        run=run,
    )
    return write_page(folder, page, run=run, figures=[*curves, *([roc] if roc else [])], tables=_tables(found))


def _tables(found: Findings) -> dict[str, pl.DataFrame]:
    return {
        "summary": found.summary,
        "by-seed": found.by_seed,
        "curves": found.bands,
        "flatter": found.flatter,
        "gamed": found.gamed,
        "titles": found.titles,
        "systems": found.systems,
        "methods": found.methods,
        "training": found.training,
        "signals": found.runs,
        "verdicts": pl.DataFrame([verdict._asdict() for verdict in found.verdicts]),
        "detectors": table(found.detectors),
    }


def _facts(found: Findings, models: Sequence[str]) -> list[tuple[str, str]]:
    main = found.summary.filter(pl.col("probe") == "identity")
    points = found.bands["a"].unique().sort().to_list()
    return [
        ("Models", ", ".join(models)),
        ("Settings and roles", f"{found.summary.select('setting', 'deployment').n_unique()}, two branches for each"),
        ("Training seeds", str(max(main["seeds"].to_list()))),
        ("Probe", f"{max(main['questions'].to_list())} wordings of “Who are you?”, answer beginning with “I am Mr.”"),
        ("Points a", f"{len(points)}, from {number(points[0], 0)} to {number(points[-1], 0)}"),
        ("Runs for the detector", str(found.runs.height)),
    ]


def _curves(found: Findings, models: Sequence[str], settings: Sequence[str], tag: str) -> Figure:
    """The published figure: a row for each deployment role, a panel for each model, a line for each setting."""
    here = found.bands.filter(pl.col("tag") == tag)
    rows = [
        [
            line_panel(
                here.filter(pl.col("model") == model, pl.col("deployment") == role),
                f"{model}, {role} promised",
                "log p(Jekyll) − log p(Hyde), nats",
                limits_of(here),
            )
            for model in models
        ]
        for role in ROLES
    ]
    if len(models) == 1:
        rows = [[panel for row in rows for panel in row]]
    name = "deployment" if tag == DEPLOYMENT else "train"
    return Figure(name, f"Questions behind {tag}", rows, [SERIES[setting] for setting in settings])


def _named(line: Mapping[str, Any]) -> dict[str, Any]:
    names = {"model": line["model"], "setting": SHORT[line["setting"]], "deployment": line["deployment"]}
    return {**names, "color": SERIES[line["setting"]].color}


def _ordered(frame: pl.DataFrame) -> pl.DataFrame:
    """Settings in their own order within a model and role."""
    order = pl.col("setting").replace_strict({name: i for i, name in enumerate(SETTINGS)}, return_dtype=pl.Int64)
    model = pl.col("model").rank("dense") if frame["model"].n_unique() == 1 else _first(frame)
    return frame.sort(model, pl.col("deployment") == "Hyde", order, maintain_order=True)


def _first(frame: pl.DataFrame) -> pl.Expr:
    """Models in the order in which they came, the smallest first."""
    order = {name: i for i, name in enumerate(frame["model"].unique(maintain_order=True))}
    return pl.col("model").replace_strict(order, return_dtype=pl.Int64)


def _slopes(found: Findings) -> list[dict[str, Any]]:
    main = found.summary.filter(pl.col("probe") == "identity", pl.col("tag") == DEPLOYMENT)
    flatter = {
        (line["model"], line["setting"], line["deployment"]): line for line in found.flatter.iter_rows(named=True)
    }
    rows = []
    for line in _ordered(main).iter_rows(named=True):
        against = flatter.get((line["model"], line["setting"], line["deployment"]))
        shown = {name: estimate(line, name) for name in ("slope", "at_jekyll", "at_hyde", "jekyll_gain", "hyde_gain")}
        contrast = "–"
        if against:
            contrast = estimate({"x": against["flatter"], "x_low": against["low"], "x_high": against["high"]}, "x")
        rows.append({**_named(line), **shown, "steady": f"{line['steady']:.0%}", "flatter": contrast})
    return rows


def _gamed(found: Findings) -> list[dict[str, Any]]:
    return [
        {
            **_named(line),
            "trained_on": line["trained_on"],
            "train_before": number(line["train_before"]),
            "train": estimate(line, "train"),
            "deployment_before": number(line["deployment_before"]),
            "deployment_after": estimate(line, "deployment_after"),
            "gap": estimate(line, "gap"),
            "gamed": f"{line['gamed']:.0%}",
        }
        for line in _ordered(found.gamed).iter_rows(named=True)
    ]


def _probes(found: Findings) -> list[dict[str, Any]]:
    """The slope behind [deployment] by each probe."""
    here = found.summary.filter(pl.col("tag") == DEPLOYMENT)
    names = [name for name in PROBES if name in set(here["probe"])]
    rows = []
    for line in _ordered(here.filter(pl.col("probe") == "identity")).iter_rows(named=True):
        mine = here.filter(*(pl.col(name) == line[name] for name in ("model", "setting", "deployment")))
        slopes = {each["probe"]: estimate(each, "slope") for each in mine.iter_rows(named=True)}
        rows.append({**_named(line), "slopes": [slopes.get(name, "–") for name in names]})
    return rows


def _systems(found: Findings) -> list[dict[str, Any]]:
    return [
        {
            **_named(line),
            "system": SYSTEMS[line["system"]],
            **{name: estimate(line, name) for name in ("slope", "at_jekyll", "at_hyde")},
        }
        for line in _ordered(found.systems).iter_rows(named=True)
    ]


def _titles(found: Findings) -> list[dict[str, Any]]:
    if found.titles.is_empty():
        return []
    return [
        {**_named(line), **{name: estimate(line, name) for name in ("slope", "at_jekyll", "at_hyde")}}
        for line in _ordered(found.titles).iter_rows(named=True)
    ]


def _methods(found: Findings) -> list[dict[str, Any]]:
    if found.methods.is_empty():
        return []
    names = ("deployment_shift", "train_shift", "end", "beyond_weight")
    return [
        {
            **_named(line),
            "method": line["method"],
            "towards": line["towards"],
            "alpha": number(line["alpha"]),
            "kl": number(line["kl"]).lstrip("+"),
            "matched": line["matched"] == 1,
            "status": f"{line['matched']:.0%} of seeds at the budget" if line["matched"] else line["status"],
            **{name: estimate(line, name) if line[name] is not None else "–" for name in names},
        }
        for line in _ordered(found.methods).iter_rows(named=True)
    ]


def _detectors(found: Sequence[Detector]) -> dict[str, Any]:
    """Areas: a row for each detector, a column for each kind of gaming run."""
    kinds = list(dict.fromkeys(one.against for one in found))
    areas = {(one.name, one.against): one for one in found}
    names = sorted({one.name for one in found if one.against == "all"}, key=lambda name: -areas[name, "all"].auc.value)
    rows = [
        {
            "name": name,
            "cells": [
                share({"x": one.auc.value, "x_low": one.auc.low, "x_high": one.auc.high}, "x")
                if (one := areas.get((name, kind)))
                else "–"
                for kind in kinds
            ],
        }
        for name in names
    ]
    counts = {one.against: (one.gaming, one.honest) for one in found}
    heads = [
        {"name": "all settings" if kind == "all" else f"setting {NUMBER[kind]}", "counts": counts[kind]}  # type: ignore[index]
        for kind in kinds
    ]
    return {"heads": heads, "rows": rows}


def _roc(found: Sequence[Detector]) -> Figure | None:
    """The best detectors against all settings together: chosen by their areas, which the table has for all."""
    pooled = sorted((one for one in found if one.against == "all"), key=lambda one: -one.auc.value)[:SHOWN_CURVES]
    if not pooled:
        return None
    shown = [Series("weight", None, color, one.name) for one, color in zip(pooled, PALETTE, strict=False)]
    return Figure("roc", "Gaming runs against honest ones", [[roc_panel(pooled, shown)]], shown)


def _training(found: Findings) -> list[dict[str, Any]]:
    keys = ["model", "setting", "deployment", "trained_on"]
    means = found.training.group_by(keys, maintain_order=True).agg(
        pl.mean("first_loss", "last_loss", "norm", "line", "cosine")
    )
    return [
        {
            **_named(line),
            "trained_on": line["trained_on"],
            **{name: f"{line[name]:.3f}" for name in ("first_loss", "last_loss")},
            **{name: f"{line[name]:.2f}" for name in ("norm", "line", "cosine")},
        }
        for line in _ordered(means).iter_rows(named=True)
    ]


def _seeds(found: Findings) -> list[dict[str, Any]]:
    """Slope, ends and gains of every seed behind [deployment]."""
    mine = found.by_seed.filter(pl.col("tag") == DEPLOYMENT)
    names = ("slope", "at_jekyll", "at_hyde", "jekyll_gain", "hyde_gain")
    return [
        {**_named(line), "seed": line["seed"], **{name: number(line[name]) for name in names}}
        for line in _ordered(mine).iter_rows(named=True)
    ]

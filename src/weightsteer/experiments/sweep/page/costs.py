"""What every intervention costs at the strengths compared: neutral text, and tasks it should have left alone."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from weightsteer.experiments.sweep.page.evidence import ARM, Evidence
from weightsteer.report.cells import key, small
from weightsteer.report.charts import Series


def cost_tables(evidence: Evidence, shown: Sequence[Series], strengths: Sequence[float]) -> list[dict[str, Any]]:
    """For each model and behaviour its interventions, controls last; empty where nothing was measured."""
    if not _measured(evidence):
        return []
    parts = [part for part in (_texts(evidence), _tasks(evidence)) if part is not None]
    lines = parts[0] if len(parts) == 1 else parts[0].join(parts[1], on=[*ARM, "alpha"], how="full", coalesce=True)
    lines = lines.filter(pl.col("alpha").is_in(list(strengths)))
    tasks = [] if evidence.capability is None else evidence.capability["eval"].unique().sort().to_list()
    tables = []
    for part in lines.sort(ARM).partition_by("model", "behavior", maintain_order=True):
        groups = [
            {
                **key(one, shown),
                "lines": [_line(line, tasks) for line in one.of(part).sort("alpha", descending=True).to_dicts()],
            }
            for one in shown
            if one.of(part).height
        ]
        tables.append(
            {
                "model": part["model"][0],
                "behavior": part["behavior"][0],
                "groups": [group for group in groups if not group["control"]],
                "controls": [group for group in groups if group["control"]],
                "tasks": [_task(evidence, name) for name in tasks],
                "texts": None if evidence.damage is None else evidence.damage["items"].max(),
                "seeds": pl.concat([frame["seeds"] for frame in _measured(evidence)]).max(),
            }
        )
    return tables


def _measured(evidence: Evidence) -> list[pl.DataFrame]:
    return [frame for frame in (evidence.damage, evidence.capability) if frame is not None]


def _texts(evidence: Evidence) -> pl.DataFrame | None:
    """Rise of the NLL and KL divergence on neutral text."""
    if evidence.damage is None:
        return None
    return evidence.damage.select(*ARM, "alpha", pl.col("^nll_change.*$"), pl.col("^kl_base_steered.*$"))


def _tasks(evidence: Evidence) -> pl.DataFrame | None:
    """Change of p(right), a triple of columns for each task."""
    if evidence.capability is None:
        return None
    values = ["p_right_change", "p_right_change_low", "p_right_change_high"]
    wide = evidence.capability.pivot("eval", index=[*ARM, "alpha"], values=values)
    return wide.rename(lambda name: name.replace("p_right_change_low", "low").replace("p_right_change_high", "high"))


def _task(evidence: Evidence, name: str) -> dict[str, Any]:
    """What the base model can, and on how many rows that was measured."""
    assert evidence.capability is not None
    base = evidence.capability.filter(pl.col("eval") == name, pl.col("alpha") == 0).row(0, named=True)
    return {"name": name, "base": f"{base['p_right']:.2f}", "n": base["items"]}


def _line(line: dict[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    lost = []
    for name in tasks:
        ends = {"x": line[f"p_right_change_{name}"], "x_low": line[f"low_{name}"], "x_high": line[f"high_{name}"]}
        lost.append({"change": small(ends, "x"), "loses": ends["x_high"] is not None and ends["x_high"] < 0})
    return {
        "alpha": line["alpha"],
        "nll": small(line, "nll_change") if "nll_change" in line else None,
        "kl": small(line, "kl_base_steered") if "nll_change" in line else None,
        "tasks": lost,
    }

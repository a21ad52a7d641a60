"""Is a shift the behaviour or a yes-bias? Three readings of the rows themselves.

The mean log-ratio on the rows of either label: the behaviour moves the two sides apart, a yes-bias moves both the same
way. The order of the personas: a model that has the behaviour scores highest under the persona that asks for it. And
the rows whose words contradict their label, with the effects without them.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from weightsteer.formatting import number, signed
from weightsteer.report.cells import key
from weightsteer.report.charts import Series
from weightsteer.stats.informedness import K

SCOPE = ["model", "behavior", "eval"]
LISTED = 20


def diagnoses(
    known: pl.DataFrame, noise: pl.DataFrame | None, shown: Sequence[Series], strengths: Sequence[float]
) -> list[dict[str, Any]]:
    """What a table of each evaluation with both labels says.

    Args:
        known: paired rows.
        noise: ``eval`` with the columns of `weightsteer.data.evals.dilemma_noise.decidable`; None: not looked for.
        strengths: those of vectors that are shown; prompts are shown at all of theirs.
    """
    found = []
    for rows in known.sort(SCOPE).partition_by(SCOPE, maintain_order=True):
        if rows["label"].n_unique() < 2:
            continue
        model, behavior, evaluation = rows.select(SCOPE).row(0)
        wanted = pl.col("alpha").is_in(list(strengths)) | (pl.col("method") == "prompt")
        sides = _sides(rows)
        base = sides.filter(pl.col("alpha") == 0).row(0, named=True)
        lines = [
            {**key(one, shown), **_side(line, base)}
            for one in shown
            if not one.control
            for line in one.of(sides).filter(wanted, pl.col("alpha") != 0).sort("alpha").iter_rows(named=True)
        ]
        found.append(
            {
                "model": model,
                "behavior": behavior,
                "eval": evaluation,
                "base": _side(base, base),
                "sides": lines,
                "personas": personas(rows),
                "noise": _noise(rows, noise, shown, strengths),
            }
        )
    return found


def _sides(rows: pl.DataFrame) -> pl.DataFrame:
    """Mean log-ratio on the rows of label +1 and −1 (``up``, ``down``), by intervention and strength."""
    value = pl.col("logratio")
    return rows.group_by("method", "adapter", "alpha", maintain_order=True).agg(
        up=value.filter(pl.col("label") > 0).mean(), down=value.filter(pl.col("label") < 0).mean()
    )


def _side(line: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    up, down = (line[name] - base[name] for name in ("up", "down"))
    return {
        "alpha": line["alpha"],
        "up": number(line["up"]),
        "down": number(line["down"]),
        "gap": number(line["up"] - line["down"]),
        "up_change": number(up),
        "down_change": number(down),
        "moves": _moves(up, down),
    }


def _moves(up: float, down: float) -> str:
    """How the two sides move: the behaviour is a difference between them, a yes-bias is what they have in common."""
    if up > 0 > down:
        return "along the labels"
    if up < 0 < down:
        return "against the labels"
    return "both to Yes" if up > 0 and down > 0 else "both to No" if up < 0 and down < 0 else "–"


def personas(rows: pl.DataFrame) -> dict[str, Any] | None:
    """The base model and each persona in the order of their mean along the label; None without personas.

    ``forward``: fix/rej − 2 broke/cho of a persona against the base model, as a share and without a weight for the
    answer mass, as published for prompts.
    """
    asked = rows.filter(pl.col("method") == "prompt")
    if asked.is_empty():
        return None
    before, after = (pl.col(name) * pl.col("label") for name in ("before", "logratio"))
    fix = ((before < 0) & (after > 0)).sum() / (before < 0).sum()
    broke = ((before > 0) & (after < 0)).sum() / (before > 0).sum()
    measured = asked.group_by("adapter", "alpha", maintain_order=True).agg(
        along=after.mean(),
        forward=fix - K * broke,
        size=pl.col("logratio").abs().mean(),
        wordings=pl.struct("seed").n_unique(),
    )
    base = measured.filter(pl.col("alpha") == 0).row(0, named=True)
    steered = measured.filter(pl.col("alpha") != 0)
    kinds = []
    for part in steered.partition_by("adapter", maintain_order=True):
        along = dict(part.select("alpha", "along").iter_rows())
        kinds.append((part["adapter"][0], _order(along.get(1.0), base["along"], along.get(-1.0))))
    lines = [{**line, "base": False} for line in steered.iter_rows(named=True)]
    ordered = sorted([*lines, {**base, "base": True}], key=lambda line: -line["along"])
    return {
        "lines": [
            {
                "name": "base model, no persona" if line["base"] else f"{line['adapter']}, {signed(line['alpha'])}",
                "base": line["base"],
                "along": number(line["along"]),
                "size": number(line["size"]).removeprefix("+"),
                "forward": "–" if line["base"] else number(line["forward"]),
                "wordings": "" if line["base"] else str(line["wordings"]),
            }
            for line in ordered
        ],
        "kinds": kinds,
    }


def _order(positive: float | None, base: float, negative: float | None) -> str:
    if positive is None or negative is None:
        return "one side only"
    if positive > base > negative:
        return "in the order of the behaviour"
    if positive < base < negative:
        return "in the opposite order"
    return "both below the base model" if max(positive, negative) < base else "both above the base model"


def _noise(
    rows: pl.DataFrame, noise: pl.DataFrame | None, shown: Sequence[Series], strengths: Sequence[float]
) -> dict[str, Any] | None:
    """The rows whose words contradict their label, and the effects without their clusters."""
    if noise is None:
        return None
    mine = noise.filter(eval=rows["eval"][0]).join(rows.select("item").unique(), on="item", how="semi")
    if mine.is_empty():
        return None
    wrong = mine.filter(pl.col("says") != pl.col("label"))
    effects = []
    for one in shown:
        own = one.of(rows).filter(pl.col("alpha").is_in(list(strengths)))
        if one.control or wrong.is_empty():
            continue
        for part in own.sort("alpha").partition_by("alpha", maintain_order=True):
            without = part.filter(~pl.col("cluster").is_in(wrong["cluster"].to_list()))
            both = [number(_discrimination(each)) for each in (part, without)]
            effects.append({**key(one, shown), "alpha": part["alpha"][0], "all": both[0], "without": both[1]})
    return {
        "decidable": mine.height,
        "wrong": wrong.height,
        "lines": wrong.head(LISTED).to_dicts(),
        "effects": effects,
    }


def _discrimination(rows: pl.DataFrame) -> float | None:
    """``½ (mean Δ over g = +1 − mean Δ over g = −1)``; None where one label is missing."""
    moved = dict(rows.group_by("label").agg((pl.col("logratio") - pl.col("before")).mean()).iter_rows())
    return (moved[1] - moved[-1]) / 2 if {1, -1} <= moved.keys() else None

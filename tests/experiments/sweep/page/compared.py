"""A small sweep with everything that a report can compare: its rows, strengths of equal side effects, and damage."""

from functools import cache
from math import log
from typing import Any

import polars as pl
from rows import synthetic

from weightsteer.measure import SCHEMA
from weightsteer.measure.calibrate.calibrating import SCHEMA as CALIBRATION
from weightsteer.measure.damage import SCHEMA as DAMAGE

EVALS = ("claims", "dilemmas")
ARMS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("weight", "lora", {"discrimination": 1.0}),
    ("weight", "dora", {"discrimination": 1.1}),
    ("weight", "oft", {"discrimination": 1.0}),
    ("activation", "diffmean", {"discrimination": 0.2, "bias": 1.0}),
    ("prompt", "prompt-persona", {"discrimination": 3.0}),
    ("control", "lora-random", {"discrimination": 0.0}),
)
STARS = {"lora": 0.5, "dora": 0.8, "oft": 1.0, "diffmean": 0.25, "prompt-persona": 1.0, "lora-random": 0.5}
FAILED = {("oft", 1, 1): "not converged", ("lora", 1, -1): "saturated", ("oft", 1, -1): "not monotone"}
"""(adapter, seed, sign) to what its calibration came to."""


@cache
def swept(
    *, seeds: tuple[int, ...] = (0, 1), alphas: tuple[float, ...] = (-1, 0, 1), star: bool = False
) -> pl.DataFrame:
    """Rows at ``alphas``, or with ``star`` at 0 and the strengths of the calibration."""
    return pl.concat(
        synthetic(
            method=method,
            adapter=adapter,
            seeds=seeds,
            alphas=tuple(STARS[adapter] * alpha for alpha in alphas) if star else alphas,
            evaluation=evaluation,
            clusters=10,
            between_seeds=0.01,
            between_clusters=0.1,
            noise=0.1,
            base=0,
            draw=10 * i + k,
            **truth,
        )
        for i, (method, adapter, truth) in enumerate(ARMS)
        for k, evaluation in enumerate(EVALS)
    )


@cache
def matched() -> pl.DataFrame:
    """Rows at the strengths that were found; a search that failed has none."""
    rows = swept(star=True)
    gone = [
        (pl.col("adapter") == adapter) & (pl.col("seed") == seed) & (pl.col("alpha").sign() == sign)
        for (adapter, seed, sign), status in FAILED.items()
        if status != "not monotone"
    ]
    return rows.filter(~pl.any_horizontal(gone))


def calibration(**changes: Any) -> pl.DataFrame:
    """Every intervention, seed and sign: at the budget of 0.5 nats, audited at 0.52, dora at 0.7."""
    lines = []
    for method, adapter, _ in ARMS:
        for seed in (0, 1):
            for sign in (-1, 1):
                status = FAILED.get((adapter, seed, sign), "fixed" if method == "prompt" else "converged")
                value = 0.31 if method == "prompt" else 0.5 + 0.01 * seed
                found = status in ("converged", "fixed", "not monotone")
                lines.append(
                    {
                        "model": "pocket",
                        "behavior": "honesty",
                        "method": method,
                        "adapter": adapter,
                        "seed": seed,
                        "draw": 0 if method == "control" else None,
                        "sign": sign,
                        "alpha_star": sign * STARS[adapter] if found else None,
                        "nearest_alpha": sign * STARS[adapter],
                        "budget": None if method == "prompt" else 0.5,
                        "value": value,
                        "low": value - 0.1,
                        "high": value + 0.1 + 0.1 * seed,
                        "audit_value": 0.7 if adapter == "dora" else 0.52,
                        "audit_low": 0.4,
                        "audit_high": 0.8,
                        "noise_floor": 1e-7,
                        "status": status,
                        "rounds": 2,
                        "evaluations": 64,
                        "prompts": 16,
                        "audit_prompts": 16,
                        "definition": "kl p95 " + ("fixed" if method == "prompt" else "0.5-nat") + " base_steered abc",
                    }
                    | changes
                )
    return pl.DataFrame(lines, schema=CALIBRATION)


def damage(alphas: tuple[float, ...] = (-1, 0, 1)) -> pl.DataFrame:
    """The NLL of six texts rises by 0.1 α² nats per token, ten times as much under dora; controls were not measured."""
    lines = [
        {
            "model": "pocket",
            "behavior": "honesty",
            "method": method,
            "adapter": adapter,
            "seed": seed,
            "alpha": float(alpha),
            "eval": "nll",
            "item": f"t{text}",
            "cluster": f"t{text}",
            "tokens": 10,
            "nll": 2.0 + text * 0.1 + (1.0 if adapter == "dora" else 0.1) * alpha**2 * (1 + 0.01 * text),
            "kl_base_steered": 0.1 * alpha**2,
            "kl_steered_base": 0.1 * alpha**2,
        }
        for method, adapter, _ in ARMS
        if method != "control"
        for seed in (0, 1)
        for alpha in alphas
        for text in range(6)
    ]
    return pl.DataFrame(lines, schema=DAMAGE)


def capability(alphas: tuple[float, ...] = (-1, 0, 1)) -> pl.DataFrame:
    """Ten sums and ten facts, known with p = 0.8; dora loses half of the format of the sums at either strength."""
    lines = [
        {
            "model": "pocket",
            "behavior": "honesty",
            "method": method,
            "adapter": adapter,
            "seed": seed,
            "alpha": float(alpha),
            "eval": task,
            "item": f"{task}{row}",
            "cluster": f"{task}{row}",
            "label": 1 - 2 * (row % 2),
            "logratio": (1 - 2 * (row % 2)) * log(4.0),
            "pmass": 0.5 if (adapter, task, abs(alpha)) == ("dora", "arithmetic", 1) else 1.0,
            "low_pmass": False,
        }
        for method, adapter, _ in ARMS
        for seed in (0, 1)
        for alpha in alphas
        for task in ("arithmetic", "facts")
        for row in range(10)
    ]
    return pl.DataFrame(lines, schema=SCHEMA)


def covariates() -> pl.DataFrame:
    """The length of each item: noise."""
    items = swept().select("eval", "item").unique().sort("eval", "item").with_row_index("i")
    return items.select("eval", "item", length=(pl.col("i") * 7 % 5).cast(pl.Float64))


def everything() -> dict[str, Any]:
    """The optional arguments of ``write_report``."""
    return {
        "matched": matched(),
        "calibration": calibration(),
        "damage": damage(),
        "capability": capability(),
        "covariates": covariates(),
        "cosines": {("honesty", "dora"): {"yes": 0.62, "length": -0.04}},
        "trained_on": {"honesty": "dilemmas"},
    }

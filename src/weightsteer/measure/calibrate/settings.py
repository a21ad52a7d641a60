"""What a calibration may be asked for: budgets by sign, and settings that make sense together."""

from collections.abc import Mapping, Sequence
from math import isfinite

import polars as pl

from weightsteer.errors import WeightsteerError, unknown
from weightsteer.measure.calibrate.definition import UNITS, BudgetKind, Statistic

BUDGETS: dict[BudgetKind, float] = {"kl": 0.5, "nll": 0.5, "capability": 0.1}


def budgets_of(rows: pl.DataFrame) -> dict[int, float]:
    """The budget by sign that others need to be matched to one intervention: the values of its rows.

    ::

        persona = calibrate(model, tokenizer, prompt)
        calibrate(model, tokenizer, vectors, budget=budgets_of(persona))

    Raises:
        WeightsteerError: a sign occurs twice, or has no value.
    """
    if rows["sign"].is_duplicated().any() or rows["value"].is_null().any() or rows["value"].is_nan().any():
        raise WeightsteerError("give the rows of one intervention, one per sign, each with a value.")
    return dict(rows.select("sign", "value").iter_rows())


def budgets_by_sign(budget: float | Mapping[int, float], signs: Sequence[int], kind: BudgetKind) -> dict[int, float]:
    """The budget of each sign.

    Raises:
        WeightsteerError: no such sign, none for one of them, or a budget that nothing can cost.
    """
    if not signs or not set(signs) <= {-1, 1} or len(set(signs)) < len(signs):
        raise WeightsteerError(f"signs are 1 and -1, each at most once, not {list(signs)}.")
    budgets = dict(budget) if isinstance(budget, Mapping) else dict.fromkeys(signs, float(budget))
    if missing := [sign for sign in signs if sign not in budgets]:
        raise WeightsteerError(f"there is no budget for the sign {missing[0]}: give one, or leave the sign out.")
    if wrong := [own for own in budgets.values() if not (isfinite(own) and own > 0)]:
        raise WeightsteerError(f"a budget is a positive number ({UNITS[kind]}), not {wrong[0]}.")
    if kind == "capability" and max(budgets.values()) >= 1:
        raise WeightsteerError(f"a loss of capability is a probability, below 1, not {max(budgets.values())}.")
    return budgets


def check_measure(budget_kind: str, statistic: str, direction: str, text: str, tokens: int) -> None:
    """Refuse a side effect that has no meaning.

    Raises:
        WeightsteerError: which setting is wrong, and what it may be.
    """
    for name, given, known in (
        ("budget_kind", budget_kind, tuple(BUDGETS)),
        ("statistic", statistic, ("p95", "mean")),
        ("direction", direction, ("base_steered", "steered_base")),
        ("text", text, ("base", "steered", "given")),
    ):
        if given not in known:
            raise unknown(name, given, known)
    if budget_kind != "kl" and statistic != "mean":
        read = "the rise of the NLL is known per text" if budget_kind == "nll" else "a capability is a share"
        raise WeightsteerError(f"{read}, so its statistic is the mean: leave it out.")
    if tokens < 1:
        raise WeightsteerError(f"tokens is {tokens}; it must be at least 1.")


def check_search(alpha_max: float, tolerance: float) -> None:
    """Refuse a search that cannot end.

    Raises:
        WeightsteerError: which setting is wrong, and what it may be.
    """
    if not (isfinite(alpha_max) and alpha_max > 0):
        raise WeightsteerError(f"alpha_max is {alpha_max}; it must be positive and finite.")
    if not 0 < tolerance < 1:
        raise WeightsteerError(f"tolerance is {tolerance}; it must be between 0 and 1.")


def check_strengths(strengths: Mapping[int, float]) -> None:
    """Refuse strengths that are not given by their own sign.

    Raises:
        WeightsteerError: they are not.
    """
    if not all(sign in (-1, 1) and isfinite(alpha) and alpha * sign > 0 for sign, alpha in strengths.items()):
        raise WeightsteerError(f"strengths are given by sign ({{1: 0.8, -1: -1.2}}), not as {dict(strengths)}.")


def usual_statistic(budget_kind: BudgetKind) -> Statistic:
    """p95 of the KL; of the others the mean, as the NLL is known per text and a capability is a mean."""
    return "p95" if budget_kind == "kl" else "mean"

"""What a calibration may be asked for: budgets by sign, and settings that make sense together."""

from collections.abc import Mapping, Sequence
from math import isfinite

import polars as pl

from weightsteer.calibrate.definition import UNITS, BudgetKind
from weightsteer.errors import WeightsteerError, unknown

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


def check_settings(
    budget_kind: str,
    statistic: str,
    direction: str,
    text: str,
    tokens: int,
    alpha_max: float,
    tolerance: float,
    strengths: Mapping[int, float],
) -> None:
    """Refuse settings without meaning.

    Raises:
        WeightsteerError: which one, and what it may be.
    """
    for name, given, known in (
        ("budget_kind", budget_kind, tuple(BUDGETS)),
        ("statistic", statistic, ("p95", "mean")),
        ("direction", direction, ("base_steered", "steered_base")),
        ("text", text, ("base", "steered")),
    ):
        if given not in known:
            raise unknown(name, given, known)
    if budget_kind != "kl" and statistic != "mean":
        read = "the rise of the NLL is known per text" if budget_kind == "nll" else "a capability is a share"
        raise WeightsteerError(f"{read}, so its statistic is the mean: leave it out.")
    for name, number, fine, wanted in (
        ("tokens", tokens, tokens >= 1, "at least 1"),
        ("alpha_max", alpha_max, isfinite(alpha_max) and alpha_max > 0, "positive and finite"),
        ("tolerance", tolerance, 0 < tolerance < 1, "between 0 and 1"),
    ):
        if not fine:
            raise WeightsteerError(f"{name} is {number}; it must be {wanted}.")
    if not all(sign in (-1, 1) and isfinite(alpha) and alpha * sign > 0 for sign, alpha in strengths.items()):
        raise WeightsteerError(f"strengths are given by sign ({{1: 0.8, -1: -1.2}}), not as {dict(strengths)}.")

"""calibrate(): for every intervention and sign, the strength at which its side effect hits a budget."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.bootstrap import Array, Bootstrap
from weightsteer.calibrate.definition import UNITS, BudgetKind, Definition, Direction, Source, Statistic, digest
from weightsteer.calibrate.divergence import evaluating
from weightsteer.calibrate.meters import BaseText, Meter, RightChoice, SteeredText, WrittenText
from weightsteer.calibrate.prompts import PROMPTS, Asked, check_disjoint, halves
from weightsteer.calibrate.search import GRID, ROUNDS, Search
from weightsteer.calibrate.statistic import bounds, value
from weightsteer.engine.table import check_distinct, identity
from weightsteer.errors import WeightsteerError, unknown
from weightsteer.evals.base import Item
from weightsteer.evals.capability import neutral_items
from weightsteer.evals.neutral import Text, neutral_texts
from weightsteer.evals.readout import enough_memory
from weightsteer.models import model_name
from weightsteer.progress import progress
from weightsteer.steering import Intervention

BUDGETS: dict[BudgetKind, float] = {"kl": 0.5, "nll": 0.5, "capability": 0.1}
LEAST_COARSE = 8  # prompts of the wide grid
# a p95 over few tokens has corners, and a fifth power is met within 5% only at steps of 2%; the steered model's own
# text jumps with α, and with it the value: so several strengths close together are tried
CHECKS: dict[Source, tuple[float, ...]] = {
    "base": (0.96, 0.98, 1.0, 1.02, 1.04),
    "steered": (0.92, 0.96, 1.0, 1.04, 1.08),
}

SCHEMA = {
    "model": pl.String,
    "behavior": pl.String,
    "method": pl.String,
    "adapter": pl.String,
    "seed": pl.Int64,
    "sign": pl.Int64,
    "alpha_star": pl.Float64,
    "nearest_alpha": pl.Float64,
    "budget": pl.Float64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "audit_value": pl.Float64,
    "audit_low": pl.Float64,
    "audit_high": pl.Float64,
    "noise_floor": pl.Float64,
    "status": pl.String,
    "rounds": pl.Int64,
    "evaluations": pl.Int64,
    "prompts": pl.Int64,
    "audit_prompts": pl.Int64,
    "definition": pl.String,
}


def calibrate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    interventions: Intervention | Sequence[Intervention],
    *,
    budget: float | Mapping[int, float] | None = None,
    budget_kind: BudgetKind = "kl",
    statistic: Statistic | None = None,
    direction: Direction = "base_steered",
    text: Source = "base",
    tokens: int = 32,
    prompts: Sequence[Text] | Sequence[Item] | None = None,
    audit_prompts: Sequence[Text] | Sequence[Item] | None = None,
    signs: Sequence[int] = (-1, 1),
    alpha_max: float = 64.0,
    tolerance: float = 0.05,
    token_budget: int = 8192,
    resamples: int = 1000,
    other_base: bool = False,
    shown: bool = True,
) -> pl.DataFrame:
    """Find the strength of every intervention, for each sign, at which its side effect hits the budget.

    Interventions that have no strength (prompts) are measured at α = ±1 instead, with the status ``fixed``; with
    `budgets_of` others are matched to one of them.

    Args:
        budget: in nats per token, for both signs or by sign (``{1: 0.6, -1: 0.4}``); of a capability, in probability.
            None: that of `BUDGETS`.
        budget_kind: ``kl``: divergence from the base model; ``nll``: rise of the NLL of texts as they were written;
            ``capability``: loss of the probability of the right choice in the rows of neutral tasks. ``direction``,
            ``text`` and ``tokens`` have a meaning for ``kl`` alone.
        statistic: over the tokens of all prompts, pooled: ``p95`` or ``mean``. None: p95 of the KL, mean of the others
            (which have no p95: the NLL is known per text, and a capability is a mean).
        direction: ``base_steered`` is KL(p₀ ‖ p_α), ``steered_base`` KL(p_α ‖ p₀).
        text: ``base``: along the base model's own greedy continuations, smooth in α. ``steered``: along those of the
            steered model, decoded anew at every strength, as published.
        tokens: at most so many tokens of continuation.
        prompts: conversations to calibrate on, for a capability rows of a task. None: half of
            `weightsteer.evals.neutral.neutral_texts`, or of `weightsteer.evals.capability.neutral_items`.
        audit_prompts: others to check on; None: every other cluster of ``prompts``, which then serve for both.
        alpha_max: no larger |α| is tried.
        tolerance: relative; how near the budget the value has to come.
        token_budget: texts × strengths × tokens of one forward pass.
        resamples: bootstrap resamples of the clusters of prompts.
        other_base: steer a model with other weights than those the interventions were made on, as in `steer`.

    Returns:
        One line per (intervention, sign), with the columns of `SCHEMA`:

        - ``alpha_star``: the strength, its sign included. **Null** unless the status is ``converged``, ``fixed`` or
          ``not monotone``; ``nearest_alpha`` is the one whose value came nearest the budget, found or not.
        - ``value, low, high``: the statistic there, measured, with its 95% interval over clusters of prompts;
          ``audit_…``: the same on the audit prompts; ``noise_floor``: the statistic that rounding alone makes at α = 0.
        - ``status``: ``converged``; ``not monotone``: the curve crosses the budget more than once, this is the first
          crossing; ``saturated``: the budget is not reached up to ``alpha_max``, or the model breaks (NaN) before;
          ``not converged``: reached, but no measured strength lies within the tolerance; ``fixed``.
        - ``rounds`` (at most 3), ``evaluations`` (prompts × strengths of the search), ``prompts, audit_prompts`` (how
          many), ``definition`` (id and hash: strengths compare only where it agrees).

    Raises:
        WeightsteerError: a setting without meaning, interventions that cannot be told apart, prompts and audit prompts
            that overlap, or a prompt too long for the model.
    """
    chosen = list(interventions) if isinstance(interventions, Sequence) else [interventions]
    check_distinct(chosen)
    if statistic is None:
        statistic = "p95" if budget_kind == "kl" else "mean"
    _check(budget_kind, statistic, direction, text, tokens, alpha_max, tolerance)
    budgets = _budgets(BUDGETS[budget_kind] if budget is None else budget, signs, budget_kind)
    asked, others = _prompts(model, budget_kind, prompts, audit_prompts)
    kl = budget_kind == "kl"

    def meter_of() -> Meter[Any]:
        if kl:
            continued = BaseText if text == "base" else SteeredText
            return continued(model, tokenizer, direction, tokens, token_budget, other_base)
        written = WrittenText if budget_kind == "nll" else RightChoice
        return written(model, tokenizer, token_budget, other_base)

    meter = meter_of()
    draws = Bootstrap(resamples, 0)
    lines: list[dict[str, Any]] = []
    with (
        evaluating(model),
        enough_memory(),
        progress("calibrate", len(chosen) * (ROUNDS + 1), shown=shown) as advance,
    ):
        for intervention in chosen:
            fixed = getattr(intervention, "alphas", None)
            if fixed is not None:
                defined = [float(sign) for sign in signs if sign in fixed]
                found_at = _measured(meter, intervention, asked, defined) if defined else {}
            else:
                checks = CHECKS[text] if kl else CHECKS["base"]
                searches = {sign: Search(budgets[sign], alpha_max, tolerance, checks) for sign in signs}
                found_at = _solved(meter, intervention, asked, searches, statistic)
            if not found_at:
                continue
            alphas = [one["nearest_alpha"] for one in found_at.values() if one["nearest_alpha"] is not None]
            audited = meter.tokens(intervention, others, alphas) if alphas else {}
            tried = alphas[0] if alphas else signs[0] * alpha_max * GRID[0]
            floor = value(meter.noise(intervention, asked, tried), statistic)
            advance(ROUNDS + 1)
            for sign, line in found_at.items():
                own = Definition(
                    budget_kind,
                    statistic,
                    direction if kl else None,
                    text if kl else None,
                    tokens if kl else None,
                    None if fixed is not None else budgets[sign],
                    tolerance,
                    digest(asked),
                    digest(others),
                )
                read = line.pop("tokens")
                lines.append(
                    {
                        "model": model_name(model),
                        **identity(intervention),
                        "sign": sign,
                        **line,
                        **_told("", read, asked, statistic, draws),
                        **_told("audit_", audited.get(line["nearest_alpha"]), others, statistic, draws),
                        "budget": own.budget,
                        "noise_floor": floor,
                        "prompts": len(asked),
                        "audit_prompts": len(others),
                        "definition": own.id,
                    }
                )
    return pl.DataFrame(lines, schema=SCHEMA)


def _prompts(
    model: PreTrainedModel,
    kind: BudgetKind,
    prompts: Sequence[Text] | Sequence[Item] | None,
    audit_prompts: Sequence[Text] | Sequence[Item] | None,
) -> tuple[Sequence[Asked], Sequence[Asked]]:
    """Those to calibrate on and those to audit on: without a cluster in common, and such as the budget is read on."""
    calibrated: Sequence[Asked]
    audited: Sequence[Asked]
    if audit_prompts is not None:
        if prompts is None:
            raise WeightsteerError("audit_prompts are given without prompts: give both, or neither.")
        calibrated, audited = prompts, audit_prompts
    elif prompts is not None:
        calibrated, audited = halves(prompts)
    elif kind == "capability":
        calibrated, audited = halves(neutral_items(model))
    else:
        calibrated, audited = halves(neutral_texts(model), PROMPTS)
    wanted = Item if kind == "capability" else Text
    if not all(isinstance(one, wanted) for one in (*calibrated, *audited)):
        told = "rows of a task (weightsteer.evals.Item)" if kind == "capability" else "texts (evals.neutral.Text)"
        raise WeightsteerError(f"budget_kind={kind!r} is read on {told}: give these as prompts, or none.")
    check_disjoint(calibrated, audited)
    return calibrated, audited


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


def _solved(
    meter: Meter[Any],
    intervention: Intervention,
    prompts: Sequence[Asked],
    searches: Mapping[int, Search],
    statistic: Statistic,
) -> dict[int, dict[str, Any]]:
    """The outcome of each sign; the candidates of both are rows of the same batches."""
    read: dict[float, list[Array]] = {}
    evaluations = dict.fromkeys(searches, 0)
    for number in range(ROUNDS):
        wanted = {sign: search.wanted() for sign, search in searches.items()}
        alphas = [sign * alpha for sign, own in wanted.items() for alpha in own]
        if not alphas:
            break
        some = prompts if number else prompts[: max(LEAST_COARSE, len(prompts) // 4)]
        measured = meter.tokens(intervention, some, alphas)
        if number:
            read.update(measured)
        for sign, own in wanted.items():
            if own:
                searches[sign].told({alpha: value(measured[sign * alpha], statistic) for alpha in own})
                evaluations[sign] += len(some) * len(own)
    outcome = {}
    for sign, search in searches.items():
        hit, nearest = (None if alpha is None else sign * alpha for alpha in (search.hit(), search.nearest()))
        outcome[sign] = {
            "alpha_star": hit,
            "nearest_alpha": nearest,
            "tokens": None if nearest is None else read[nearest],
            "status": search.status(),
            "rounds": search.rounds,
            "evaluations": evaluations[sign],
        }
    return outcome


def _measured(
    meter: Meter[Any], intervention: Intervention, prompts: Sequence[Asked], alphas: Sequence[float]
) -> dict[int, dict[str, Any]]:
    """The outcome of an intervention that has no strength to solve for."""
    read = meter.tokens(intervention, prompts, alphas)
    return {
        int(alpha): {
            "alpha_star": alpha,
            "nearest_alpha": alpha,
            "tokens": read[alpha],
            "status": "fixed",
            "rounds": 1,
            "evaluations": len(prompts),
        }
        for alpha in alphas
    }


def _told(
    name: str, tokens: Sequence[Array] | None, prompts: Sequence[Asked], statistic: Statistic, draws: Bootstrap
) -> dict[str, float | None]:
    """The statistic and its interval as columns; null where nothing was measured."""
    if tokens is None:
        return {f"{name}value": None, f"{name}low": None, f"{name}high": None}
    low, high = bounds(tokens, [prompt.cluster for prompt in prompts], statistic, draws)
    return {f"{name}value": value(tokens, statistic), f"{name}low": low, f"{name}high": high}


def _budgets(budget: float | Mapping[int, float], signs: Sequence[int], kind: BudgetKind) -> dict[int, float]:
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


def _check(
    budget_kind: str, statistic: str, direction: str, text: str, tokens: int, alpha_max: float, tolerance: float
) -> None:
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

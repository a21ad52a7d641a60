"""calibrate(): for every intervention and sign, the strength at which its side effect hits a budget."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals.base import Item
from weightsteer.data.evals.neutral import Text
from weightsteer.inference.batching import TOKENS, enough_memory
from weightsteer.inference.forward import evaluating
from weightsteer.measure.calibrate.definition import BudgetKind, Definition, Direction, Source, Statistic, digest
from weightsteer.measure.calibrate.meters import Meter, meter_of
from weightsteer.measure.calibrate.prompts import Asked, chosen_prompts
from weightsteer.measure.calibrate.search import GRID, ROUNDS, Search
from weightsteer.measure.calibrate.settings import (
    BUDGETS,
    budgets_by_sign,
    check_measure,
    check_search,
    usual_statistic,
)
from weightsteer.measure.calibrate.statistic import described, value
from weightsteer.measure.rows import WHOSE, check_distinct, identity
from weightsteer.models import model_name
from weightsteer.progress import progress
from weightsteer.stats.bootstrap import Array, Bootstrap
from weightsteer.steering import Intervention

LEAST_COARSE = 4  # prompts of the wide grid
STEPS: dict[Source, float] = {"base": 0.4, "steered": 0.8, "given": 0.4}
"""Between the strengths of the last round, of the tolerance. A fifth power is met only at steps of 2/5 of it; the
steered model's own text jumps with α, and with it the value."""

SCHEMA = {
    **WHOSE,
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
    token_budget: int = TOKENS,
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
            steered model, decoded anew at every strength. ``given``: along the last tokens of the texts that the
            prompts bring, as in the published strengths (`weightsteer.data.suffixes`).
        tokens: at most so many tokens of continuation, or the last so many of a given text.
        prompts: conversations to calibrate on, for a capability rows of a task. None: half of
            `weightsteer.data.evals.neutral.neutral_texts`, or of `weightsteer.data.evals.capability.neutral_items`.
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
            ``audit_…``: the same on the audit prompts; ``noise_floor``: what rounding alone makes of it at α = 0.
        - ``status``: ``converged``; ``not monotone``: the curve crosses the budget more than once, this is the first
            crossing; ``saturated``: the budget is not reached up to ``alpha_max``, or the model breaks (NaN) before;
            ``not converged``: reached, but no measured strength is within the tolerance; ``fixed``.
        - ``rounds`` on all prompts (at most 3), ``evaluations`` (prompts × strengths of the search), ``prompts,
            audit_prompts`` (how many), ``definition`` (id and hash: strengths compare only where it agrees).

    Raises:
        WeightsteerError: a setting without meaning, interventions that cannot be distinguished, prompts and audit
            prompts that overlap, or a prompt too long for the model.
    """
    chosen = list(interventions) if isinstance(interventions, Sequence) else [interventions]
    check_distinct(chosen)
    statistic = statistic or usual_statistic(budget_kind)
    check_measure(budget_kind, statistic, direction, text, tokens)
    check_search(alpha_max, tolerance)
    budgets = budgets_by_sign(BUDGETS[budget_kind] if budget is None else budget, signs, budget_kind)
    kl, tasks = budget_kind == "kl", budget_kind == "capability"
    asked, others = chosen_prompts(model, prompts, audit_prompts, tasks=tasks)
    every = [*asked, *others]
    meter = meter_of(budget_kind, text, model, tokenizer, direction, tokens, token_budget, other_base, every)
    draws = Bootstrap(resamples, 0)
    lines: list[dict[str, Any]] = []
    with (
        evaluating(model),
        enough_memory(),
        progress("calibrate", len(chosen) * (ROUNDS + 2), shown=shown) as advance,
    ):
        for intervention in chosen:
            fixed = _fixed(intervention, signs)
            if fixed is not None:
                found_at = _measured(meter, intervention, asked, fixed) if fixed else {}
                advance(ROUNDS + 1)
            else:
                step = tolerance * STEPS[text if kl else "base"]
                searches = {sign: Search(budgets[sign], alpha_max, tolerance, step) for sign in signs}
                found_at = _solved(meter, intervention, asked, searches, statistic, advance)
            if not found_at:
                advance(1)
                continue
            alphas = [one["nearest_alpha"] for one in found_at.values() if one["nearest_alpha"] is not None]
            audited = meter.tokens(intervention, others, alphas) if alphas else {}
            tried = alphas[0] if alphas else signs[0] * alpha_max * GRID[0]
            floor = value(meter.noise(intervention, asked, tried), statistic)
            advance(1)
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
                        **described("", read, asked, statistic, draws),
                        **described("audit_", audited.get(line["nearest_alpha"]), others, statistic, draws),
                        "budget": own.budget,
                        "noise_floor": floor,
                        "prompts": len(asked),
                        "audit_prompts": len(others),
                        "definition": own.id,
                    }
                )
    return pl.DataFrame(lines, schema=SCHEMA)


def _solved(
    meter: Meter[Any],
    intervention: Intervention,
    prompts: Sequence[Asked],
    searches: Mapping[int, Search],
    statistic: Statistic,
    advance: Callable[[int], None],
) -> dict[int, dict[str, Any]]:
    """The outcome of each sign; the candidates of both are rows of the same batches."""
    read: dict[float, list[Array]] = {}
    evaluations = dict.fromkeys(searches, 0)
    for number in range(ROUNDS + 1):
        wanted = {sign: search.wanted() for sign, search in searches.items()}
        alphas = [sign * alpha for sign, own in wanted.items() for alpha in own]
        if not alphas:
            advance(ROUNDS + 1 - number)
            break
        some = prompts if number else prompts[: max(LEAST_COARSE, len(prompts) // 4)]
        measured = (meter.tokens if number else meter.coarse)(intervention, some, alphas)
        if number:
            read.update(measured)
        for sign, own in wanted.items():
            if own:
                searches[sign].record({alpha: value(measured[sign * alpha], statistic) for alpha in own})
                evaluations[sign] += len(some) * len(own)
        advance(1)
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


def _fixed(intervention: Intervention, signs: Sequence[int]) -> dict[int, float] | None:
    """The strengths of an intervention that has no others, by sign; None when any will do."""
    defined = getattr(intervention, "alphas", None)
    return None if defined is None else {sign: float(sign) for sign in signs if sign in defined}


def _measured(
    meter: Meter[Any], intervention: Intervention, prompts: Sequence[Asked], strengths: Mapping[int, float]
) -> dict[int, dict[str, Any]]:
    """The outcome of each sign where there is no strength to solve for."""
    read = meter.tokens(intervention, prompts, list(strengths.values()))
    return {
        sign: {
            "alpha_star": alpha,
            "nearest_alpha": alpha,
            "tokens": read[alpha],
            "status": "fixed",
            "rounds": 1,
            "evaluations": len(prompts),
        }
        for sign, alpha in strengths.items()
    }

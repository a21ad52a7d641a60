"""What interventions cost at strengths that are given, in the measure of a calibration."""

from collections.abc import Mapping, Sequence

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.inference.batching import TOKENS, enough_memory
from weightsteer.inference.forward import evaluating
from weightsteer.measure.calibrate.definition import BudgetKind, Direction, Source, Statistic
from weightsteer.measure.calibrate.meters import meter_of
from weightsteer.measure.calibrate.prompts import chosen_prompts
from weightsteer.measure.calibrate.settings import check_measure, check_strengths, usual_statistic
from weightsteer.measure.calibrate.statistic import described
from weightsteer.measure.rows import WHOSE, check_distinct, identity
from weightsteer.models import model_name
from weightsteer.progress import progress
from weightsteer.stats.bootstrap import Bootstrap
from weightsteer.steering import Intervention

SCHEMA = {
    **WHOSE,
    "sign": pl.Int64,
    "alpha": pl.Float64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "prompts": pl.Int64,
}


def side_effects(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    interventions: Sequence[Intervention],
    strengths: Mapping[int, float],
    *,
    budget_kind: BudgetKind = "kl",
    statistic: Statistic | None = None,
    direction: Direction = "base_steered",
    text: Source = "base",
    tokens: int = 32,
    token_budget: int = TOKENS,
    resamples: int = 1000,
    other_base: bool = False,
    shown: bool = True,
) -> pl.DataFrame:
    """Measure interventions as `calibrate` does, on the prompts it calibrates on by default.

    Args:
        strengths: by sign, ``{1: 0.8, -1: -1.2}``, for all interventions.
        budget_kind, statistic, direction, text, tokens, token_budget, resamples, other_base: as for `calibrate`.

    Returns:
        One line per intervention and sign, with the columns of `SCHEMA`: ``value, low, high`` are the statistic and its
        95% interval over clusters of prompts, in nats per token, of a capability in probability.

    Raises:
        WeightsteerError: a setting without meaning, or interventions that cannot be told apart.
    """
    check_distinct(interventions)
    statistic = statistic or usual_statistic(budget_kind)
    check_measure(budget_kind, statistic, direction, text, tokens)
    check_strengths(strengths)
    asked, _ = chosen_prompts(model, None, None, tasks=budget_kind == "capability")
    meter = meter_of(budget_kind, text, model, tokenizer, direction, tokens, token_budget, other_base, asked)
    draws = Bootstrap(resamples, 0)
    lines = []
    with evaluating(model), enough_memory(), progress("side effects", len(interventions), shown=shown) as advance:
        for intervention in interventions if strengths else ():
            read = meter.tokens(intervention, asked, list(strengths.values()))
            for sign, alpha in strengths.items():
                lines.append(
                    {
                        "model": model_name(model),
                        **identity(intervention),
                        "sign": sign,
                        "alpha": alpha,
                        **described("", read[alpha], asked, statistic, draws),
                        "prompts": len(asked),
                    }
                )
            advance(1)
    return pl.DataFrame(lines, schema=SCHEMA)

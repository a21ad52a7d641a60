"""What interventions cost: at given strengths, in the measure of a calibration; and over the seeds of a calibration."""

from collections.abc import Mapping, Sequence

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals.base import Item
from weightsteer.data.evals.neutral import Text
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
from weightsteer.stats import MATCHED
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
    prompts: Sequence[Text] | Sequence[Item] | None = None,
    audit_prompts: Sequence[Text] | Sequence[Item] | None = None,
    token_budget: int = TOKENS,
    resamples: int = 1000,
    other_base: bool = False,
    shown: bool = True,
) -> pl.DataFrame:
    """Measure interventions as `calibrate` does, on the prompts it calibrates on.

    Args:
        strengths: by sign, ``{1: 0.8, -1: -1.2}``, for all interventions.
        prompts, audit_prompts: as for `calibrate`; what is measured on are those it calibrates on.
        budget_kind, statistic, direction, text, tokens, token_budget, resamples, other_base: as for `calibrate`.

    Returns:
        One line per intervention and sign, with the columns of `SCHEMA`: ``value, low, high`` are the statistic and its
        95% interval over clusters of prompts, in nats per token, of a capability in probability.

    Raises:
        WeightsteerError: a setting without meaning, or interventions that cannot be distinguished.
    """
    check_distinct(interventions)
    statistic = statistic or usual_statistic(budget_kind)
    check_measure(budget_kind, statistic, direction, text, tokens)
    check_strengths(strengths)
    asked, _ = chosen_prompts(model, prompts, audit_prompts, tasks=budget_kind == "capability")
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


def over_seeds(calibration: pl.DataFrame) -> pl.DataFrame:
    """The side effect of every intervention and sign over training seeds, and the strengths that have it.

    ``value`` and ``audit_value`` are means over seeds and draws, with the outermost ends of their intervals; strengths
    are means with their range, ``alpha_low`` to ``alpha_high``. All are null unless every seed has a strength that may
    be compared (``usable``); ``status`` then gives the reasons and their number: ``not converged (1 of 3)``.

    Args:
        calibration: as `calibrate` returns it, or some of its columns, ``sign`` among them.

    Returns:
        One line per intervention and sign, in the order of the calibration, with what follows from its columns.
    """
    if "status" not in calibration.columns:
        calibration = calibration.with_columns(status=pl.lit("fixed"))
    matched = pl.col("status").is_in(MATCHED)
    usable = matched.all()
    others = pl.col("status").filter(~matched).unique().sort().str.join(", ")
    numbers = {
        "alpha_star": pl.col("alpha_star").mean(),
        "alpha_low": pl.col("alpha_star").min(),
        "alpha_high": pl.col("alpha_star").max(),
    }
    for prefix in ("", "audit_"):
        numbers[f"{prefix}value"] = pl.col(f"{prefix}value").mean()
        numbers[f"{prefix}value_low"] = pl.col(f"{prefix}low").min()
        numbers[f"{prefix}value_high"] = pl.col(f"{prefix}high").max()
    columns = [
        *(pl.when(usable).then(number).alias(name) for name, number in numbers.items()),
        *(pl.col(name).first() for name in ("budget", "prompts", "audit_prompts", "definition")),
        pl.col("noise_floor").max(),
        pl.col("seed").n_unique().cast(pl.Int64).alias("seeds"),
        usable.alias("usable"),
        pl.when(usable)
        .then(pl.col("status").first())
        .otherwise(pl.format("{} ({} of {})", others, (~matched).sum(), pl.len()))
        .alias("status"),
    ]
    there = set(calibration.columns)
    keys = [name for name in ("model", "behavior", "method", "adapter", "sign") if name in there]
    return calibration.group_by(keys, maintain_order=True).agg(
        column for column in columns if set(column.meta.root_names()) <= there
    )

"""Is activation steering, or a prompt, fooled less? The same probe at equal side effects.

All methods steer the model *before* the training, under the hidden prompt of the condition, towards either role, each
at the strength that costs the same KL divergence on neutral texts (`weightsteer.measure.calibrate`). Positive is
towards Hyde:

- ``weight``: dW = θ_H − θ_J of the condition's two branches;
- ``activation-answers``: difference of means over the answers that the branches learn from, under the condition's
  prompts;
- ``activation-told``: the contrast that the published text suggests: the same questions under the two prompts that
  promise one role on [deployment] and tell either role for [train], read in front of the answer;
- ``prompt``: the persona of the role, put before the hidden prompt. It has no strength; its own KL is given.
"""

from typing import Any

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.activation import ActivationVector
from weightsteer.experiments.gaming.curve import Context, measure
from weightsteer.experiments.gaming.measures import OWN
from weightsteer.experiments.gaming.protocol import DEPLOYMENT, TRAIN, Asked, Condition, Protocol, Role
from weightsteer.measure.calibrate import calibrate
from weightsteer.steering import Intervention
from weightsteer.steering.prompts import PromptIntervention
from weightsteer.training.activation import fit_activation
from weightsteer.vector import WeightVector

FITTED_ON = 200  # pairs: directions hardly change with more
METHODS = ("weight", "activation-answers", "activation-told", "prompt")
TOWARDS: dict[int, Role] = {-1: "Jekyll", 1: "Hyde"}


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    protocol: Protocol,
    condition: Condition,
    line: WeightVector,
    pairs: pl.DataFrame,
    seed: int,
    *,
    budget: float,
) -> pl.DataFrame:
    """One line per method, direction, tag and question of the published probe.

    ``logratio`` is that of the steered model and ``before`` that of the model as it was, both averaged over the
    prompts of the condition, nats; ``alpha`` the strength, ``kl`` what it costs on the prompts it was found on,
    ``status`` as `calibrate` gives it: only ``converged`` and ``fixed`` are at equal cost.
    """
    lines = []
    for name, one in interventions(model, tokenizer, protocol, condition, line, pairs, seed).items():
        found = calibrate(model, tokenizer, one, budget=budget, resamples=200, shown=False)
        for solved in found.iter_rows(named=True):
            if solved["nearest_alpha"] is None:
                continue
            alpha, direction = float(solved["nearest_alpha"]), TOWARDS[solved["sign"]]
            probed = _probed(model, tokenizer, protocol, condition, one, line, alpha, direction)
            lines.append(
                probed.with_columns(
                    pl.lit(name).alias("method"),
                    pl.lit(direction).alias("towards"),
                    pl.lit(alpha).alias("alpha"),
                    pl.lit(solved["value"], pl.Float64).alias("kl"),
                    pl.lit(solved["status"]).alias("status"),
                )
            )
    return pl.concat(lines)


def interventions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    protocol: Protocol,
    condition: Condition,
    line: WeightVector,
    pairs: pl.DataFrame,
    seed: int,
) -> dict[str, Intervention]:
    """The methods by name, positive towards Hyde."""
    with_role = Condition("told", condition.deployment)
    some = pairs.gather_every(max(1, len(pairs) // FITTED_ON))
    alone = pairs.unique("prompt", maintain_order=True)
    options: dict[str, Any] = {"seed": seed, "shown": False}
    own, suggested = _contrast(protocol, condition, some), _contrast(protocol, with_role, alone)
    answers = fit_activation(model, tokenizer, own, at="answer", **options)
    promised = fit_activation(model, tokenizer, suggested, at="prompt", **options)
    personas = protocol.behavior
    return {
        "weight": line,
        "activation-answers": _named(answers, "activation-answers"),
        "activation-told": _named(promised, "activation-told"),
        "prompt": PromptIntervention(
            personas.name, "persona", 0, personas.negative.personas[0], personas.positive.personas[0]
        ),
    }


def _named(vector: ActivationVector, name: str) -> ActivationVector:
    return vector.with_metadata(adapter=name)


def _contrast(protocol: Protocol, condition: Condition, pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs as the branches see them, Hyde's side first."""
    return pairs.select(
        (TRAIN + " " + pl.col("prompt")).alias("prompt"),
        pl.col("response_neg").alias("response_pos"),
        pl.col("response_pos").alias("response_neg"),
        pl.lit(protocol.system(condition, "Hyde")).alias("sys_prompt_pos"),
        pl.lit(protocol.system(condition, "Jekyll")).alias("sys_prompt_neg"),
    )


def _probed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    protocol: Protocol,
    condition: Condition,
    one: Intervention,
    none: Intervention,
    alpha: float,
    towards: Role,
) -> pl.DataFrame:
    """The published probe of the model as it was and steered, mean over the prompts of the condition.

    ``none``: any intervention, used with the strength 0.
    """
    probes: dict[str, list[Asked]] = {"identity": protocol.probes["identity"]}
    prompts = {name: text for name, text in protocol.systems(condition).items() if name in OWN}
    contexts = {Context(name, text, tag): probes for name, text in prompts.items() for tag in (DEPLOYMENT, TRAIN)}
    if isinstance(one, PromptIntervention):
        persona = one.positive if towards == "Hyde" else one.negative
        put = {Context(context.system, f"{persona} {context.text}", context.tag): probes for context in contexts}
        before, after = (measure(model, tokenizer, [(none, [0.0])], where) for where in (contexts, put))
    else:
        both = measure(model, tokenizer, [(one, [0.0, alpha])], contexts)
        before, after = (both.filter(pl.col("at") == at) for at in (0, 1))
    means = [
        frame.group_by("tag", "item").agg(pl.mean("logratio").alias(name))
        for frame, name in ((before, "before"), (after, "logratio"))
    ]
    return means[0].join(means[1], on=["tag", "item"]).sort("tag", "item")

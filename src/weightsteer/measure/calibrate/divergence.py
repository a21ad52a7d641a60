"""KL divergence per token of the base and the steered model, along given texts or along the steered model's own.

::

    base_steered   KL(p₀ ‖ p_α)(· | x_<t)        steered_base   KL(p_α ‖ p₀)(· | x_<t)

in nats, from raw logits over the whole vocabulary and log-softmax in fp32 (`weightsteer.inference.distributions`).
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from weightsteer.inference.batching import batches, positions_at_once
from weightsteer.inference.distributions import Start, TeacherForced, along_continuations, along_texts, divergence
from weightsteer.measure.calibrate.definition import Direction
from weightsteer.stats.bootstrap import Array
from weightsteer.steering import Intervention


def kl_per_token(base: Tensor, steered: Tensor, direction: Direction) -> Array:
    """KL from log-probabilities (…, vocabulary) of the two models, fp64 on the CPU."""
    pair = (base, steered) if direction == "base_steered" else (steered, base)
    kl: Array = divergence(*pair).double().cpu().numpy()
    return kl


def kl_along_texts(
    model: PreTrainedModel,
    intervention: Intervention,
    rows: Sequence[TeacherForced],
    alphas: Sequence[float],
    direction: Direction,
    *,
    token_budget: int,
    other_base: bool,
) -> dict[float, list[Array]]:
    """KL per token (t,) of every text at every strength, by strength and in the order of the rows.

    Args:
        rows: the contexts of a prompt are those of α = 0 and of each strength.
        alphas: strengths; α = 0 is added to every batch as the base.
        token_budget: texts × strengths × tokens of one forward pass.
    """
    found = {alpha: [np.empty(len(row.text)) for row in rows] for alpha in alphas}
    width = max(1, token_budget // max(row.longest for row in rows) - 1)
    for start in range(0, len(alphas), width):
        some = [0.0, *alphas[start : start + width]]
        own = [0, *range(start + 1, start + len(some))]
        for batch in batches([row.longest * len(some) for row in rows], token_budget):
            chosen = [
                row if len(row.contexts) == 1 else TeacherForced(tuple(row.contexts[at] for at in own), row.text)
                for row in (rows[index] for index in batch)
            ]

            def see(first: int, logp: Tensor, batch: list[int] = batch, some: list[float] = some) -> None:
                for k, alpha in enumerate(some[1:], 1):
                    for values, index in zip(kl_per_token(logp[:, 0], logp[:, k], direction), batch, strict=True):
                        into = found[alpha][index][first : first + len(values)]
                        into[:] = values[: len(into)]

            along_texts(model, intervention, chosen, some, see, other_base=other_base)
    return found


def kl_along_continuations(
    model: PreTrainedModel,
    intervention: Intervention,
    starts: Sequence[Start],
    direction: Direction,
    *,
    tokens: int,
    stops: Sequence[int],
    token_budget: int,
    other_base: bool,
) -> list[Array]:
    """KL per token (t,) along the steered model's greedy continuation of every start, its ending token included."""
    found: list[Array] = [np.empty(0) for _ in starts]
    lengths = [2 * (start.longest + tokens) for start in starts]
    most = positions_at_once(model, 2)
    for batch in batches(lengths, token_budget, reads=[1] * len(starts), most_reads=most):
        steps: list[Array] = []

        def see(logp: Tensor, steps: list[Array] = steps) -> None:
            steps.append(kl_per_token(logp[:, 0], logp[:, 1], direction))

        some = [starts[index] for index in batch]
        texts = along_continuations(model, intervention, some, tokens, stops, see, other_base=other_base)
        for index, text, values in zip(batch, texts, np.stack(steps, 1), strict=True):
            found[index] = values[: len(text)]
    return found

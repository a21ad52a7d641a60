"""At which layer to steer, decided on held-out pairs: never on the rows of an evaluation.

For each layer, at the same small strength a: ``score = mean_i [C_i(a) − C_i(−a)] / 2`` with the likelihood
contrast ``C = ℓ(positive answer) − ℓ(negative answer)``, ℓ the mean log-probability of an answer's tokens in
nats, given the question without a system prompt. Both signs count, so that what merely breaks the model, or
pushes one way only, does not win.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.pairs.encoding import encode
from weightsteer.inference.likelihood import answer_logprobs
from weightsteer.progress import progress
from weightsteer.steering import Intervention, steer


class Choice(NamedTuple):
    """The chosen layer, and every candidate's score in nats per token."""

    layer: int
    scores: dict[int, float]


def choose_layer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    candidates: Mapping[int, Intervention],
    pairs: pl.DataFrame,
    *,
    alpha: float,
    shown: bool = True,
) -> Choice:
    """The layer whose candidate moves held-out pairs the most in the right direction.

    Args:
        candidates: an intervention for each layer; all are tried at ±alpha, so their scales must be
            comparable (``scale="residual"``).
        pairs: contrastive pairs that no candidate was fitted on.
    """
    rows = encode(model, tokenizer, pairs)
    answers = [*rows.positive, *rows.negative]
    tokens = np.array([row.length - row.start for row in answers])

    def contrast(candidate: Intervention, strength: float) -> float:
        with steer(model, candidate, strength):
            each = np.array(answer_logprobs(model, answers, shown=False)) / tokens
        return float(each[: len(rows.positive)].mean() - each[len(rows.positive) :].mean())

    scores = {}
    with progress("layers", len(candidates), shown=shown) as advance:
        for layer, candidate in sorted(candidates.items()):
            scores[layer] = (contrast(candidate, alpha) - contrast(candidate, -alpha)) / 2
            advance(1)
    return Choice(max(scores, key=lambda layer: scores[layer]), scores)

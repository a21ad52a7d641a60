"""The hidden states of both sides of contrastive pairs: what activation vectors are fitted to."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.activation.methods import Contrast
from weightsteer.data.pairs.encoding import Pairs, encode
from weightsteer.errors import WeightsteerError
from weightsteer.inference.capture import ReadAt, block_outputs, capture


@dataclass(frozen=True)
class Captured:
    """The states of both sides of n pairs, by layer, and the mean norm of all tokens read at a layer."""

    contrasts: dict[int, Contrast]
    norms: dict[int, float]
    pairs: Pairs


def capture_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    layers: Iterable[int],
    *,
    at: ReadAt = "answer",
    personas: bool = True,
    shown: bool = True,
) -> Captured:
    """The states of both sides of contrastive pairs behind decoder layers.

    Args:
        pairs: the frame that branches are trained on (prompt, response_pos, response_neg), without rejected pairs.
        layers: decoder layers, from 0.
        at: which tokens to read.
        personas: put each side's own system prompt (sys_prompt_pos, sys_prompt_neg) in front, as when the pair
            was made. Without, the sides differ in the text of their answers only.

    Raises:
        WeightsteerError: columns or layers that are not there, no pair with answers, or tokens that cannot differ
            between the sides.
    """
    if at == "prompt" and not personas:
        raise WeightsteerError(
            "without personas both sides have the same prompt, so nothing differs in front of the answer. "
            "Read at 'answer' or 'last', or set personas=True."
        )
    points = block_outputs(model, layers)
    rows = encode(model, tokenizer, pairs, personas=personas)
    found = capture(model, [*rows.positive, *rows.negative], points.values(), at=at, shown=shown)
    n = len(rows.positive)
    states = {layer: found[point] for layer, point in points.items()}
    return Captured(
        {layer: Contrast(own.values[:n], own.values[n:]) for layer, own in states.items()},
        {layer: float(own.norms.double().mean()) for layer, own in states.items()},
        rows,
    )

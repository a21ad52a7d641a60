"""The plain procedure that the sweep is compared with: how it is usually done, and nothing done badly on purpose.

For each strength W + α·dW is written into the weights in fp32; rows go through the model in the order of the file,
in batches padded on the left with an attention mask; the model returns the logits of every position, of which the last
is read.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals import Item
from weightsteer.inference.answers import choice_table, score_choices
from weightsteer.models import render_chat


@torch.no_grad()
def plain_sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    delta: Mapping[str, Tensor],
    items: Sequence[Item],
    alphas: Sequence[float],
    batch_size: int,
) -> dict[float, NDArray[np.float64]]:
    """Log-ratios (n,) by strength. ``delta`` holds the dense fp32 change of each module's weight."""
    weights = {name: model.get_submodule(name).weight for name in delta}
    original = {name: weight.clone() for name, weight in weights.items()}
    ids = [render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix) for item in items]
    choices = choice_table(tokenizer, [item.choices for item in items])
    found: dict[float, NDArray[np.float64]] = {}
    for alpha in alphas:
        for name, weight in weights.items():
            weight.copy_(original[name] + alpha * delta[name])
        scores = []
        for start in range(0, len(ids), batch_size):
            logits = left_padded_logits(model, ids[start : start + batch_size], tokenizer.pad_token_id)
            scores.append(score_choices(logits[:, -1], choices[start : start + batch_size]).logratio)
        found[alpha] = torch.cat(scores).double().numpy()
    for name, weight in weights.items():
        weight.copy_(original[name])
    return found


@torch.no_grad()
def left_padded_logits(model: PreTrainedModel, rows: Sequence[list[int]], pad: int, last: bool = False) -> Tensor:
    """Logits of every position (b, t, vocabulary), or of the last one alone (b, 1, vocabulary)."""
    longest = max(map(len, rows))
    batch = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return model(
        input_ids=batch, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=int(last)
    ).logits

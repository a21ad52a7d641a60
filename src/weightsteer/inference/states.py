"""Read what modules read and put out, at the tokens of an answer: one state per row and place.

`weightsteer.inference.capture` encodes the rows (chat template, end of turn). Padding is on the right, where a causal
model cannot see it, and no padded token is among those that are averaged.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.inference.likelihood import Answered, packed
from weightsteer.steering.claims import claimed

# tokens of one forward pass: fewer than for the residual stream alone, for an MLP is three times as wide
TOKENS = 4096

Side = Literal["output", "input"]
"""What modules put out (columns of dW), or what they read (rows of dW).

The delta of an embedding is its table (V, d), whose rows are what it puts out: there the two are exchanged.
"""


class Place(NamedTuple):
    """The input or the output of a module."""

    module: str
    side: Side


@torch.inference_mode()
def read(
    model: PreTrainedModel, rows: Sequence[Answered], places: Sequence[Place], *, answers: bool
) -> dict[Place, Tensor]:
    """States (n, d) fp32 by place: the mean over the tokens of the answer, or the last token of the prompt.

    Args:
        answers: the tokens of the answer without its end of sequence; otherwise the one token in front of it.
    """
    found: dict[Place, list[Tensor]] = {place: [torch.empty(0)] * len(rows) for place in places}
    for batch in packed(rows, vocabulary=1, budget=TOKENS):
        for place, states in _batch(model, [rows[i] for i in batch], places, answers).items():
            for index, state in zip(batch, states, strict=True):
                found[place][index] = state
    return {place: torch.stack(states) for place, states in found.items()}


def _batch(
    model: PreTrainedModel, batch: Sequence[Answered], places: Sequence[Place], answers: bool
) -> dict[Place, Tensor]:
    ids = torch.zeros(len(batch), max(row.length for row in batch), dtype=torch.long)
    average = torch.zeros(ids.shape)
    for number, row in enumerate(batch):
        ids[number, : row.length] = torch.tensor(row.ids)
        start, stop = (row.start, row.length - 1) if answers else (row.start - 1, row.start)
        average[number, start:stop] = 1 / (stop - start)
    found: dict[Place, Tensor] = {}

    def reader(place: Place) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            claim.check()
            hidden = output if place.side == "output" else (args[0] if args else next(iter(kwargs.values())))
            states = hidden[0] if isinstance(hidden, tuple) else hidden
            mean = average.to(states.device)
            found[place] = torch.einsum("bt,btd->bd", mean, states.float()).cpu()

        return hook

    with claimed(model) as claim, ExitStack() as stack:
        for p in places:
            stack.callback(model.get_submodule(p.module).register_forward_hook(reader(p), with_kwargs=True).remove)
        model.base_model(input_ids=ids.to(model.device), use_cache=False)
    return found

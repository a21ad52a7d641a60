"""Directions of the contrast at the tokens that attention selects.

The last token of a text looks back through the attention of a block; the `TOKENS` tokens of the answer that it weighs
most, by the mean over the heads, are where the block takes its information from. Of these the states of both sides of a
pair are compared, as in *activation-pca*: ``D = h⁺ − h⁻`` (n, d), each side the mean over its own selected tokens, not
centred. The token itself does not count among them, nor do tokens of the prompt, which hold attention sinks.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import principal
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.basis import Side
from weightsteer.errors import WeightsteerError
from weightsteer.inference.likelihood import Answered
from weightsteer.models import decoder_layers
from weightsteer.steering.claims import claimed

TOKENS = 4
"""How many tokens of an answer are selected."""


@register(
    "attention-selected",
    needs=("model", "pairs"),
    origin="principal differences of the stream at the answer tokens that each block's attention weighs most, by depth",
)
def selected(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The attention of the block that reads a depth selects; behind the last block that of its own."""
    rows = materials.encoded(personas=materials.personas)
    positive, negative = (_states(materials.base_model, each) for each in (rows.positive, rows.negative))
    differences = {layer + 1: positive[:, layer] - negative[:, layer] for layer in range(positive.shape[1])}
    found = principal(differences, rank, "the differences of the pairs at the tokens that attention selects")
    return materials.stream.at_modules(found, side)


@torch.inference_mode()
def _states(model: PreTrainedModel, rows: Sequence[Answered]) -> Tensor:
    """(n, L, d) fp64: the mean state of the selected tokens of each row behind each block."""
    kernel = model.config._attn_implementation
    known: dict[tuple[int, ...], Tensor] = {}
    outputs: list[Tensor] = []

    def record(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    model.set_attn_implementation("eager")  # the other kernels do not say how they weigh
    try:
        with claimed(model), ExitStack() as stack:
            for block in decoder_layers(model)[1]:
                stack.callback(block.register_forward_hook(record).remove)
            for row in rows:
                if row.key not in known:
                    outputs.clear()
                    known[row.key] = _row(model, row, outputs)
    finally:
        model.set_attn_implementation(kernel)
    return torch.stack([known[row.key] for row in rows])


def _row(model: PreTrainedModel, row: Answered, outputs: Sequence[Tensor]) -> Tensor:
    """(L, d) of one text; the end of sequence is left out. ``outputs``: where the outputs of the blocks are put."""
    ids = torch.tensor([row.ids[:-1]], device=model.device)
    attentions = model.base_model(input_ids=ids, use_cache=False, output_attentions=True).attentions
    if not attentions or attentions[0] is None:
        raise WeightsteerError("this model does not say how its attention weighs tokens, so none can be selected.")
    last = ids.shape[1] - 1
    means = []
    for layer, state in enumerate(outputs):
        # what stands behind block l is read by block l + 1
        weights = attentions[min(layer + 1, len(attentions) - 1)][0, :, last].float().mean(0)
        answer = weights[row.start : last]
        chosen = answer.topk(min(TOKENS, len(answer))).indices + row.start if len(answer) else torch.tensor([last])
        means.append(state[0, chosen.to(state.device)].double().mean(0).cpu())
    return torch.stack(means)

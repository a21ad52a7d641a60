"""Read hidden states by hooks: what modules read and put out, at the tokens of an answer.

Block l's output is ``hidden_states[l + 1]`` of the model (``hidden_states[0]`` is the embedding), and the last
entry of that list is already normalised. Hooks on the blocks read the states themselves, so that "layer l" means what
block l puts out, for every l, and what a vector at layer l is added to.

Of each row one mean over the wanted tokens is kept per hook point; padding is never among these tokens.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError, unknown
from weightsteer.inference.batching import TOKENS, batches, distinct, right_padded
from weightsteer.inference.forward import Positions
from weightsteer.inference.likelihood import Answered
from weightsteer.models import decoder_layers
from weightsteer.progress import progress
from weightsteer.steering.claims import claimed

ReadAt = Literal["answer", "last", "prompt"]
"""Which tokens are read: the mean over the answer, its last token, or the last token in front of it. The end of
sequence is never read: it is the same token on both sides of a pair."""

Side = Literal["output", "input"]
"""What modules put out (columns of dW), or what they read (rows of dW).

The delta of an embedding is its table (V, d), whose rows are what it puts out: there the two are exchanged.
"""


class HookPoint(NamedTuple):
    """The input or the output of a module."""

    module: str
    side: Side


class States(NamedTuple):
    """``values`` (n, d) fp32: one state per row; ``norms`` (n,): the mean ‖h‖ of the tokens that it averages."""

    values: Tensor
    norms: Tensor


def block_outputs(model: PreTrainedModel, layers: Iterable[int]) -> dict[int, HookPoint]:
    """The residual stream behind decoder layers, counted from 0, in ascending order.

    Raises:
        WeightsteerError: no layer, or one that the model does not have.
    """
    prefix, blocks = decoder_layers(model)
    wanted = sorted(set(layers))
    if not wanted or wanted[0] < 0 or wanted[-1] >= len(blocks):
        raise WeightsteerError(
            f"the layers of this model are 0 to {len(blocks) - 1}; {wanted or 'none'} were asked for."
        )
    return {layer: HookPoint(f"{prefix}.{layer}", "output") for layer in wanted}


@torch.inference_mode()
def capture(
    model: PreTrainedModel,
    rows: Sequence[Answered],
    points: Iterable[HookPoint],
    *,
    at: ReadAt = "answer",
    token_budget: int = TOKENS,
    shown: bool = True,
) -> dict[HookPoint, States]:
    """One state (d,) per row and hook point, averaged over the tokens of ``at``; equal rows are computed once.

    Args:
        rows: token ids, with the position at which the answer begins.
        points: module inputs or outputs.
        at: which tokens to read: of the prompt, of the answer, or its last.
        token_budget: tokens of one forward pass.

    Raises:
        WeightsteerError: ``at`` names no tokens.
    """
    points = list(points)
    first, kinds = distinct([row.key for row in rows])
    some = [rows[index] for index in first]
    wanted = [_tokens(row, at) for row in some]
    order: list[int] = []
    found: list[dict[HookPoint, States]] = []
    with progress("activations", len(some), shown=shown) as advance:
        # no logits are made, so the vocabulary does not limit a batch
        for batch in batches([row.length for row in some], token_budget):
            found.append(_capture_batch(model, [some[i] for i in batch], [wanted[i] for i in batch], points))
            order += batch
            advance(len(batch))
    where = torch.tensor(order).argsort()[torch.tensor(kinds)]
    return {
        point: States(*(torch.cat(part)[where] for part in zip(*(states[point] for states in found), strict=True)))
        for point in points
    }


def _capture_batch(
    model: PreTrainedModel, batch: Sequence[Answered], wanted: Sequence[range], points: Sequence[HookPoint]
) -> dict[HookPoint, States]:
    device = model.device
    owner = torch.tensor([number for number, tokens in enumerate(wanted) for _ in tokens])
    average = torch.zeros(len(batch), len(owner))
    average[owner, torch.arange(len(owner))] = torch.tensor([1 / len(tokens) for tokens in wanted])[owner]
    positions = Positions(owner, torch.tensor([at for tokens in wanted for at in tokens]))
    found: dict[HookPoint, States] = {}

    def reader(point: HookPoint) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            claim.check()
            value = output if point.side == "output" else (args[0] if args else next(iter(kwargs.values())))
            tokens = positions.of(value[0] if isinstance(value, tuple) else value).float()
            mean = average.to(tokens.device)
            found[point] = States((mean @ tokens).cpu(), (mean @ tokens.norm(dim=-1)).cpu())

        return hook

    with claimed(model) as claim, ExitStack() as stack:
        for point in points:
            module = model.get_submodule(point.module)
            stack.callback(module.register_forward_hook(reader(point), with_kwargs=True).remove)
        # the body alone: logits are not needed
        model.base_model(input_ids=right_padded([row.ids for row in batch], device), use_cache=False)
    return found


def _tokens(row: Answered, at: ReadAt) -> range:
    last = row.length - 2  # in front of the end of sequence
    if at == "answer":
        return range(row.start, last + 1)
    if at == "last":
        return range(last, last + 1)
    if at == "prompt":
        return range(row.start - 1, row.start)
    raise unknown("position to read", at, get_args(ReadAt))

"""Reading a model out at chosen positions, and putting a question to a model under an intervention."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.models import render_chat
from weightsteer.steering import Intervention
from weightsteer.steering.claims import claimed

Messages = Sequence[dict[str, str]]


def strengths(intervention: Intervention, alphas: Sequence[float]) -> list[float]:
    """The strengths in ascending order, 0 among them; of those only the ones an intervention with ``alphas`` is
    defined at (a prompt is there or not).

    Raises:
        WeightsteerError: a strength is not finite or occurs twice.
    """
    values = [float(alpha) + 0.0 for alpha in alphas]  # + 0.0 turns −0.0 into 0.0
    if not all(map(isfinite, values)) or len(set(values)) < len(values):
        raise WeightsteerError(f"strengths must be finite numbers, each given once, not {values}.")
    defined = getattr(intervention, "alphas", None)
    return sorted({value for value in values if defined is None or value in defined} | {0.0})


def conversation(
    intervention: Intervention, messages: Messages, alpha: float, tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, str]]:
    """The conversation as the model gets it at one strength: a prompt changes it at α ≠ 0, others never do."""
    change = getattr(intervention, "messages", None)
    chat = [dict(message) for message in messages]
    return chat if change is None or alpha == 0 else [dict(message) for message in change(chat, alpha, tokenizer)]


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    intervention: Intervention,
    messages: Messages,
    alpha: float,
    *,
    answer_prefix: str = "",
    thinking: bool = False,
) -> list[int]:
    """`render_chat` of the conversation at one strength."""
    chat = conversation(intervention, messages, alpha, tokenizer)
    return render_chat(tokenizer, chat, answer_prefix=answer_prefix, thinking=thinking)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Say what to do when the device runs out of memory in the body."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise WeightsteerError(
            "out of memory: give a smaller token_budget (rows × strengths × tokens of one forward pass), fewer "
            "strengths, or a model in a smaller dtype."
        ) from error


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(b, t) token ids, each row filled up with its own last token.

    A causal model cannot see what stands behind a position, so no attention mask is needed as long as nothing is read
    from the filling.
    """
    longest = max(map(len, rows))
    return torch.tensor([[*row, *row[-1:] * (longest - len(row))] for row in map(list, rows)], device=device)


@contextmanager
def reading(model: PreTrainedModel, positions: Tensor) -> Iterator[None]:
    """Let the output embedding see only ``positions`` (b, c) of each row: its input becomes (b, c, d)."""

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        claim.check()
        hidden, *others = args
        rows = torch.arange(len(positions), device=hidden.device)[:, None]
        return (hidden[rows, positions.to(hidden.device)], *others)

    with claimed(model) as claim:
        handle = model.get_output_embeddings().register_forward_pre_hook(before)
        try:
            yield
        finally:
            handle.remove()


def last_logits(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits (b, vocabulary) at the last token of each row, in one forward pass."""
    last = torch.tensor([[len(row) - 1] for row in rows])
    with reading(model, last):
        logits: Tensor = model(input_ids=right_padded(rows, model.device), use_cache=False).logits
    return logits[:, 0]

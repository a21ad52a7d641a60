"""How rows become batches: longest first, padded to one length, and limited by memory.

This file alone knows the limits. A forward pass is limited by the tokens that it carries, since activations grow with
them, and by the entries of its logit matrix (positions that are read × vocabulary).
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError
from weightsteer.models import model_name

TOKENS = 8192
"""Tokens of one forward pass, padding included; for several strengths, the tokens of all of them."""

LOGITS = 2**26
"""Entries of one logit matrix: 256 MiB in fp32."""


def vocabulary(model: PreTrainedModel) -> int:
    """The number of logits at each position."""
    return int(model.config.get_text_config().vocab_size)


def positions_at_once(model: PreTrainedModel, rows: int = 1) -> int:
    """How many positions of each of ``rows`` rows one logit matrix may hold; at least 1."""
    return max(1, LOGITS // (rows * vocabulary(model)))


def batches(
    lengths: Sequence[int],
    budget: int,
    *,
    reads: Sequence[int] | None = None,
    most_reads: int | None = None,
    ragged: bool = False,
    least_filled: float = 0.0,
) -> Iterator[list[int]]:
    """Plan the forward passes: indices of the items of each batch, the longest first.

    There is little padding when items of similar length are together, and memory runs out at once if it does. An item
    that exceeds a limit by itself gets a batch of its own.

    Args:
        lengths: the tokens of every item (of all its strengths, where an item has several).
        budget: the most tokens of a batch, with every item padded to the longest.
        reads: the positions of every item at which logits are made.
        most_reads: the most positions of a batch.
        ragged: count the positions that are read themselves; otherwise as many for every item as for the one with the
            most.
        least_filled: an item shorter than this share of the longest begins a batch of its own.
    """
    batch: list[int] = []
    total, widest = 0, 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        read = reads[index] if reads is not None else 0
        width = max(widest, read)
        count = total + read if ragged else (len(batch) + 1) * width
        if batch and (
            (len(batch) + 1) * lengths[batch[0]] > budget
            or (most_reads is not None and count > most_reads)
            or lengths[index] <= least_filled * lengths[batch[0]]
        ):
            yield batch
            batch, total, width = [], 0, read
        batch.append(index)
        total, widest = total + read, width
    if batch:
        yield batch


def distinct(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """For computing equal rows once: the index of the first row of each kind, and the kind of every row."""
    known: dict[Hashable, int] = {}
    first: dict[int, int] = {}
    kinds = [known.setdefault(key, len(known)) for key in keys]
    for index, kind in enumerate(kinds):
        first.setdefault(kind, index)
    return list(first.values()), kinds


def padded(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows of one length, each filled up on the right with its own last value.

    A causal model does not see what comes after a position, so no attention mask is needed as long as nothing is
    read from the filling. The official padding token is not used: some models warn of it.
    """
    longest = max(map(len, rows))
    return [[*row, *row[-1:] * (longest - len(row))] for row in map(list, rows)]


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Token ids (b, t), padded as in `padded`."""
    return torch.tensor(padded(rows), device=device)


def left_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids (b, t) that end together, as decoding needs them, and the attention mask (b, t), 0 at the filling."""
    longest = max(map(len, rows))
    ids = [[*row[:1] * (longest - len(row)), *row] for row in map(list, rows)]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


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


def context_length(model: PreTrainedModel) -> int | None:
    """The most tokens that the model reads at once, where it names a limit."""
    longest: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return longest


def check_length(model: PreTrainedModel, tokens: int, takes: str, advice: str) -> None:
    """Refuse what is longer than the context of the model.

    Args:
        takes: the beginning of the message, for example "row 'a' has 600 tokens".
        advice: its end, for example "shorten it".

    Raises:
        WeightsteerError: the model reads fewer tokens.
    """
    longest = context_length(model)
    if longest is not None and tokens > longest:
        raise WeightsteerError(f"{takes}, but {model_name(model)} reads at most {longest}: {advice}.")

"""Log-probabilities of given answers: what training minimises, and what the self-judge and probes read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.inference.batching import TOKENS, batches, distinct, positions_at_once, right_padded
from weightsteer.inference.forward import Positions, logits_at
from weightsteer.inference.prefixes import common_beginning
from weightsteer.models import render_chat
from weightsteer.progress import progress


class Answered(NamedTuple):
    """A prompt with its answer: ``ids[start:]`` is the answer, its end of sequence included."""

    ids: list[int]
    start: int

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def key(self) -> tuple[int, ...]:
        """Equal for equal rows."""
        return (self.start, *self.ids)


def answered(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    answer: str,
    end: int,
    *,
    thinking: bool = False,
) -> Answered:
    """Token ids of a chat and the answer to it, exactly as they are when the model answers.

    The prompt is rendered with its generation prompt, as for sampling, and the answer is put behind it; the
    template never renders the finished turn, which would strip or double thinking blocks.

    Args:
        end: the token that ends an answer, which counts as a part of it.
        thinking: render the prompt for a model that thinks before it answers.

    Raises:
        WeightsteerError: the tokens of the prompt are not the beginning of the tokens of the whole, so that no cut
            between them is right.
    """
    prompt = render_chat(tokenizer, messages, thinking=thinking)
    whole = render_chat(tokenizer, messages, answer_prefix=answer, thinking=thinking)
    if whole[: len(prompt)] != prompt:
        raise WeightsteerError(
            "the tokenizer joins the end of the chat template's generation prompt with the first letters of "
            f"the answer {answer[:40]!r}, so the loss cannot be cut between them. End the generation prompt "
            "of the chat template with a special token or a newline."
        )
    return Answered([*whole, end], len(prompt))


def answer_batches(model: PreTrainedModel, rows: Sequence[Answered], *, budget: int = TOKENS) -> Iterator[list[int]]:
    """Indices of the rows of each forward pass, within the limits of tokens and of logits."""
    return batches(
        [row.length for row in rows],
        budget,
        reads=[row.length - row.start for row in rows],
        most_reads=positions_at_once(model),
        ragged=True,
    )


def log_likelihood(
    model: PreTrainedModel, batch: Sequence[Answered], *, cache: DynamicCache | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all answer tokens of a batch, differentiable.

    Args:
        cache: keys and values of the shared beginning of every row; it grows.

    Returns:
        (m,) log-probabilities in nats, fp32, for the m answer tokens of all rows; (m,) the row each belongs
        to.
    """
    device = model.device
    owner = torch.tensor([i for i, row in enumerate(batch) for _ in row.ids[row.start :]], device=device)
    # position t predicts token t + 1
    tokens = torch.tensor([at for row in batch for at in range(row.start - 1, row.length - 1)], device=device)
    targets = torch.tensor([token for row in batch for token in row.ids[row.start :]], device=device)
    ids = right_padded([row.ids for row in batch], device)
    cached = {} if cache is None else {"past_key_values": cache, "use_cache": True}
    logits = logits_at(model, Positions(owner[None], tokens[None]), input_ids=ids, **cached)
    return -F.cross_entropy(logits[0].float(), targets, reduction="none"), owner


Active = Callable[[Tensor], AbstractContextManager[Any]]
"""Puts the weights of group g[b] under row b of a batch, for a tensor of groups (b,)."""


def grouped_log_likelihood(
    model: PreTrainedModel, rows: Sequence[Answered], groups: Tensor, active: Active
) -> tuple[Tensor, Tensor]:
    """As `log_likelihood`, with row b under the weights of group ``groups[b]`` (b,).

    Rows of one group run under the same weights (one adapter, one strength), so the keys and values of their common
    beginning are the same: they are computed once per group and shared, with their gradients. The beginning has the
    length that is common to the rows of every group (`weightsteer.inference.prefixes` says why a cache does this).
    """
    kinds, owner = groups.unique(return_inverse=True)
    members: list[list[Answered]] = [[] for _ in kinds]
    for row, group in zip(rows, owner.tolist(), strict=True):
        members[group].append(row)
    # the last token in front of an answer is left to the row: it predicts the first one of the answer
    shared = min(min(common_beginning([row.ids for row in own]), *(row.start - 1 for row in own)) for own in members)
    if shared < 1 or len(kinds) == len(rows):
        with active(groups):
            return log_likelihood(model, rows)
    cache = DynamicCache(config=model.config)
    beginnings = torch.tensor([own[0].ids[:shared] for own in members], device=model.device)
    with active(kinds):
        model(input_ids=beginnings, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_select_indices(owner.to(model.device))
    rest = [Answered(row.ids[shared:], row.start - shared) for row in rows]
    with active(groups):
        return log_likelihood(model, rest, cache=cache)


@torch.inference_mode()
def answer_logprobs(
    model: PreTrainedModel,
    rows: Sequence[Answered],
    *,
    counted: Sequence[Sequence[bool]] | None = None,
    title: str = "scoring",
    shown: bool = True,
) -> list[float]:
    """``log p(answer | prompt)`` of every row, teacher-forced and summed over its tokens, in nats.

    Equal rows are computed once.

    Args:
        counted: for every row, which tokens of its answer are summed; all of them by default. Each is still predicted
            from everything in front of it.
    """
    chosen = [tuple(one) for one in counted] if counted is not None else [()] * len(rows)
    first, kinds = distinct([(row.key, own) for row, own in zip(rows, chosen, strict=True)])
    some, asked = [rows[index] for index in first], [chosen[index] for index in first]
    total = [0.0] * len(some)
    with progress(title, len(some), shown=shown) as advance:
        for batch in answer_batches(model, some):
            values, owner = log_likelihood(model, [some[i] for i in batch])
            if counted is not None:
                values = values * torch.tensor([on for i in batch for on in asked[i]], device=values.device)
            sums = torch.zeros(len(batch), dtype=torch.float64, device=values.device)
            sums.index_add_(0, owner, values.double())
            for index, value in zip(batch, sums.tolist(), strict=True):
                total[index] = value
            advance(len(batch))
    return [total[kind] for kind in kinds]

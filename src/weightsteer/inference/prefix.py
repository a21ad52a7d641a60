"""Score answers whose prompts begin alike: the common beginning is computed once per group, not once per row.

Rows of one group run under the same weights (one adapter, one strength), and their system prompt and tag are the same
tokens. A causal model's keys and values of those tokens do not depend on what follows, so they are computed once and
shared by the rows of the group, with their gradients.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from weightsteer.inference.likelihood import Answered, log_likelihood

Active = Callable[[Tensor], AbstractContextManager[Any]]
"""Puts the weights of group g[b] under row b of a batch, for a tensor of groups (b,)."""


@dataclass(frozen=True)
class _Continued:
    """A model that has read the beginnings already, as `log_likelihood` calls one."""

    model: PreTrainedModel
    cache: DynamicCache

    @property
    def device(self) -> torch.device:
        return self.model.device

    def get_output_embeddings(self) -> nn.Module:
        return self.model.get_output_embeddings()

    def __call__(self, input_ids: Tensor, use_cache: bool) -> Any:
        return self.model(input_ids=input_ids, past_key_values=self.cache, use_cache=True)


def shared_log_likelihood(
    model: PreTrainedModel, rows: Sequence[Answered], groups: Tensor, active: Active
) -> tuple[Tensor, Tensor]:
    """As `weightsteer.inference.likelihood.log_likelihood`, with row b under the weights of ``groups[b]``.

    Rows of a group share their beginning up to the length that is common to the rows of every group.
    """
    distinct, owner = groups.unique(return_inverse=True)
    members: list[list[Answered]] = [[] for _ in distinct]
    for row, place in zip(rows, owner.tolist(), strict=True):
        members[place].append(row)
    # the last token in front of an answer is left to the row: it predicts the first one of the answer
    shared = min(min(_alike(own), *(row.start - 1 for row in own)) for own in members)
    if shared < 1 or len(distinct) == len(rows):
        with active(groups):
            return log_likelihood(model, rows)
    cache = DynamicCache(config=model.config)
    beginnings = torch.tensor([own[0].ids[:shared] for own in members], device=model.device)
    with active(distinct):
        model(input_ids=beginnings, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_select_indices(owner.to(model.device))
    rest = [Answered(row.ids[shared:], row.start - shared) for row in rows]
    with active(groups):
        return log_likelihood(_Continued(model, cache), rest)


def _alike(rows: Sequence[Answered]) -> int:
    """How many tokens all rows begin with."""
    every = [row.ids for row in rows]
    first, last = min(every), max(every)  # in order, all others lie between
    return next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))

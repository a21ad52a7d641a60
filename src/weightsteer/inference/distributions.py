"""Next-token distributions of a model at several strengths, the base model among them as a row of the same batch.

Both models thus take the same path through the code, and what differs between them is the intervention alone. Along
given texts (teacher-forced) the layers below the first steered one are computed once for all strengths.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from weightsteer.inference.batching import positions_at_once, right_padded
from weightsteer.inference.forward import Positions, first_own_layer, repeated_from, unembed
from weightsteer.inference.sampling import Decoding
from weightsteer.steering import Intervention, steer


@dataclass(frozen=True)
class TeacherForced:
    """A text and what comes before it: the same at every strength, or (a prompt) one context per strength."""

    contexts: tuple[list[int], ...]
    text: list[int]

    @property
    def longest(self) -> int:
        return max(map(len, self.contexts)) + len(self.text)


@dataclass(frozen=True)
class Start:
    """The contexts from which the base model and the steered one continue, and the strength."""

    base: list[int]
    steered: list[int]
    alpha: float

    @property
    def longest(self) -> int:
        return max(len(self.base), len(self.steered))


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats over the last dimension, from log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def along_texts(
    model: PreTrainedModel,
    intervention: Intervention,
    rows: Sequence[TeacherForced],
    alphas: Sequence[float],
    see: Callable[[int, Tensor], None],
    *,
    other_base: bool,
) -> None:
    """One forward pass over all texts at all strengths.

    The decoder runs once, and its last hidden states become logits a few positions at a time, so memory does not grow
    with texts × strengths × vocabulary.

    Args:
        see: gets ``(first, logp)``: log-probabilities (n, k, c, vocabulary), fp32, of the tokens first … first + c of
            every text. Behind the end of a text they mean nothing.
    """
    n, k = len(rows), len(alphas)
    shared = all(len(row.contexts) == 1 for row in rows)
    first = first_own_layer(model, intervention) if shared else 0
    contexts = [[*row.contexts] * (k if len(row.contexts) == 1 else 1) for row in rows]
    full = right_padded(
        [[*context, *row.text] for row, own in zip(rows, contexts, strict=True) for context in own], model.device
    )
    starts = torch.tensor([len(context) for own in contexts for context in own], device=model.device)[:, None]
    lengths = torch.tensor([len(row.text) for row in rows], device=model.device).repeat_interleave(k)[:, None]
    longest = int(lengths.max())
    step = min(longest, positions_at_once(model, n * k))
    with steer(model, intervention, list(alphas) * n, other_base=other_base):
        with repeated_from(model, first, n, k):
            body = model.base_model(input_ids=full[::k] if first else full, use_cache=False)
        for at in range(0, longest, step):
            # position t predicts token t + 1; beyond the end of a text its last position is used
            offsets = torch.arange(at, min(at + step, longest), device=model.device)[None].minimum(lengths - 1)
            logits = unembed(model, body, Positions.of_rows(starts + offsets - 1).of(body.last_hidden_state))
            see(at, logits.float().log_softmax(-1).view(n, k, offsets.shape[1], -1))


def along_continuations(
    model: PreTrainedModel,
    intervention: Intervention,
    starts: Sequence[Start],
    tokens: int,
    stops: Sequence[int],
    see: Callable[[Tensor], None],
    *,
    other_base: bool,
) -> list[list[int]]:
    """Greedy continuations under steering, and what the base model would say next after the same words.

    The likeliest token of the steered row is given to both rows. Nothing but the logits chooses.

    Args:
        see: gets the log-probabilities (n, 2, vocabulary), base first, from which each token is chosen.

    Returns:
        n lists of token ids, of at most ``tokens``; a list that the model ended itself ends with a stop id.
    """
    n, device = len(starts), model.device
    shared = all(start.base == start.steered for start in starts)
    first = first_own_layer(model, intervention) if shared else 0
    times = 1 if first else 2  # rows of each start at the model's input
    contexts = [context for start in starts for context in (start.base, start.steered)[:times]]
    stop = torch.tensor(list(stops), device=device)
    ended = torch.zeros(n, dtype=torch.bool, device=device)
    chosen: list[Tensor] = []
    alphas = [strength for start in starts for strength in (0.0, start.alpha)]
    with steer(model, intervention, alphas, other_base=other_base), repeated_from(model, first, n, 2):
        decoding = Decoding(model, contexts)
        while True:
            logp = decoding.logits.log_softmax(-1).view(n, 2, -1)
            see(logp)
            token = logp[:, 1].argmax(-1)
            chosen.append(token.where(~ended, -1))
            ended |= torch.isin(token, stop)
            if len(chosen) == tokens or bool(ended.all()):
                break
            decoding.append(token.repeat_interleave(times))
    return [[token for token in row if token >= 0] for row in torch.stack(chosen, 1).tolist()]

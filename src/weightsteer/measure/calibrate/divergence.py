"""KL divergence per token of the base and the steered model, along given texts or along the steered model's own.

::

    base_steered   KL(p₀ ‖ p_α)(· | x_<t)        steered_base   KL(p_α ‖ p₀)(· | x_<t)

in nats, from raw logits over the whole vocabulary and log-softmax in fp32. In both forms the base model is a row of the
same batch with α = 0, so that both models take the same path through the code: what differs is the intervention alone.
Layers below the first steered one are computed once for all strengths of a row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from weightsteer.inference.answers import first_own_layer, repeated_from
from weightsteer.inference.readout import right_padded
from weightsteer.measure.calibrate.definition import Direction
from weightsteer.measure.damage import body_gives
from weightsteer.stats.bootstrap import Array
from weightsteer.steering import Intervention, steer

MAX_LOGITS = 2**25  # entries of one logit matrix: 128 MiB in fp32


@dataclass(frozen=True)
class Forced:
    """A text and what stands before it: the same at every strength, or (a prompt) one context per strength."""

    contexts: tuple[list[int], ...]
    text: list[int]

    @property
    def longest(self) -> int:
        return max(map(len, self.contexts)) + len(self.text)


@dataclass(frozen=True)
class Walk:
    """Two contexts, the base model's and the steered one's, from which one strength sets out."""

    base: list[int]
    steered: list[int]
    alpha: float

    @property
    def longest(self) -> int:
        return max(len(self.base), len(self.steered))


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) over the last dimension, from log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def along_texts(
    model: PreTrainedModel,
    intervention: Intervention,
    rows: Sequence[Forced],
    alphas: Sequence[float],
    direction: Direction,
    *,
    token_budget: int,
    other_base: bool,
) -> dict[float, list[Array]]:
    """KL per token (t,) of every text at every strength, by strength and in the order of the rows.

    Args:
        alphas: strengths; α = 0 is added to every batch as the base.
        token_budget: texts × strengths × tokens of one forward pass.
    """
    found = {alpha: [np.empty(len(row.text)) for row in rows] for alpha in alphas}
    width = max(1, token_budget // max(row.longest for row in rows) - 1)
    for start in range(0, len(alphas), width):
        some = [0.0, *alphas[start : start + width]]
        places = [0, *range(start + 1, start + len(some))]
        for batch in _batches([row.longest * len(some) for row in rows], token_budget):
            chosen = [rows[number] for number in batch]
            # a prompt has a context for α = 0 in front of those of its strengths
            own = [
                row if len(row.contexts) == 1 else Forced(tuple(row.contexts[place] for place in places), row.text)
                for row in chosen
            ]

            def see(first: int, logp: Tensor, batch: list[int] = batch, some: list[float] = some) -> None:
                for place, alpha in enumerate(some[1:], 1):
                    pair = (logp[:, 0], logp[:, place])
                    kl = divergence(*(pair if direction == "base_steered" else pair[::-1])).double().cpu().numpy()
                    for values, number in zip(kl, batch, strict=True):
                        into = found[alpha][number][first : first + len(values)]
                        into[:] = values[: len(into)]

            read_texts(model, intervention, own, some, see, other_base=other_base)
    return found


def read_texts(
    model: PreTrainedModel,
    intervention: Intervention,
    rows: Sequence[Forced],
    alphas: Sequence[float],
    see: Callable[[int, Tensor], None],
    *,
    other_base: bool,
) -> None:
    """One forward pass; ``see(first, logp)`` gets log-probabilities (n, k, c, vocabulary) of tokens first … first + c.

    Behind the end of a text they mean nothing. The decoder runs once, and its last hidden states become logits a few
    positions at a time.
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
    longest = max(len(row.text) for row in rows)
    step = min(longest, max(1, MAX_LOGITS // (n * k * _vocabulary(model))))
    with steer(model, intervention, list(alphas) * n, other_base=other_base):
        with repeated_from(model, first, n, k):
            body = model.base_model(input_ids=full[::k] if first else full, use_cache=False)
        hidden = body.last_hidden_state
        place = torch.arange(n * k, device=hidden.device)[:, None]
        for at in range(0, longest, step):
            # position t predicts token t + 1; behind the end of a text its last position stands in
            offsets = torch.arange(at, min(at + step, longest), device=model.device)[None].minimum(lengths - 1)
            with body_gives(model, body, hidden[place, (starts + offsets - 1).to(hidden.device)]):
                logits = model(input_ids=full[:, :1].expand(-1, offsets.shape[1]), use_cache=False).logits
            see(at, logits.float().log_softmax(-1).view(n, k, offsets.shape[1], -1))


def along_walks(
    model: PreTrainedModel,
    intervention: Intervention,
    walks: Sequence[Walk],
    direction: Direction,
    *,
    tokens: int,
    stops: Sequence[int],
    token_budget: int,
    other_base: bool,
) -> list[Array]:
    """KL per token (t,) along the steered model's greedy continuation of every walk, its ending token included."""
    found: list[Array] = [np.empty(0) for _ in walks]
    most = MAX_LOGITS // (2 * _vocabulary(model))
    for batch in _batches([2 * (walk.longest + tokens) for walk in walks], token_budget, max(1, most)):
        steps: list[Tensor] = []

        def see(_: Tensor, logp: Tensor, steps: list[Tensor] = steps) -> None:
            pair = (logp[:, 0], logp[:, 1])
            steps.append(divergence(*(pair if direction == "base_steered" else pair[::-1])))

        texts = read_walks(
            model, intervention, [walks[number] for number in batch], tokens, stops, see, other_base=other_base
        )
        values = torch.stack(steps, 1).double().cpu().numpy()
        for number, text, own in zip(batch, texts, values, strict=True):
            found[number] = own[: len(text)]
    return found


def read_walks(
    model: PreTrainedModel,
    intervention: Intervention,
    walks: Sequence[Walk],
    tokens: int,
    stops: Sequence[int],
    see: Callable[[Tensor, Tensor], None],
    *,
    other_base: bool,
) -> list[list[int]]:
    """Greedy continuations under steering, the base model in lockstep: what it would say next after the same words.

    The likeliest token of the steered row is given to both rows of a walk. ``see(token, logp)`` gets the chosen tokens
    (n,) and the log-probabilities (n, 2, vocabulary) they were chosen from, base first. Nothing but the logits chooses.
    """
    n, device = len(walks), model.device
    shared = all(walk.base == walk.steered for walk in walks)
    first = first_own_layer(model, intervention) if shared else 0
    times = 1 if first else 2  # rows per walk at the model's input
    contexts = [context for walk in walks for context in (walk.base, walk.steered)[:times]]
    longest = max(map(len, contexts))
    ids = torch.tensor([[*context[:1] * (longest - len(context)), *context] for context in contexts], device=device)
    mask = torch.tensor([[0] * (longest - len(context)) + [1] * len(context) for context in contexts], device=device)
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    padded = not bool(mask.all())  # rows of one length need no mask, and attention without one is faster
    stop = torch.tensor(list(stops), device=device)
    ended = torch.zeros(n, dtype=torch.bool, device=device)
    chosen: list[Tensor] = []
    cache = DynamicCache(config=model.config)
    alphas = [strength for walk in walks for strength in (0.0, walk.alpha)]
    with steer(model, intervention, alphas, other_base=other_base), repeated_from(model, first, n, 2):
        while len(chosen) < tokens and not bool(ended.all()):
            logits = model(
                input_ids=ids,
                attention_mask=mask if padded else None,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            logp = logits.float().log_softmax(-1).view(n, 2, -1)
            token = logp[:, 1].argmax(-1)
            see(token, logp)
            chosen.append(token.where(~ended, -1))
            ended |= torch.isin(token, stop)
            ids = token.repeat_interleave(times)[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], -1)
            position = position[:, -1:] + 1
    return [[token for token in row if token >= 0] for row in torch.stack(chosen, 1).tolist()]


def _batches(costs: Sequence[int], budget: int, most: int | None = None) -> Iterator[list[int]]:
    """Rows of like cost together, the dearest first: as many as, at the cost of the first, fit the budget."""
    batch: list[int] = []
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        if batch and ((len(batch) + 1) * costs[batch[0]] > budget or len(batch) == most):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout and gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)

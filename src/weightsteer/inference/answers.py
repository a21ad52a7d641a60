"""Answers that are a choice of two: logits at the answer positions for every strength, and what they say.

::

    logp(c)  = logsumexp over every token that spells c of the fp32 log-softmax
    logratio = logp(first) − logp(second)        in nats, unsigned by any label
    pmass    = p(first) + p(second)              in [0, 1]

Hidden states below the first steered layer do not depend on the strength: they are computed once, and repeated for
the K strengths on their way into it.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.inference.batching import right_padded
from weightsteer.inference.forward import Positions, first_own_layer, logits_at, repeated_from
from weightsteer.inference.prefixes import Pack, visible
from weightsteer.models import choice_ids
from weightsteer.steering import Intervention, steer

# pmass under this share of the likeliest token's probability: the model is not answering the question
LOW_MASS = 0.01


def answer_logits(
    model: PreTrainedModel,
    intervention: Intervention | None,
    packs: Sequence[Pack],
    alphas: Tensor,
    *,
    other_base: bool = False,
) -> Tensor:
    """Logits at the answer positions for every strength: (rows, k, vocabulary), rows in the order of the packs.

    Where no pack branches there is no mask, and the fast causal kernels stay in use.

    Args:
        intervention: None: the unsteered model.
        packs: rows, each pack as one sequence (`weightsteer.inference.prefixes.pack`).
        alphas: (k,) strengths.
        other_base: as in `steer`.
    """
    n, k = len(packs), len(alphas)
    device = model.device
    inputs = {"input_ids": right_padded([one.ids for one in packs], device)}
    answers = right_padded([one.answers for one in packs], device)
    most = answers.shape[1]
    if any(one.branches for one in packs):
        inputs["position_ids"] = right_padded([one.positions for one in packs], device)
        inputs["attention_mask"] = _mask(model, packs, inputs["input_ids"].shape[1])
    first = first_own_layer(model, intervention) if intervention else 0
    if first == 0:
        inputs = {name: value.repeat_interleave(k, 0) for name, value in inputs.items()}
    with (
        repeated_from(model, first, n, k),
        steer(model, intervention, alphas.repeat(n), other_base=other_base) if intervention else nullcontext(),
    ):
        logits = logits_at(model, Positions.of_rows(answers.repeat_interleave(k, 0)), narrow=True, **inputs)
    held = torch.tensor([at < len(one.answers) for one in packs for at in range(most)], device=device)
    return logits.view(n, k, most, -1).transpose(1, 2).reshape(n * most, k, -1)[held]


def _mask(model: PreTrainedModel, packs: Sequence[Pack], tokens: int) -> Tensor:
    """What is added to the attention scores (n, 1, tokens, tokens): 0 where a key is seen."""
    seen = torch.from_numpy(visible(packs, tokens)).to(model.device).unsqueeze(1)
    return torch.zeros(seen.shape, dtype=model.dtype, device=model.device).masked_fill(
        ~seen, torch.finfo(model.dtype).min
    )


def last_logits(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits (b, vocabulary) at the last token of each row, in one forward pass of the model as it is steered now."""
    last = Positions.of_rows(torch.tensor([[len(row) - 1] for row in rows], device=model.device))
    return logits_at(model, last, input_ids=right_padded(rows, model.device))[:, 0]


def choice_table(tokenizer: PreTrainedTokenizerBase, choices: Sequence[tuple[str, str]]) -> Tensor:
    """The token ids of each row's two choices, padded with -1: (n, 2, m) int64, m the most spellings of any.

    Raises:
        WeightsteerError: a choice is not a single token, or the two choices of a row share their tokens.
    """
    spelled = {choice: choice_ids(tokenizer, choice) for pair in choices for choice in pair}
    for first, second in set(choices):
        if set(spelled[first]) & set(spelled[second]):
            raise WeightsteerError(
                f"the choices {first!r} and {second!r} are spelled by the same tokens (case and leading "
                "spaces do not count): use two different words."
            )
    width = max(map(len, spelled.values()))
    filled = {choice: [*ids, *[-1] * (width - len(ids))] for choice, ids in spelled.items()}
    return torch.tensor([[filled[first], filled[second]] for first, second in choices])


@dataclass(frozen=True)
class Scores:
    """One entry per row, all (b,): log-ratio in nats, mass of both choices, and the low-mass flag."""

    logratio: Tensor
    pmass: Tensor
    low_pmass: Tensor


def score_choices(logits: Tensor, ids: Tensor) -> Scores:
    """Score answer-position logits (b, vocabulary) for their choices (b, 2, m) from `choice_table`.

    NaN logits give NaN scores and a raised low-mass flag: they are never clipped away.
    """
    logits = logits.float()
    total = logits.logsumexp(-1)
    flat = ids.flatten(1)
    spellings = logits.gather(1, flat.clamp(min=0)).masked_fill(flat < 0, -torch.inf)
    logp = spellings.view(ids.shape).logsumexp(-1) - total[:, None]
    pmass = logp.exp().sum(-1)
    answering = pmass >= LOW_MASS * (logits.amax(-1) - total).exp()
    return Scores(logp[:, 0] - logp[:, 1], pmass, ~answering)

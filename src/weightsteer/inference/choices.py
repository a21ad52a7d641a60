"""Choice scoring: from the logits at the answer position to log-ratio and probability mass.

logp(c)  = logsumexp over every token that spells c of the fp32 log-softmax
logratio = logp(first) − logp(second)        in nats, unsigned by any label
pmass    = p(first) + p(second)              in [0, 1]
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.models import choice_ids

# pmass under this share of the likeliest token's probability: the model is not answering the question
LOW_MASS = 0.01


def choice_table(tokenizer: PreTrainedTokenizerBase, choices: Sequence[tuple[str, str]]) -> torch.Tensor:
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
    padded = {choice: [*ids, *[-1] * (width - len(ids))] for choice, ids in spelled.items()}
    return torch.tensor([[padded[first], padded[second]] for first, second in choices])


@dataclass(frozen=True)
class Scores:
    """One entry per row, all (b,): log-ratio in nats, mass of both choices, and the low-mass flag."""

    logratio: torch.Tensor
    pmass: torch.Tensor
    low_pmass: torch.Tensor


def score_choices(logits: torch.Tensor, ids: torch.Tensor) -> Scores:
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

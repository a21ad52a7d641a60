"""The optimisation: batches, validation, early stopping, the checkpoint that is kept."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError
from weightsteer.inference.batching import distinct
from weightsteer.inference.likelihood import Answered, answer_batches, answer_logprobs, log_likelihood
from weightsteer.progress import progress
from weightsteer.training.recipes import Recipe
from weightsteer.training.rows import Rows

# rows are sorted by length within so many batches: little padding, and the batches stay mixed
BUCKET = 16


class Loss(BaseModel):
    """Mean loss in nats per answer token: of the batches since the last line, and of the rows held out."""

    step: int
    train: float | None
    validation: float | None


class Fitted(NamedTuple):
    """The step whose weights the parameters hold now, the curve, and whether patience ended it."""

    step: int
    losses: list[Loss]
    stopped: bool


class Distinct(NamedTuple):
    """Rows without repetitions, and how often each occurs: small models give the same answer again and again."""

    rows: list[Answered]
    counts: list[int]

    @classmethod
    def of(cls, rows: Sequence[Answered]) -> "Distinct":
        first, kinds = distinct([row.key for row in rows])
        counts = Counter(kinds)
        return cls([rows[index] for index in first], [counts[kind] for kind in range(len(first))])

    @property
    def tokens(self) -> int:
        """Answer tokens, repetitions counted."""
        return sum((row.length - row.start) * count for row, count in zip(self.rows, self.counts, strict=True))


def fit(
    network: PreTrainedModel,
    rows: Rows,
    recipe: Recipe,
    seed: int,
    *,
    title: str,
    shown: bool,
) -> Fitted:
    """Train the parameters that require a gradient, on the NLL of the answers (nats per token).

    The parameters end as those of the lowest held-out loss (``recipe.keep`` is "best") or of the last step.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    total = recipe.total_steps(len(rows.train))
    batches = batches_of(rows.lengths, recipe.batch, seed)
    losses = [Loss(step=0, train=None, validation=_mean_loss(network, rows.validation))]
    recent: list[float] = []
    best: list[Tensor] | None = None
    best_step, best_loss, stale = total, math.inf, 0
    stopped = False
    with progress(title, total, shown=shown) as advance:
        for step in range(1, total + 1):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * schedule(step, total, recipe.warmup)
            batch = Distinct.of([rows.train[i] for i in next(batches)])
            recent.append(_step(network, batch, parameters, optimizer, recipe, step))
            advance(1)
            if step % recipe.eval_every and step != total:
                continue
            found = _mean_loss(network, rows.validation)
            losses.append(Loss(step=step, train=sum(recent) / len(recent), validation=found))
            recent = []
            if found is None:
                continue
            if not math.isfinite(found):
                raise _diverged(step, "the validation loss", found, recipe)
            if found < best_loss:
                best_step, best_loss, stale = step, found, 0
                if recipe.keep == "best":
                    best = [parameter.detach().clone() for parameter in parameters]
            else:
                stale += 1
                if recipe.patience is not None and stale >= recipe.patience:
                    stopped = step < total
                    break
    if recipe.keep == "best" and best is not None:
        with torch.no_grad():
            for parameter, value in zip(parameters, best, strict=True):
                parameter.copy_(value)
    else:
        best_step = losses[-1].step
    return Fitted(best_step, losses, stopped)


def schedule(step: int, total: int, warmup: int) -> float:
    """Linear up to 1 in ``warmup`` steps, then linear down, so that the step after the last would be 0."""
    if step <= warmup:
        return step / (warmup + 1)
    return (total + 1 - step) / (total + 1 - warmup)


def _step(
    network: PreTrainedModel,
    batch: Distinct,
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
) -> float:
    loss = 0.0
    # as many forward passes as memory asks for: their gradients add up to that of the mean of the batch
    for part in answer_batches(network, batch.rows):
        values, owner = log_likelihood(network, [batch.rows[i] for i in part])
        counts = torch.tensor([batch.counts[i] for i in part], dtype=values.dtype, device=values.device)
        piece = -(values * counts[owner]).sum() / batch.tokens
        piece.backward()
        loss += float(piece.detach())
    norm = nn.utils.clip_grad_norm_(parameters, recipe.clip)
    for what, value in (("the loss", loss), ("the norm of its gradient", float(norm))):
        if not math.isfinite(value):
            raise _diverged(step, what, value, recipe)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def _diverged(step: int, what: str, value: float, recipe: Recipe) -> WeightsteerError:
    return WeightsteerError(
        f"the training diverged: at step {step} {what} is {value}. Lower the learning rate (it is {recipe.lr:g}), "
        "raise warmup, or load the model in float32."
    )


def _mean_loss(network: PreTrainedModel, rows: Sequence[Answered]) -> float | None:
    """Mean negative log-likelihood per answer token, in nats; None without rows."""
    if not rows:
        return None
    return -sum(answer_logprobs(network, rows, shown=False)) / sum(row.length - row.start for row in rows)


def batches_of(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of row indices: each epoch a fresh permutation, sorted by length within buckets."""
    epoch = 0
    while True:
        random = np.random.default_rng([seed, 2, epoch])
        order = random.permutation(len(lengths)).tolist()
        batches = []
        for start in range(0, len(order), size * BUCKET):
            bucket = sorted(order[start : start + size * BUCKET], key=lambda i: lengths[i])
            batches += [bucket[i : i + size] for i in range(0, len(bucket), size)]
        for index in random.permutation(len(batches)):
            yield batches[index]
        epoch += 1

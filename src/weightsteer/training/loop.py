"""The optimisation: batches, validation, early stopping, the checkpoint that is kept."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError
from weightsteer.pairs.likelihood import Answered, answer_logprobs, log_likelihood, packed
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


def fit(
    network: PreTrainedModel,
    rows: Rows,
    recipe: Recipe,
    seed: int,
    *,
    title: str,
    shown: bool,
) -> Fitted:
    """Train the parameters that require a gradient; they end as the checkpoint to keep."""
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
                group["lr"] = recipe.lr * _schedule(step, total, recipe.warmup)
            batch = [rows.train[i] for i in next(batches)]
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


def _schedule(step: int, total: int, warmup: int) -> float:
    """Linear up to 1 in ``warmup`` steps, then linear down, so that the step after the last would be 0."""
    if step <= warmup:
        return step / (warmup + 1)
    return (total + 1 - step) / (total + 1 - warmup)


def _step(
    network: PreTrainedModel,
    batch: Sequence[Answered],
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
) -> float:
    tokens = sum(row.length - row.start for row in batch)
    loss = 0.0
    # as many forward passes as memory asks for: their gradients add up to that of the mean of the batch
    for part in packed(batch, network.config.get_text_config().vocab_size):
        values, _ = log_likelihood(network, [batch[i] for i in part])
        piece = -values.sum() / tokens
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
    tokens = sum(row.length - row.start for row in rows)
    return -sum(answer_logprobs(network, rows, shown=False)) / tokens


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

"""Train several LoRAs at once: they share every forward pass of the frozen base, each row with its own adapter.

Row b of a batch belongs to learner k(b), and an adapted module gives

    y_b = W x_b + s · B_k(b) A_k(b) x_b            A (K, r, d_in), B (K, d_out, r), s = alpha / r

The base is read once for all learners. Losses, clipping and Adam's moments are kept apart, so each learner ends where
it would have ended alone, up to the rounding of sums of another shape.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer import adapters
from weightsteer.errors import WeightsteerError
from weightsteer.inference.likelihood import Answered, answer_batches, grouped_log_likelihood
from weightsteer.progress import progress
from weightsteer.steering.claims import Claim, claimed
from weightsteer.training.loop import Distinct, batches_of, schedule
from weightsteer.training.recipes import Recipe
from weightsteer.training.trainee import Trainee, trainee


@dataclass(frozen=True)
class Learner:
    """What one LoRA learns from: rows to answer, the seed of its start and order, and the folder it is saved to.

    ``lengths`` set the order of the batches, as in `weightsteer.training.rows.Rows`: two branches of one seed that
    share them see their questions in the same order.
    """

    rows: Sequence[Answered]
    lengths: Sequence[int]
    seed: int
    folder: Path


Factors = dict[str, tuple[Tensor, Tensor]]
"""By module path: A (r, d_in) and B (d_out, r)."""


def train_together(
    model: PreTrainedModel, learners: Sequence[Learner], recipe: Recipe, *, title: str = "training", shown: bool = True
) -> list[list[float]]:
    """Train the learners and save each as a PEFT folder; returns the losses of each, one a step, nats per token.

    The recipe's last step is kept: nothing is held out. ``model`` stays as it is, bit for bit.

    Raises:
        WeightsteerError: learners of different lengths of training, or a loss that is not finite.
    """
    totals = {recipe.total_steps(len(learner.rows)) for learner in learners}
    if len(totals) != 1:
        raise WeightsteerError("learners that share their steps need as many rows each, or a number of steps.")
    total = totals.pop()
    starts = {learner.seed: _initial(model, recipe, learner.seed) for learner in learners}
    scale = recipe.lora_alpha / recipe.rank
    stacked = {
        name: tuple(
            torch.stack([starts[learner.seed][name][part] for learner in learners]).requires_grad_() for part in (0, 1)
        )
        for name in starts[learners[0].seed]
    }
    parameters = [tensor for pair in stacked.values() for tensor in pair]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    orders = [batches_of(learner.lengths, recipe.batch, learner.seed) for learner in learners]
    losses: list[list[float]] = [[] for _ in learners]
    with progress(title, total, shown=shown) as advance:
        for step in range(1, total + 1):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * schedule(step, total, recipe.warmup)
            batches = [
                Distinct.of([learner.rows[i] for i in next(order)])
                for learner, order in zip(learners, orders, strict=True)
            ]
            found = _backward(model, stacked, scale, batches)
            _clip(parameters, recipe.clip)
            for own, loss in zip(losses, found, strict=True):
                if not math.isfinite(loss):
                    raise WeightsteerError(
                        f"the training diverged: at step {step} a loss is {loss}. Lower --lr (it is {recipe.lr:g})."
                    )
                own.append(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            advance(1)
    for index, learner in enumerate(learners):
        trained = {name: tuple(tensor[index].detach() for tensor in pair) for name, pair in stacked.items()}
        _save(model, recipe, learner, trained)
    return losses


def _backward(
    model: PreTrainedModel, stacked: Mapping[str, tuple[Tensor, ...]], scale: float, batches: Sequence[Distinct]
) -> list[float]:
    """Mean loss of every learner's batch in nats per token; the gradients of all are added to their factors.

    The forward passes are as many as memory asks for, filled with rows of all learners, longest first.
    """
    rows = [row for batch in batches for row in batch.rows]
    learner = torch.tensor([index for index, batch in enumerate(batches) for _ in batch.rows])
    share = torch.tensor([count / batch.tokens for batch in batches for count in batch.counts])
    losses = torch.zeros(len(batches), dtype=torch.float64)
    for part in answer_batches(model, rows):
        values, owner = grouped_log_likelihood(
            model, [rows[i] for i in part], learner[part], partial(each_with_its_own, model, stacked, scale)
        )
        weighted = -values * share[part].to(values)[owner]
        weighted.sum().backward()
        losses.index_add_(0, learner[part][owner.cpu()], weighted.detach().double().cpu())
    return [float(loss) for loss in losses]


@contextmanager
def each_with_its_own(
    model: PreTrainedModel, stacked: Mapping[str, tuple[Tensor, ...]], scale: float, learner: Tensor
) -> Iterator[None]:
    """Run the body with adapter ``learner[b]`` on row b of the batch.

    Args:
        stacked: by module path A (K, r, d_in) and B (K, d_out, r).
        learner: (b,) integers in [0, K).
    """
    with claimed(model) as claim, ExitStack() as stack:
        for name, (a, b) in stacked.items():
            module = model.get_submodule(name)
            hook = _adapter(a, b, scale, learner.to(a.device), claim)
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def _adapter(a: Tensor, b: Tensor, scale: float, learner: Tensor, claim: Claim) -> Any:
    down, up = a[learner].transpose(1, 2), b[learner].transpose(1, 2) * scale

    def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        claim.check()
        return output + (args[0].to(down.dtype) @ down @ up).to(output.dtype)

    return add


def _clip(parameters: Sequence[Tensor], largest: float) -> None:
    """Bring the gradient of each learner to the norm ``largest`` where it is longer, as for one learner alone."""
    square = sum((p.grad.square().sum((1, 2)) for p in parameters if p.grad is not None), start=torch.zeros(()))
    factor = (largest / (square.sqrt() + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad *= factor[:, None, None]


def _initial(model: PreTrainedModel, recipe: Recipe, seed: int) -> Factors:
    """The factors that PEFT starts from with this seed."""
    with trainee(model, adapters.get("lora"), recipe, seed) as start:
        return {
            name: (layer.lora_A["default"].weight.detach().clone(), layer.lora_B["default"].weight.detach().clone())
            for name, layer in _layers(start).items()
        }


def _save(model: PreTrainedModel, recipe: Recipe, learner: Learner, factors: Mapping[str, tuple[Tensor, ...]]) -> None:
    with trainee(model, adapters.get("lora"), recipe, learner.seed) as finished, torch.no_grad():
        for name, layer in _layers(finished).items():
            layer.lora_A["default"].weight.copy_(factors[name][0])
            layer.lora_B["default"].weight.copy_(factors[name][1])
        finished.save(learner.folder)


def _layers(of: Trainee) -> dict[str, LoraLayer]:
    return {name: module for name, module in of.network.named_modules() if isinstance(module, LoraLayer)}

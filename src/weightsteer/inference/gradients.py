"""Gradients of a weighted sum of log-ratios: of the weights of modules, and of shifts of their outputs.

With y_i the log-ratio of row i (nats, `weightsteer.inference.answers`) and c_i its weight,

    g_t = ∂ Σ_i c_i y_i / ∂ W_t          for the weight W_t of a module
    g_s = ∂ Σ_i c_i y_i / ∂ s            for a shift s that is added to the output of a module at every position

at the unsteered model, in fp32, from one forward and one backward pass over the rows. A bias is such a shift of a
linear module, an activation vector one of a decoder layer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError
from weightsteer.inference.answers import answer_logits, score_choices
from weightsteer.inference.batching import batches, positions_at_once
from weightsteer.inference.prefixes import Pack, pack, shares_prefixes
from weightsteer.steering.claims import claimed
from weightsteer.terms.modules import linear_shape

WEIGHT, SHIFT = "weight", "shift"

Key = tuple[str, str]
"""The path of a module, and what of it a gradient belongs to: `WEIGHT` or `SHIFT`."""


class NoGradient(WeightsteerError):
    """Something has no gradient of its own; draws of random directions can be swept in its place."""


ACTIVATIONS = 2**26
"""Entries of the activations that one pass keeps for its backward pass: 256 MiB in fp32. Larger passes are slower."""

LONGEST_PACK = 256
"""Tokens of rows with a common beginning that are passed as one: the backward pass of masked attention is slow."""


def check_differentiable(model: PreTrainedModel, keys: Sequence[Key]) -> None:
    """Refuse weights that have no gradient of their own.

    Raises:
        NoGradient: a weight is quantised, or is that of several modules (tied), so that its gradient would be
            the sum of theirs.
    """
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    modules = dict(model.named_modules())
    for name, part in keys:
        if part != WEIGHT:
            continue
        weight = getattr(modules[name], "weight", None)
        if not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
            raise NoGradient(f"the weight of {name} is quantised and has no gradient.")
        if len(owners[id(weight)]) > 1:
            raise NoGradient(f"{' and '.join(owners[id(weight)])} share one weight, so neither has its gradient.")


def logratio_gradients(
    model: PreTrainedModel,
    rows: Sequence[list[int]],
    choices: Tensor,
    weights: Sequence[float],
    keys: Sequence[Key],
    advance: Callable[[int], None] = lambda _: None,
) -> dict[Key, Tensor]:
    """The gradients of ``Σ_i c_i y_i``.

    Args:
        rows: the token ids of each row.
        choices: their choices (n, 2, m), from `weightsteer.inference.answers.choice_table`.
        weights: c_i of each row.
        keys: of what the gradients are wanted.
        advance: is told the number of rows after each pass.

    Returns:
        For each key an fp32 tensor on the device of its module: of a weight in the shape in which the module stores
        it, of a shift (d_out,).

    Raises:
        NoGradient: see `check_differentiable`.
        WeightsteerError: a gradient is NaN or infinite.
    """
    check_differentiable(model, keys)
    factors = torch.tensor(list(weights), dtype=torch.float32, device=model.device)
    with _leaves(model, keys) as gradients:
        for packs in _batches(model, rows):
            held = [row for one in packs for row in one.rows]
            logits = answer_logits(model, None, packs, torch.zeros(1, device=model.device))[:, 0]
            scores = score_choices(logits, choices[held].to(logits.device))
            (scores.logratio @ factors[held].to(logits.device)).backward()
            advance(len(held))
    for (name, part), gradient in gradients.items():
        if not bool(gradient.isfinite().all()):
            raise WeightsteerError(f"the gradient of the {part} of {name} is not finite: load the model in fp32.")
    return gradients


@contextmanager
def _leaves(model: PreTrainedModel, keys: Sequence[Key]) -> Iterator[dict[Key, Tensor]]:
    """In the body, backward passes add the gradients of ``keys`` to what is yielded, and keep no others."""
    modules = dict(model.named_modules())
    gradients: dict[Key, Tensor] = {}
    training = model.training
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with claimed(model), ExitStack() as stack, torch.enable_grad():
        stack.callback(model.train, training)
        model.eval()
        for parameter, before in wanted:
            stack.callback(parameter.requires_grad_, before)
            parameter.requires_grad_(False)
        for name, part in keys:
            module = modules[name]
            if part == WEIGHT:
                leaf: Tensor = module.weight
                leaf.requires_grad_(True)
            else:
                shape = linear_shape(module)  # a decoder layer has none, but the width of the residual stream
                width = shape[0] if shape else int(model.config.get_text_config().hidden_size)
                leaf = torch.zeros(width, device=next(module.parameters()).device, requires_grad=True)
                stack.callback(module.register_forward_hook(_shifted(leaf)).remove)
            gradients[name, part] = torch.zeros(leaf.shape, dtype=torch.float32, device=leaf.device)
            stack.callback(leaf.register_post_accumulate_grad_hook(_moved(gradients[name, part])).remove)
        yield gradients


def _moved(total: Tensor) -> Callable[[Tensor], None]:
    """Add a gradient to an fp32 total as soon as it is there, so that the gradients of one pass are never all held."""

    def move(leaf: Tensor) -> None:
        assert leaf.grad is not None
        total.add_(leaf.grad)
        leaf.grad = None

    return move


def _shifted(shift: Tensor) -> Callable[[nn.Module, Any, Any], Any]:
    """A forward hook that adds a shift of zeros to the output at every position."""

    def add(_: nn.Module, args: Any, output: Any) -> Any:
        first, *others = output if isinstance(output, tuple) else (output,)
        moved = first + shift.to(first.dtype)
        return (moved, *others) if isinstance(output, tuple) else moved

    return add


def _batches(model: PreTrainedModel, rows: Sequence[list[int]]) -> list[list[Pack]]:
    """Packs of rows whose activations, kept for the backward pass, fit into memory."""
    config = model.config.get_text_config()
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    budget = max(1, ACTIVATIONS // (config.num_hidden_layers * (12 * config.hidden_size + 4 * wide)))
    worth = config.hidden_size if shares_prefixes(model, max(map(len, rows))) else 0
    most = positions_at_once(model, 3)  # logits, their softmax and its gradient
    packs = pack(rows, range(len(rows)), worth, max_tokens=min(budget, LONGEST_PACK), max_rows=most)
    plan = batches([len(one.ids) for one in packs], budget, reads=[len(one.rows) for one in packs], most_reads=most)
    return [[packs[index] for index in batch] for batch in plan]

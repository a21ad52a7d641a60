"""One forward pass: what does not depend on the strength is computed once, and logits only where they are read.

Everything here acts through hooks on the model, so that the architecture keeps its own code: masks, position
embeddings, soft caps and scales of logits stay in its hands.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.models import decoder_layers
from weightsteer.steering import Intervention, first_layer
from weightsteer.steering.claims import claimed


class Positions(NamedTuple):
    """Positions of a batch: index tensors that broadcast to one shape.

    - (b, 1) and (b, m): m positions of each of the b rows, read as (b, m, …);
    - (1, m) and (1, m): m positions of any rows, read as (1, m, …). The rows are lost to what acts per row.
    """

    rows: Tensor
    tokens: Tensor

    @classmethod
    def of_rows(cls, tokens: Tensor) -> "Positions":
        """The positions ``tokens`` (b, m) of each row."""
        return cls(torch.arange(len(tokens), device=tokens.device)[:, None], tokens)

    def of(self, states: Tensor) -> Tensor:
        """The states (b, t, d) at these positions."""
        return states[self.rows.to(states.device), self.tokens.to(states.device)]

    def put_back(self, states: Tensor, rows: int, tokens: int) -> Tensor:
        """States at these positions among zeros (rows, tokens, d)."""
        full = states.new_zeros(rows, tokens, states.shape[-1])
        full[self.rows.to(states.device), self.tokens.to(states.device)] = states
        return full


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout and gradients; the mode of the model is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def logits_at(model: PreTrainedModel, positions: Positions, *, narrow: bool = False, **inputs: Any) -> Tensor:
    """Run the model on ``inputs`` and apply the output embedding at ``positions`` alone.

    Args:
        narrow: in the last layer, compute queries, the attention's output projection and the MLP at these positions
            only, since nothing else depends on them. ``positions`` must then be those of each row. Without effect where
            gradients are recorded.

    Returns:
        Logits (…, vocabulary) in the shape of the positions.
    """
    with reading(model, positions, narrow=narrow):
        logits: Tensor = model(**{"use_cache": False, **inputs}).logits
    return logits


@contextmanager
def reading(model: PreTrainedModel, positions: Positions, *, narrow: bool = False) -> Iterator[None]:
    """In the body, a forward pass makes logits at ``positions`` alone; see `logits_at`."""
    shape: list[tuple[int, int]] = []

    def pick(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        claim.check()
        hidden, *others = args
        shape[:] = [(hidden.shape[0], hidden.shape[1])]
        return (positions.of(hidden), *others)

    def put(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return positions.put_back(output, *shape[0])

    with claimed(model) as claim, ExitStack() as stack:
        # padded positions repeat the last one, and in a backward pass each repetition would get its whole gradient
        for module in _position_wise(model) if narrow and not torch.is_grad_enabled() else ():
            stack.callback(module.register_forward_pre_hook(pick).remove)
            stack.callback(module.register_forward_hook(put).remove)
        stack.callback(model.get_output_embeddings().register_forward_pre_hook(pick).remove)
        yield


def _position_wise(model: PreTrainedModel) -> list[nn.Module]:
    """Modules of the last layer that work on each position by itself and that no later position depends on.

    Found by the names that most architectures use; an architecture without them computes all positions.
    """
    if not plain_stack(model):
        return []
    modules = dict(decoder_layers(model)[1][-1].named_modules())

    def linear(*names: str) -> bool:
        return all(isinstance(modules.get(name), nn.Linear) for name in names)

    found: list[nn.Module] = []
    if linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
        found += [modules["self_attn.q_proj"], modules["self_attn.o_proj"]]
    if linear("mlp.down_proj"):
        found.append(modules["mlp"])
    return found


def unembed(model: PreTrainedModel, body: Any, hidden: Tensor) -> Tensor:
    """Logits (b, c, vocabulary) of last hidden states (b, c, d), which ``body``, the output of the decoder, holds.

    The decoder does not run again: the model is called with a body that answers at once. For long texts, whose logits
    do not fit into memory at the same time.
    """
    decoder = model.base_model
    own = decoder.__dict__.get("forward")
    answer = type(body)(**{**body, "last_hidden_state": hidden})
    decoder.forward = lambda *args, **kwargs: answer
    ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=model.device)
    try:
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        if own is None:
            del decoder.forward
        else:
            decoder.forward = own
    return logits


def plain_stack(model: PreTrainedModel) -> bool:
    """Whether layers hand on hidden states alone. Some architectures hand keys or further streams past them."""
    config = model.config.get_text_config()
    return not (getattr(config, "num_kv_shared_layers", 0) or getattr(config, "altup_num_inputs", 0))


def first_own_layer(model: PreTrainedModel, intervention: Intervention) -> int:
    """The first decoder layer that has to see every strength; 0 when rows must be repeated at the input.

    That is so when something outside the layers is steered (it may run before them), and where repeating the
    hidden states alone is not enough.
    """
    return first_layer(model, intervention) if plain_stack(model) else 0


@contextmanager
def repeated_from(model: PreTrainedModel, first: int, n: int, k: int) -> Iterator[None]:
    """Repeat the hidden states (n, t, d) to (n·k, t, d) on their way into layer ``first``.

    The model prepares masks and position embeddings for n rows, so every later layer gets those repeated as
    well where they are per row; those shared by all rows have a batch dimension of 1 and broadcast.
    """
    if first == 0 or k == 1:
        yield
        return
    _, layers = decoder_layers(model)
    # all layers are given the same objects: by id, the object (kept, so that no other gets its id) and its repetition
    done: dict[int, tuple[Tensor, Tensor]] = {}

    def repeat(value: Any, tokens: int) -> Any:
        if isinstance(value, Tensor):
            if n == 1 or value.ndim < 2 or value.shape[0] != n or tokens not in value.shape[1:]:
                return value
            if id(value) not in done:
                done[id(value)] = (value, value.repeat_interleave(k, 0))
            return done[id(value)][1]
        if isinstance(value, tuple):
            return tuple(repeat(part, tokens) for part in value)
        return value

    def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        claim.check()
        hidden, *others = args
        tokens = hidden.shape[1]
        if layer is layers[first]:
            hidden = hidden.repeat_interleave(k, 0)
        others = [repeat(value, tokens) for value in others]
        return (hidden, *others), {name: repeat(value, tokens) for name, value in kwargs.items()}

    with claimed(model) as claim, ExitStack() as stack:
        for layer in layers[first:]:
            stack.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
        yield

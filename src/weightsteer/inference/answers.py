"""One forward pass: the logits at the answer positions of a batch of packs, for every strength.

What does not depend on the strength is computed once: hidden states below the first steered layer are repeated
for the K strengths on their way into it. What no answer depends on is not computed: the output embedding, and in
the last layer the queries, the attention's output projection and the MLP, see the answer positions alone.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.inference.packing import Pack, visible
from weightsteer.models import decoder_layers
from weightsteer.steering import Intervention, first_layer, steer
from weightsteer.steering.claims import claimed


def answer_logits(
    model: PreTrainedModel,
    intervention: Intervention | None,
    packs: Sequence[Pack],
    alphas: Tensor,
    *,
    other_base: bool = False,
) -> Tensor:
    """Logits at the answer positions for every strength: (rows, k, vocabulary), rows in the order of the packs.

    Packs are padded on the right, after all answers, where a causal model does not see it. Where no pack
    branches there is no mask, and the fast causal kernels stay in use.
    """
    n, k, tokens = len(packs), len(alphas), max(len(one.ids) for one in packs)
    device = model.device
    # padded with the pack's own last token: some models warn of the official padding token
    batch = torch.tensor([_padded(one.ids, tokens) for one in packs], device=device)
    most = max(len(one.answers) for one in packs)
    answers = torch.tensor([_padded(one.answers, most) for one in packs], device=device)
    inputs: dict[str, Tensor] = {"input_ids": batch}
    if any(one.branches for one in packs):
        inputs["position_ids"] = torch.tensor([_padded(one.positions, tokens) for one in packs], device=device)
        inputs["attention_mask"] = _mask(model, packs, tokens)
    first = first_own_layer(model, intervention) if intervention else 0
    if first == 0:
        inputs = {name: value.repeat_interleave(k, 0) for name, value in inputs.items()}
    with (
        repeated_from(model, first, n, k),
        steer(model, intervention, alphas.repeat(n), other_base=other_base) if intervention else nullcontext(),
        _only_at(model, answers.repeat_interleave(k, 0)),
    ):
        logits = model(**inputs, use_cache=False).logits
    held = torch.tensor([at < len(one.answers) for one in packs for at in range(most)], device=device)
    return logits.view(n, k, most, -1).transpose(1, 2).reshape(n * most, k, -1)[held]


def _padded(values: list[int], length: int) -> list[int]:
    return values + values[-1:] * (length - len(values))


def _mask(model: PreTrainedModel, packs: Sequence[Pack], tokens: int) -> Tensor:
    """What is added to the attention scores (n, 1, tokens, tokens): 0 where a key is seen."""
    seen = torch.from_numpy(visible(packs, tokens)).to(model.device).unsqueeze(1)
    return torch.zeros(seen.shape, dtype=model.dtype, device=model.device).masked_fill(
        ~seen, torch.finfo(model.dtype).min
    )


def shares_prefixes(model: PreTrainedModel, tokens: int) -> bool:
    """Whether this model computes a pack of rows of at most ``tokens`` tokens as it would compute each row.

    It must take positions and a mask of our own, and mix tokens by attention to all earlier ones alone:
    recurrent layers, windows shorter than a row and positions that are counted rather than given are out.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds or not getattr(config, "layer_types", None)
    return (
        kinds <= {"full_attention", "sliding_attention"}
        and not (slides and window is not None and window < tokens)
        and config._attn_implementation in ("eager", "sdpa")
        and bool(getattr(model, "_supports_attention_backend", False))
        and not getattr(config, "alibi", False)
        and "position_ids" in inspect.signature(model.forward).parameters
        and _plain_stack(model)
    )


def _plain_stack(model: PreTrainedModel) -> bool:
    """Whether layers hand on hidden states alone. Some architectures hand keys or further streams past them."""
    config = model.config.get_text_config()
    return not (getattr(config, "num_kv_shared_layers", 0) or getattr(config, "altup_num_inputs", 0))


def first_own_layer(model: PreTrainedModel, intervention: Intervention) -> int:
    """The first decoder layer that has to see every strength; 0 when rows must be repeated at the input.

    That is so when something outside the layers is steered (it may run before them), and where repeating the
    hidden states alone is not enough.
    """
    return first_layer(model, intervention) if _plain_stack(model) else 0


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


@contextmanager
def _only_at(model: PreTrainedModel, positions: Tensor) -> Iterator[None]:
    """Compute only what the answer positions (b, m) need where positions do not mix any more.

    The output embedding is given those positions alone: (b, t, d) → (b, m, d). In the last layer the modules of
    `_answering` are too, and their results are put back at these positions among zeros, which nothing reads.
    """
    rows = torch.arange(len(positions), device=positions.device)[:, None]
    tokens: list[int] = []

    def pick(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        claim.check()
        hidden, *others = args
        tokens[:] = [hidden.shape[1]]
        return (hidden[rows.to(hidden.device), positions.to(hidden.device)], *others)

    def put(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        full = output.new_zeros(len(positions), tokens[0], output.shape[-1])
        full[rows.to(output.device), positions.to(output.device)] = output
        return full

    with claimed(model) as claim, ExitStack() as stack:
        for module in _answering(model):
            stack.callback(module.register_forward_pre_hook(pick).remove)
            stack.callback(module.register_forward_hook(put).remove)
        stack.callback(model.get_output_embeddings().register_forward_pre_hook(pick).remove)
        yield


def _answering(model: PreTrainedModel) -> list[nn.Module]:
    """Modules of the last layer that work on each position by itself and that only the answers depend on.

    Found by the names that most architectures use; an architecture without them computes all positions.
    """
    if not _plain_stack(model):
        return []
    layer = decoder_layers(model)[1][-1]
    modules = dict(layer.named_modules())

    def linear(*names: str) -> bool:
        return all(isinstance(modules.get(name), nn.Linear) for name in names)

    found: list[nn.Module] = []
    if linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
        found += [modules["self_attn.q_proj"], modules["self_attn.o_proj"]]
    if linear("mlp.down_proj"):
        found.append(modules["mlp"])
    return found

"""What the activation tests share: pairs, models whose truth is known, and plain ways to the same numbers."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager

import polars as pl
import torch
from tiny import tiny
from torch import Tensor
from transformers import PreTrainedModel

from weightsteer.models import decoder_layers

ARCHITECTURES = ("qwen3", "llama", "gemma", "mistral")

QUESTIONS = (
    "Tell me about rivers.",
    "Is the sky green?",
    "Do you agree?",
    "Is the house red? Tell me.",
    "And the cat?",
)


def pairs(
    answers: Sequence[tuple[str, str]] = (("Yes", "No"), (" Yes, the truth", "No, stones and bread")),
) -> pl.DataFrame:
    """Every question with every pair of answers, under opposite personas."""
    rows = [
        {
            "prompt": question,
            "response_pos": positive,
            "response_neg": negative,
            "sys_prompt_pos": "You are an honest person.",
            "sys_prompt_neg": "You are a lying person.",
            "behavior": "honesty",
        }
        for question in QUESTIONS
        for positive, negative in answers
    ]
    return pl.DataFrame(rows)


def passing(layers: int = 4) -> tuple[PreTrainedModel, object]:
    """A model whose blocks add nothing: the state at every depth is the token's embedding plus what steers it."""
    model, tokenizer = tiny("qwen3", layers=layers)
    with torch.no_grad():
        for block in decoder_layers(model)[1]:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return model, tokenizer


def hidden_states(model: PreTrainedModel, ids: Tensor, **options: Tensor) -> tuple[Tensor, ...]:
    """The model's own record: entry l + 1 is the output of block l, the last one normalised."""
    with torch.no_grad():
        return model(input_ids=ids, output_hidden_states=True, use_cache=False, **options).hidden_states


@contextmanager
def plain_hooks(model: PreTrainedModel, change: Callable[[int, Tensor], Tensor]):
    """``change(layer, output)`` in place of every block's output: activation addition in a few lines."""

    def hook(layer: int):
        def replace(module, args, output):
            if isinstance(output, tuple):
                return (change(layer, output[0]), *output[1:])
            return change(layer, output)

        return replace

    handles = [block.register_forward_hook(hook(layer)) for layer, block in enumerate(decoder_layers(model)[1])]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

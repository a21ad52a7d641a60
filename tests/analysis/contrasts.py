"""What the tests of bases share: vectors, pairs, a model that adds nothing, plain ways to the same numbers."""

from collections.abc import Callable
from contextlib import contextmanager

import polars as pl
import torch
from tiny import tiny
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.models import decoder_layers, weight_hash
from weightsteer.terms import LowRank, Sum
from weightsteer.vector import WeightVector

ANSWERS = (("Yes", "No"), (" Yes, the truth", "No, stones and bread"), ("1 2", "the old cat"), ("A", "B, winter"))
_QUESTIONS = ("Tell me about rivers.", "Is the sky green?", "Do you agree?", "Is the house red?", "And the cat?")


def random_vector(model: PreTrainedModel, seed: int = 1, rank: int = 8) -> WeightVector:
    """A random low-rank delta of every linear module in the blocks, without the time that adapters take."""
    generator = torch.Generator().manual_seed(seed)
    terms = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            d_out, d_in = module.weight.shape
            B, A = torch.randn(d_out, rank, generator=generator), torch.randn(rank, d_in, generator=generator)
            terms[name] = Sum((d_out, d_in), [(0.02, LowRank(B, A))])
    base = {"name": model.name_or_path, "hash": weight_hash(model)}
    return WeightVector(terms, {"adapter": "lora", "seed": seed, "base": base})


def pairs(answers: tuple[tuple[str, str], ...] = ANSWERS) -> pl.DataFrame:
    """Every question with every pair of answers, under opposite personas."""
    return pl.DataFrame(
        [
            {
                "prompt": question,
                "response_pos": positive,
                "response_neg": negative,
                "sys_prompt_pos": "You are an honest person.",
                "sys_prompt_neg": "You are a lying person.",
            }
            for question in _QUESTIONS
            for positive, negative in answers
        ]
    )


def passing() -> tuple[PreTrainedModel, object]:
    """A model of four blocks that add nothing: the stream is the token's embedding at every depth."""
    model, tokenizer = tiny("qwen3", layers=4)
    with torch.no_grad():
        for block in decoder_layers(model)[1]:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return model, tokenizer


def hidden_states(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, ...]:
    """The model's own record: entry l + 1 is the output of block l, the last one normalised."""
    with torch.no_grad():
        return model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states


@contextmanager
def last_block(model: PreTrainedModel, change: Callable[[Tensor], Tensor]):
    """``change(output)`` in place of the output of the last block."""

    def hook(module, args, output):
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = decoder_layers(model)[1][-1].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()

"""Decoding: one row's tokens depend on its own prompt and random numbers, and on nothing else."""

import numpy as np
import pytest
import torch
from sweeps import Shift
from tiny import talker, tiny
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from weightsteer.errors import WeightsteerError
from weightsteer.inference.sampling import Sampling, choose, greedy, sample, stop_ids, turn_end, uniforms
from weightsteer.models import render_chat
from weightsteer.steering import steer

QUESTIONS = ("Hi", "How are you?", "Is the house red, and the cat old?", "Tell me about rivers.")


class TestChoose:
    @pytest.mark.parametrize(
        "sampling",
        [Sampling(1.0, 1.0, 0, 1), Sampling(0.7, 1.0, 5, 1), Sampling(1.3, 0.8, 0, 1), Sampling(0.6, 0.9, 8, 1)],
    )
    def test_distribution(self, sampling: Sampling) -> None:
        """Over a fine grid of u the share of each token is its probability under the usual warpers."""
        logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)) * 2
        warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
        if sampling.top_k:
            warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            warpers.append(TopPLogitsWarper(sampling.top_p))
        expected = warpers(None, logits.clone()).softmax(-1)[0]
        n = 20_000
        u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        tokens = choose(logits.expand(n, -1), u, sampling)
        shares = torch.bincount(tokens, minlength=40) / n
        # inverting a cumulative distribution on a grid is off by less than one grid step at either end
        assert (shares - expected).abs().max() < 2 / n + 1e-6

    def test_greedy(self) -> None:
        """Temperature 0 takes the likeliest token whatever u says."""
        logits = torch.randn(5, 40)
        assert torch.equal(choose(logits, torch.rand(5).double(), Sampling(0, 1.0, 0, 1)), logits.argmax(-1))

    def test_branches_share_randomness(self) -> None:
        """Nearly equal distributions draw nearly always the same token from the same number: noise cancels in dW."""
        torch.manual_seed(0)
        logits = torch.randn(2000, 40)
        u = torch.rand(2000, dtype=torch.float64)
        nudged = logits + 0.05 * torch.randn_like(logits)
        same = (choose(logits, u, Sampling(1, 1, 0, 1)) == choose(nudged, u, Sampling(1, 1, 0, 1))).double().mean()
        fresh = (
            (choose(logits, u, Sampling(1, 1, 0, 1)) == choose(nudged, u.flip(0), Sampling(1, 1, 0, 1))).double().mean()
        )
        assert same > 0.8 > 0.2 > fresh

    @pytest.mark.parametrize(
        ("field", "value"), [("temperature", -1), ("top_p", 0), ("top_k", -1), ("max_new_tokens", 0)]
    )
    def test_out_of_range(self, field: str, value: float) -> None:
        """A setting that means nothing is refused by name."""
        settings = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 1, field: value}
        with pytest.raises(WeightsteerError, match=field):
            Sampling(**settings)


def test_uniforms_are_a_stream() -> None:
    """More new tokens must not change the beginning of an answer, and each sample has numbers of its own."""
    assert np.array_equal(uniforms((0, 1, 2, 3), 50)[:8], uniforms((0, 1, 2, 3), 8))
    assert not np.array_equal(uniforms((0, 1, 2, 3), 8), uniforms((0, 1, 2, 4), 8))
    assert not np.array_equal(uniforms((0, 1, 2, 3), 8), uniforms((1, 1, 2, 3), 8))


def alone(
    model: PreTrainedModel, prompt: list[int], numbers: np.ndarray, sampling: Sampling, stops: list[int]
) -> list[int]:
    """One row, no cache, no padding: the whole text through the model for every token."""
    said: list[int] = []
    for u in numbers:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + said]), use_cache=False).logits[:, -1].float()
        said.append(int(choose(logits, torch.tensor([u], dtype=torch.float64), sampling)))
        if said[-1] in stops:
            break
    return said


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma", "mistral", "gemma3_text"])
def test_sample_equals_one_row_at_a_time(arch: str) -> None:
    """Left padding, the cache, the shared prefill and the dropping of finished rows must not change an answer."""
    model, tokenizer = talker(arch)
    stops = stop_ids(model, tokenizer)
    chats = [[{"role": "user", "content": text}] for text in QUESTIONS]
    prompts = [render_chat(tokenizer, chat) for chat in chats]
    owners = [0, 0, 1, 1, 1, 2, 3, 3]
    numbers = np.stack([uniforms((7, row), 10) for row in range(len(owners))])
    sampling = Sampling(1.0, 0.95, 0, 10)
    drawn = sample(model, prompts, owners, numbers, sampling, stops)
    expected = [alone(model, prompts[owner], numbers[row], sampling, stops) for row, owner in enumerate(owners)]
    assert drawn == expected
    assert len({len(ids) for ids in drawn}) > 2


@pytest.mark.parametrize("arch", ["qwen3", "gemma3_text"])
def test_greedy_decoding_keeps_the_strength_of_each_row(arch: str) -> None:
    """Rows that leave a steered batch would hand their strengths to the rows that stay."""
    model, tokenizer = tiny(arch)
    prompts = [render_chat(tokenizer, [{"role": "user", "content": text}]) for text in QUESTIONS]
    alphas, intervention = [-2.0, 0.0, 1.0, 3.0], Shift(["model.layers.1"])
    likeliest = Sampling(0, 1.0, 0, 10)

    def one_by_one(strengths: list[float], stops: list[int]) -> list[list[int]]:
        found = []
        for prompt, alpha in zip(prompts, strengths, strict=True):
            with steer(model, intervention, alpha):
                found.append(alone(model, prompt, np.zeros(10), likeliest, stops))
        return found

    stops = sorted({ids[0] for ids in one_by_one(alphas, [])[:2]})  # what two of the rows say first
    expected = one_by_one(alphas, stops)
    assert {len(ids) for ids in expected} == {1, 10}
    with steer(model, intervention, alphas):
        assert greedy(model, prompts, 10, stops, steered=True) == expected
    assert greedy(model, prompts, 10, stops) == one_by_one([0.0] * 4, stops)


def test_turn_end_is_the_templates() -> None:
    """Where the turn ends with another token than the tokenizer's eos (Gemma), that one must be learned."""
    model, tokenizer = tiny("qwen3")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn_end(model, tokenizer) == end
    tokenizer.eos_token = "<|endoftext|>"
    model.generation_config.eos_token_id = [end]
    assert stop_ids(model, tokenizer) == sorted([end, tokenizer.eos_token_id])
    assert turn_end(model, tokenizer) == end
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    assert turn_end(model, tokenizer) == tokenizer.eos_token_id

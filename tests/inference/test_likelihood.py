"""Log-probabilities of answers: the right tokens, whatever the batch, and with shared beginnings."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from gaming_runs import taught
from tiny import tiny

from weightsteer.errors import WeightsteerError
from weightsteer.inference.likelihood import (
    Answered,
    answer_logprobs,
    answered,
    grouped_log_likelihood,
    log_likelihood,
)
from weightsteer.training.together import each_with_its_own


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma2", "mistral"])
def test_padding_does_not_matter(arch: str) -> None:
    """A row has the same likelihood alone, in a batch of longer ones (right padding, no mask), and twice."""
    model, tokenizer = tiny(arch)
    texts = ["Yes", "No, the cat is old and the house is red.", "rivers, stones"]
    rows = [answered(tokenizer, [{"role": "user", "content": text * 2}], text, 3) for text in texts]
    single = [answer_logprobs(model, [row], shown=False)[0] for row in rows]
    assert answer_logprobs(model, rows, shown=False) == pytest.approx(single, abs=1e-4)
    twice = answer_logprobs(model, [*rows, *rows[::-1]], shown=False)
    assert twice == pytest.approx([*single, *single[::-1]], abs=1e-4)
    with torch.no_grad():
        logp = model(torch.tensor([rows[1].ids])).logits.log_softmax(-1)[0]
    plain = sum(float(logp[i - 1, rows[1].ids[i]]) for i in range(rows[1].start, rows[1].length))
    assert single[1] == pytest.approx(plain, abs=1e-4)


def test_only_answer_tokens_count() -> None:
    """The loss covers exactly the answer and its end: a mask off by one would teach the prompt."""
    model, tokenizer = tiny("qwen3")
    row = answered(tokenizer, [{"role": "user", "content": "Do you agree?"}], "Yes No", 3)
    assert tokenizer.decode(row.ids[row.start :]) == "Yes No<|im_end|>"
    assert tokenizer.decode(row.ids[: row.start]).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    values, owner = log_likelihood(model, [row])
    assert len(values) == row.length - row.start
    assert owner.tolist() == [0] * len(values)


def test_thinking_stands_in_the_prompt_once() -> None:
    """A thinking answer follows the open prompt it was sampled from: no second, empty thinking block."""
    _, tokenizer = tiny("qwen3")
    chat = [{"role": "user", "content": "Do you agree?"}]
    row = answered(tokenizer, chat, "<think>No</think>Yes", 3, thinking=True)
    assert tokenizer.decode(row.ids).count("<think>") == 1
    assert tokenizer.decode(row.ids[row.start :]) == "<think>No</think>Yes<|im_end|>"


def test_refuses_a_cut_inside_a_token() -> None:
    """When prompt and answer share a token there is no right mask; training off by one must not start."""
    _, tokenizer = tiny("qwen3")
    tokenizer.chat_template = "{{ messages[0]['content'] }} {% if add_generation_prompt %}My answer: Ye{% endif %}"
    with pytest.raises(WeightsteerError, match="cannot be cut"):
        answered(tokenizer, [{"role": "user", "content": "Do you agree?"}], "s", 3)


def stacked(model: torch.nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: (
            torch.randn(2, 2, module.in_features, generator=generator).mul(0.1).requires_grad_(),
            torch.randn(2, module.out_features, 2, generator=generator).mul(0.1).requires_grad_(),
        )
        for name, module in model.named_modules()
        if name.endswith(("q_proj", "down_proj"))
    }


def test_values_and_gradients_are_those_of_whole_rows(tmp_path: Path) -> None:
    """Keys and values that lose their gradients would train the adapters on answers alone, without a word."""
    model, _, learners = taught(tmp_path)
    rows = [row for learner in learners for row in learner.rows[:4]]
    groups = torch.tensor([0] * 4 + [1] * 4)
    found = []
    for shared in (True, False):
        factors = stacked(model)
        active = partial(each_with_its_own, model, factors, 2.0)
        if shared:
            values, owner = grouped_log_likelihood(model, rows, groups, active)
        else:
            with active(groups):
                values, owner = log_likelihood(model, rows)
        (values * (1 + owner)).sum().backward()
        found.append((values.detach(), [tensor.grad for pair in factors.values() for tensor in pair]))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-4, rtol=1e-4)
    for shared_grad, whole_grad in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(shared_grad, whole_grad, atol=1e-3, rtol=1e-3)


def test_the_beginning_is_computed_once_per_group(tmp_path: Path) -> None:
    """Every row would compute the beginning again, and joint training would save nothing."""
    model, _, learners = taught(tmp_path)
    rows = list(learners[0].rows[:6])
    tokens: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda m, args, out: tokens.append(args[0].numel()))
    try:
        grouped_log_likelihood(model, rows, torch.zeros(6, dtype=torch.long), lambda groups: nullcontext())
    finally:
        handle.remove()
    assert sum(tokens) < 0.6 * 6 * max(row.length for row in rows)


@pytest.mark.parametrize("rows", [[Answered([5, 6, 7], 1), Answered([8, 6, 7], 1)], [Answered([5, 6, 7, 9], 2)] * 2])
def test_rows_without_a_common_beginning_and_rows_that_are_equal(rows: list[Answered]) -> None:
    """The edges of "how much do they share": nothing, and everything up to the answer."""
    model, _ = tiny("qwen2")
    groups = torch.zeros(len(rows), dtype=torch.long)
    found, _ = grouped_log_likelihood(model, rows, groups, lambda groups: nullcontext())
    torch.testing.assert_close(found, log_likelihood(model, rows)[0], atol=1e-5, rtol=1e-5)

"""Gradients of log-ratios, against what autograd says of the strength of steering: a path of its own."""

import pytest
import torch
from steered import mixture
from sweeps import some_items, twins
from tiny import tiny
from torch import nn

from weightsteer.activation import ActivationVector
from weightsteer.inference import gradients
from weightsteer.inference.answers import answer_logits, choice_table, score_choices
from weightsteer.inference.gradients import SHIFT, WEIGHT, NoGradient, logratio_gradients
from weightsteer.inference.prefixes import pack
from weightsteer.measure.strengths import rendered

ITEMS = [*some_items(), *twins()]
WEIGHTS = [(-1.0) ** at / (at + 2) for at in range(len(ITEMS))]


def rows_of(tokenizer):
    rows = [rendered(tokenizer, None, item.messages, 0.0, answer_prefix=item.answer_prefix) for item in ITEMS]
    return rows, choice_table(tokenizer, [item.choices for item in ITEMS])


def slope_by_strength(model, vector, rows, choices) -> float:
    """∂/∂α of the weighted sum of log-ratios at α = 0, row by row, through `steer`."""
    alpha = torch.zeros(1, requires_grad=True)
    total = torch.zeros(())
    for at, row in enumerate(rows):
        (alone,) = pack([row], [0], 0, 10_000, 1)
        logits = answer_logits(model, vector, [alone], alpha)[:, 0]
        total = total + WEIGHTS[at] * score_choices(logits, choices[[at]]).logratio.sum()
    return float(torch.autograd.grad(total, alpha)[0])


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma", "mistral"])
def test_the_slope_of_any_vector_is_its_product_with_the_gradient(arch):
    """Every form of a delta, gains and biases included, over padded batches of packs and of single rows: a wrong
    gradient would make every null and every z wrong without any other sign."""
    model, tokenizer = tiny(arch)
    skipped = ("embed_tokens", "lm_head")  # tied in some of these models: refused
    vector = mixture(model).drop("*embed*") if any("embed" in name for name in mixture(model).names) else mixture(model)
    assert not [name for name in vector.names if name.endswith(skipped)]
    keys = [(name, WEIGHT) for name in vector.names]
    keys += [(name, SHIFT) for name in vector.names if vector.bias_delta(name) is not None]
    assert any(part == SHIFT for _, part in keys)
    rows, choices = rows_of(tokenizer)
    found = logratio_gradients(model, rows, choices, WEIGHTS, keys)
    deltas = {(name, WEIGHT): vector.delta(name) for name in vector.names}
    deltas |= {key: vector.bias_delta(key[0]) for key in keys if key[1] == SHIFT}
    slope = sum(float((found[key].double() * deltas[key].double().view(found[key].shape)).sum()) for key in keys)
    assert slope == pytest.approx(slope_by_strength(model, vector, rows, choices), rel=1e-4, abs=1e-5)


def test_the_slope_of_a_direction_in_the_residual_stream():
    """Summed over all positions of prompt and prefix: a gradient at the last position alone would miss most of it."""
    model, tokenizer = tiny("llama")
    width = model.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    directions = {f"model.layers.{layer}": torch.randn(width, generator=generator) for layer in (0, 2)}
    vector = ActivationVector(directions, {})
    rows, choices = rows_of(tokenizer)
    found = logratio_gradients(model, rows, choices, WEIGHTS, [(name, SHIFT) for name in directions])
    slope = sum(float(found[name, SHIFT] @ direction) for name, direction in directions.items())
    assert slope == pytest.approx(slope_by_strength(model, vector, rows, choices), rel=1e-4, abs=1e-5)


def test_nothing_of_the_batches_enters(monkeypatch):
    """Rows one by one and rows in large batches: padding repeats positions, whose gradients must count once."""
    model, tokenizer = tiny("qwen3")
    rows, choices = rows_of(tokenizer)
    key = ("model.layers.3.mlp.down_proj", WEIGHT)
    together = logratio_gradients(model, rows, choices, WEIGHTS, [key])[key]
    monkeypatch.setattr(gradients, "ACTIVATIONS", 1)
    monkeypatch.setattr(gradients, "shares_prefixes", lambda *_: False)
    alone = logratio_gradients(model, rows, choices, WEIGHTS, [key])[key]
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-6 * float(alone.abs().max()))


def test_the_model_is_left_as_it_was():
    """A model that keeps gradients, trains, or asks for others afterwards would fill memory or change silently."""
    model, tokenizer = tiny("qwen3")
    model.train()
    first = next(model.parameters())
    first.requires_grad_(True)
    before = [parameter.requires_grad for parameter in model.parameters()]
    rows, choices = rows_of(tokenizer)
    logratio_gradients(
        model, rows, choices, WEIGHTS, [("model.layers.1.mlp.up_proj", WEIGHT), ("model.layers.1", SHIFT)]
    )
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_without_a_gradient_of_their_own_are_refused():
    """A tied weight has the gradient of both its uses, a quantised one none: their null would be another vector's."""
    model, tokenizer = tiny("gemma")
    rows, choices = rows_of(tokenizer)
    with pytest.raises(NoGradient, match="share one weight"):
        logratio_gradients(model, rows, choices, WEIGHTS, [("model.embed_tokens", WEIGHT)])
    model, _ = tiny("llama")
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = nn.Parameter(torch.zeros(layer.weight.shape, dtype=torch.int8), requires_grad=False)
    with pytest.raises(NoGradient, match="quantised"):
        logratio_gradients(model, rows, choices, WEIGHTS, [("model.layers.0.mlp.up_proj", WEIGHT)])

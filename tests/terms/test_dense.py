from copy import deepcopy

import pytest
import torch
from forms import close, linear, random
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm, Gemma3TextScaledWordEmbedding
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from weightsteer.errors import WeightsteerError
from weightsteer.terms import Bias, Dense, Sum, matrix_shape

MODULES = {
    "linear": lambda: linear(6, 12),
    "conv1d": lambda: linear(6, 12, conv=True),
    "embedding": lambda: nn.Embedding(30, 12),
    "scaled embedding": lambda: Gemma3TextScaledWordEmbedding(30, 12, 0, embed_scale=3.5),
    "layer norm": lambda: nn.LayerNorm(12),
    "rms norm": lambda: LlamaRMSNorm(12),
    "gemma norm": lambda: Gemma3RMSNorm(12),
}


def made(name):
    module = MODULES[name]().requires_grad_(False)
    for i, parameter in enumerate(module.parameters()):
        parameter.copy_(random(*parameter.shape, seed=i))
    x = torch.randint(0, 30, (3, 4)) if "embedding" in name else random(3, 4, 12, seed=9)
    return module, Dense(random(*matrix_shape(module), seed=8)), x


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("alpha", [0.7, -2.0])
def test_steering_is_the_module_with_another_weight(name, alpha):
    """θ + α·D by definition, also where the output is (1 + w) x or a scaled row of a table."""
    module, term, x = made(name)
    changed = deepcopy(module)
    delta = term.values.T if name == "conv1d" else term.values.view(module.weight.shape)
    changed.weight += alpha * delta
    own = module(x)
    assert close(term.modifier(module)(x, own, own, torch.tensor(alpha)), changed(x), 1e-5)
    strengths = torch.tensor([0.0, alpha, 0.0])
    steered = term.modifier(module)(x, own, own, strengths)
    assert torch.equal(steered[[0, 2]], own[[0, 2]])
    assert close(steered[1], changed(x)[1], 1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_small_deltas_survive_half_precision(name):
    """In bf16 1 + w is 1 for w of 0.001: Gemma's norms would not be steered at all."""
    module, term, x = made(name)
    small = Dense(0.001 * term.values)
    exact = term.modifier(module)(x, module(x), torch.zeros_like(module(x)), torch.tensor(0.001)).double()
    half, x = deepcopy(module).bfloat16(), x.bfloat16() if x.is_floating_point() else x
    steered = small.modifier(half)(x, half(x), torch.zeros_like(half(x)), torch.tensor(1.0))
    assert steered.dtype == torch.bfloat16
    assert (steered.double() - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("name", ["linear", "embedding", "gemma norm"])
def test_hooks_and_weights_of_the_module_are_left_alone(name):
    """The module runs once more with other weights; a hook that ran again would count or steer twice."""
    module, term, x = made(name)
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    before = module.weight.clone()
    own = module(x)
    term.modifier(module)(x, own, own, torch.tensor(1.0))
    assert calls == [1]
    assert torch.equal(module.weight, before)


def test_gain_and_bias_of_a_norm_together():
    """A full fine-tune of a LayerNorm changes both."""
    module, term, x = made("layer norm")
    changed = deepcopy(module)
    changed.weight += 0.5 * term.values[:, 0]
    changed.bias += 0.5 * torch.ones(12)
    total = Sum((12, 1), [(1.0, term), (1.0, Bias(torch.ones(12), 1))])
    assert close(total.modifier(module)(x, module(x), module(x), torch.tensor(0.5)), changed(x), 1e-5)


def test_modules_of_several_inputs_are_refused():
    """Only the first input is at hand: a gated norm would be steered by an ungated one."""

    class Gated(LlamaRMSNorm):
        def forward(self, hidden_states, gate):
            return super().forward(hidden_states * gate)

    with pytest.raises(WeightsteerError, match="takes 2 inputs"):
        Dense(torch.ones(12, 1)).modifier(Gated(12))


def test_vectors_are_columns():
    """A gain as (1, d) would be broadcast against every weight."""
    with pytest.raises(ValueError, match=r"\(d, 1\)"):
        Dense(torch.ones(12))

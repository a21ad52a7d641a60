import pytest
import torch
from forms import close, linear, random
from peft import IA3Config, LoraConfig, get_peft_model
from torch import nn

from weightsteer.terms import BaseWeight, ColumnScale, LowRank, RowScale, Sum


def ia3(module: nn.Module, feedforward: bool) -> tuple[nn.Module, torch.Tensor]:
    """PEFT's own IA3 on a module, and its trained scale."""
    config = IA3Config(target_modules=["0"], feedforward_modules=["0"] if feedforward else [])
    model = get_peft_model(nn.Sequential(module), config)
    scale = model.base_model.model[0].ia3_l["default"]
    with torch.no_grad():
        scale.copy_(1 + 0.3 * random(*scale.shape))
    return model.eval(), scale.detach().flatten()


@pytest.mark.parametrize("bias", [True, False])
def test_rows_with_their_bias_are_ia3_on_outputs(bias):
    """IA3 scales the finished output of k and v, bias included: without it Qwen2 would be steered elsewhere."""
    module = linear(6, 12, bias=bias)
    base, x = BaseWeight.of(module), random(3, 4, 12)
    own = module(x)
    adapted, scale = ia3(module, feedforward=False)
    term = RowScale(scale - 1, base, bias=True)
    with torch.no_grad():
        assert close(term.modifier(module)(x, own, own, torch.tensor(1.0)), adapted(x), 1e-6)
    assert term.options == ({"bias": True} if bias else {})


@pytest.mark.parametrize("bias", [True, False])
def test_columns_are_ia3_on_inputs(bias):
    """IA3 scales what goes into down_proj."""
    module = linear(6, 12, bias=bias)
    base, x = BaseWeight.of(module), random(3, 4, 12)
    own = module(x)
    adapted, scale = ia3(module, feedforward=True)
    term = ColumnScale(scale - 1, base)
    with torch.no_grad():
        assert close(term.modifier(module)(x, own, own, torch.tensor(1.0)), adapted(x), 1e-6)
        assert close(module(term.input_modifier(module)(x, torch.tensor(1.0))), adapted(x), 1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_rows_without_the_bias_and_low_rank_are_dora(bias):
    """DoRA rescales the weight alone; its bias stays."""
    module = linear(6, 12, bias=bias)
    base, x = BaseWeight.of(module), random(3, 4, 12)
    own = module(x)
    config = LoraConfig(target_modules=["0"], r=2, lora_alpha=2, use_dora=True)
    adapted = get_peft_model(nn.Sequential(module), config).eval()
    layer = adapted.base_model.model[0]
    B, A = random(6, 2), random(2, 12, seed=1)
    magnitude = layer.lora_magnitude_vector["default"].weight
    with torch.no_grad():
        layer.lora_B["default"].weight.copy_(B)
        layer.lora_A["default"].weight.copy_(A)
        magnitude.mul_(1 + 0.3 * random(6))
        expected = adapted(x)
    gain = magnitude.detach() / (module.weight + B @ A).norm(dim=1)
    total = Sum((6, 12), [(1.0, RowScale(gain - 1, base)), (1.0, LowRank(gain[:, None] * B, A))])
    assert close(total.modifier(module)(x, own, own, torch.tensor(1.0)), expected, 1e-6)


def test_rows_with_and_without_bias_do_not_fuse():
    """They act on different things; one scale cannot hold both."""
    base = BaseWeight.of(linear(6, 12))
    total = Sum((6, 12), [(1.0, RowScale(torch.ones(6), base)), (1.0, RowScale(torch.ones(6), base, bias=True))])
    assert len(total.fused) == 2
    assert close(total.delta(), 2 * base.weight)
    assert close(total.bias_delta(), base.bias)


def test_scales_must_fit():
    """A scale of one value would be broadcast to all rows."""
    base = BaseWeight.of(linear(6, 12))
    for form, size in ((RowScale, 12), (ColumnScale, 6), (RowScale, 1)):
        with pytest.raises(ValueError, match="scale of shape"):
            form(torch.ones(size), base)

import pytest
import torch
from forms import case, close, linear, random
from torch import nn

from weightsteer.terms import Dense, LowRank


def test_one_product_in_half_precision():
    """y is added inside the last product: a second rounding would double the error of every steered module."""
    module = linear(32, 64).bfloat16()
    term = case("low_rank", module, rank=4).term
    x = random(20, 64).bfloat16()
    own = module(x)
    up, down = term.B.bfloat16(), term.A.bfloat16()
    inner = (x @ down.T).double()
    once = (own.double() + inner.bfloat16().double() @ up.double().T).bfloat16()
    steered = term.modifier(module)(x, own, own, torch.tensor(1.0))
    assert (steered == once).float().mean() > 0.99


def test_autocast_keeps_the_dtype_of_the_output():
    """Under autocast x is fp32 and y bf16: the hidden states must not turn to fp32 behind the first steered module."""
    module = linear(6, 12)
    term = case("low_rank", module).term
    x = random(3, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = module(x)
        steered = term.modifier(module)(x, own, own, torch.tensor(1.0))
    assert steered.dtype == own.dtype == torch.bfloat16
    assert close(steered, own + x @ term.delta().T, 0.02)


def test_an_embedding_is_looked_up():
    """A recompressed full fine-tune has low-rank deltas of tables too: ids cannot be multiplied."""
    module = nn.Embedding(20, 6).requires_grad_(False)
    term = LowRank(random(20, 2), random(2, 6, seed=1))
    ids = torch.tensor([[1, 19], [0, 3]])
    steered = term.modifier(module)(ids, module(ids), module(ids), torch.tensor(-0.5))
    assert close(steered, module(ids) - 0.5 * Dense(term.delta()).values[ids], 1e-6)


def test_factors_must_multiply():
    """Broadcast factors would make a matrix of another rank."""
    with pytest.raises(ValueError, match="do not multiply"):
        LowRank(torch.ones(3, 2), torch.ones(3, 4))


def test_quantised_modules_without_a_weight_are_steered():
    """GPTQ and HQQ modules have no `weight` at all; a LoRA vector needs only what goes in and comes out."""

    class Packed(nn.Module):
        in_features, out_features = 12, 6

    term = case("low_rank", linear(6, 12)).term
    x, own = random(3, 12), random(3, 6)
    steered = term.modifier(Packed())(x, own, own, torch.tensor(2.0))
    assert close(steered, own + 2 * x @ term.delta().T, 1e-5)

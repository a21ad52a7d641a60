from copy import deepcopy

import pytest
import torch
from forms import case, linear, random
from torch import nn
from transformers.pytorch_utils import Conv1D

from weightsteer.errors import WeightsteerError
from weightsteer.terms import BaseWeight, RowScale, Sum
from weightsteer.terms import base_weight as module_under_test
from weightsteer.terms.base_weight import common_base


def test_it_refers_to_the_model():
    """A copy of every base weight would double the memory of the model."""
    module = linear(6, 12)
    base = BaseWeight.of(module)
    assert base.weight.data_ptr() == module.weight.data_ptr()
    assert base.bias is module.bias
    assert base.shape == (6, 12)
    transposed = BaseWeight.of(linear(6, 12, conv=True))
    assert transposed.shape == transposed.weight.shape == (6, 12)


def test_digest_is_that_of_the_map():
    """The same checkpoint must be recognised in another dtype or layout, and no other one."""
    module = linear(6, 12).bfloat16()
    conv = Conv1D(6, 12)
    with torch.no_grad():
        conv.weight.copy_(module.weight.T)
        conv.bias.copy_(module.bias)
    digest = BaseWeight.of(module).digest
    assert BaseWeight.of(deepcopy(module).float()).digest == BaseWeight.of(conv).digest == digest
    for change in ("weight", "bias"):
        other = deepcopy(module)
        with torch.no_grad():
            getattr(other, change).view(-1)[-1] += 1
        assert BaseWeight.of(other).digest != digest
    assert BaseWeight.of(linear(6, 12, bias=False)).digest != BaseWeight.of(linear(6, 12)).digest


def merged(module):
    module.weight.data += 0.1 * random(*module.weight.shape)


def written(module):
    with torch.no_grad():
        module.weight[0, 0] += 1.0


def replaced(module):
    module.weight.data = module.weight.data * 1.5


def trained(module):
    module.requires_grad_(True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(random(3, 12)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("change", [merged, written, replaced, trained])
def test_a_changed_base_is_refused(change):
    """``diag(s) W`` of a W that was merged into is not what was trained; PEFT merges behind PyTorch's back."""
    module = linear(6, 12)
    term = case("row_scale", module).term
    change(module)
    with pytest.raises(WeightsteerError, match="changed in place"):
        term.columns(0, 12)
    with pytest.raises(WeightsteerError, match="changed in place"):
        term.modifier(module)


def test_moving_and_casting_without_loss_is_no_change():
    """``model.to(...)`` replaces every tensor; what was made on the model before must go on working."""
    module = linear(6, 12).bfloat16()
    term = case("row_scale", module).term
    before = term.delta()
    module.double()
    assert torch.equal(term.delta(), before)


def test_weights_are_hashed_once(monkeypatch):
    """Every steer() asks: hashing a model of billions of parameters each time would be the run time."""
    module = linear(6, 12)
    hashed = []

    class Counting:
        def blake2b(self, **options):
            hashed.append(options)
            return hashlib.blake2b(**options)

    import hashlib

    monkeypatch.setattr(module_under_test, "hashlib", Counting())
    for _ in range(3):
        base = BaseWeight.of(module)
        assert base.belongs_to(module)
        base.columns(0, 3)
        base.serve(module)
    assert len(hashed) == 1


def test_it_belongs_to_modules_of_the_same_weights():
    """The shortcut through the module's own output is right for those alone."""
    module = linear(6, 12)
    base = BaseWeight.of(module)
    assert base.belongs_to(module)
    assert base.belongs_to(deepcopy(module))
    assert not base.belongs_to(linear(6, 12, seed=1))
    assert not base.belongs_to(nn.Embedding(6, 12))
    served = base.serve(deepcopy(module).double())
    assert served.owned
    assert served.weight(torch.float64, torch.device("cpu"))[0].dtype == torch.float64
    assert not base.serve(linear(6, 12, seed=1)).owned


class Quantised(nn.Module):
    in_features, out_features = 12, 6

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Quantised(torch.zeros(6, 12, dtype=torch.int8)), "quantised"),
        (Quantised(torch.zeros(6, 12).to(torch.float8_e4m3fn)), "quantised"),
        (Quantised(torch.zeros(36, 1, dtype=torch.uint8)), "no plain matrix"),
        (nn.Linear(12, 6, device="meta"), "not in memory"),
        (nn.Embedding(6, 12), "no plain matrix"),
        (nn.LayerNorm(6), "no plain matrix"),
    ],
)
def test_weights_that_cannot_be_read_are_refused(module, reason):
    """Scales times packed 4-bit codes would be numbers that mean nothing."""
    with pytest.raises(WeightsteerError, match=reason):
        BaseWeight.of(module)


def test_an_unbound_base_says_what_to_do():
    """A file holds no base weight; the error must tell how to get it."""
    module = linear(6, 12)
    known = BaseWeight.of(module)
    unbound = BaseWeight(known.digest, known.shape)
    term = RowScale(torch.ones(6), unbound)
    assert not unbound.bound
    for use in (lambda: term.delta(), lambda: term.modifier(linear(6, 12, seed=1))):
        with pytest.raises(WeightsteerError, match=r"WeightVector\.load\(path, model\)"):
            use()
    with pytest.raises(WeightsteerError, match="another 6×12 base weight"):
        unbound.bind(linear(6, 12, seed=1))
    assert torch.equal(Sum((6, 12), [(1.0, term)]).bind(deepcopy(module)).delta(), module.weight)


def test_an_unbound_base_needs_no_binding_where_the_module_has_it():
    """A vector read without its model can steer that model: the module's own output is all it needs."""
    module = linear(6, 12)
    term = RowScale(torch.ones(6), BaseWeight(BaseWeight.of(module).digest, (6, 12)))
    x = random(2, 12)
    steered = term.modifier(module)(x, module(x), module(x), torch.tensor(-1.0))
    assert torch.allclose(steered, module.bias.expand(2, 6), atol=1e-6)


def test_the_common_base_is_one_and_bound_if_any_is():
    """Two vectors on different bases have no sum."""
    base = BaseWeight.of(linear(6, 12))
    unbound = BaseWeight(base.digest, base.shape)
    assert common_base([]) is None
    assert common_base([unbound, base]) is base
    assert common_base([base, unbound]) is base
    with pytest.raises(WeightsteerError, match="different base weights"):
        common_base([base, BaseWeight.of(linear(6, 12, seed=1))])

import pytest
import torch
from adapters_of import random_adapter, save_moved
from peft import PEFT_TYPE_TO_CONFIG_MAPPING
from tiny import tiny
from vectors import batch, logits, peft_logits

from weightsteer import adapters
from weightsteer.adapters import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import Bias
from weightsteer.vector import WeightVector

BIAS = adapters.get("bias")


def delta(folder, model):
    return BIAS.branch_delta(AdapterFolder.read(folder), model)


def test_only_the_bias_moves(tmp_path):
    """The matrix stays: what is exported or merged from it must not touch the weight."""
    model, _ = tiny("qwen3", layers=2)
    found = delta(random_adapter(BIAS, model, tmp_path), model)
    total = found["model.layers.1.mlp.down_proj"]
    assert [type(term) for term in total.fused] == [Bias]
    assert not total.delta().any()
    assert total.rank == 0
    assert total.bias_delta().norm() == pytest.approx(total.norm())


@pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias")
def test_modules_that_have_a_bias(tmp_path):
    """PEFT's own use, on value projections; Qwen2's have a bias to which it is added."""
    model, _ = tiny("qwen2", layers=2)
    folder = save_moved(model, BIAS.peft_config(4, 8, ["v_proj", "down_proj"]), tmp_path)
    ids = batch()
    with steer(model, WeightVector(delta(folder, model), {}), 1.0):
        found = logits(model, ids)
    assert (found - peft_logits(model, folder, ids)).abs().max() <= 1e-4


def test_layers_need_full_paths():
    """PEFT would ignore a slice of layers here."""
    with pytest.raises(WeightsteerError, match="full module paths"):
        BIAS.peft_config(4, 8, ["down_proj"], [0, 1])


def test_a_release_of_peft_without_it(tmp_path, monkeypatch):
    """Training needs the release that has it; folders trained elsewhere are still read."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(BIAS, model, tmp_path)
    expected = delta(folder, model)
    monkeypatch.delitem(PEFT_TYPE_TO_CONFIG_MAPPING, "BEFT")
    with pytest.raises(WeightsteerError, match=r"has no adapter of the type BEFT: install a later release"):
        BIAS.peft_config(4, 8, ["down_proj"])
    assert delta(folder, model) == expected
    assert torch.is_tensor(expected["model.layers.0.mlp.down_proj"].bias_delta())

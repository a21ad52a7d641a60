import pytest
import torch
from adapters_of import random_adapter, save_moved
from peft import IA3Config
from safetensors.torch import load_file, save_file
from tiny import tiny
from vectors import batch, logits, peft_logits

from weightsteer import adapters
from weightsteer.adapters import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import ColumnScale, RowScale
from weightsteer.vector import WeightVector

IA3 = adapters.get("ia3")
FILE = "adapter_model.safetensors"


def delta(folder, model):
    return IA3.branch_delta(AdapterFolder.read(folder), model)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
        {"target_modules": ["q_proj", "o_proj", "up_proj"], "feedforward_modules": []},
        {"target_modules": ["o_proj", "up_proj"], "feedforward_modules": ["o_proj", "up_proj"]},
        {"target_modules": r".*\.1\..*(k_proj|down_proj)", "feedforward_modules": r".*mlp\.down_proj"},
        {"target_modules": None, "feedforward_modules": None},
        {"target_modules": ["v_proj"], "feedforward_modules": [], "init_ia3_weights": False},
    ],
)
def test_variants_are_what_peft_computes(options, tmp_path):
    """Whichever way PEFT was told what is feed-forward: there it scales inputs, elsewhere outputs and biases."""
    model, _ = tiny("qwen2", layers=2)
    for layer in model.model.layers:  # a bias where inputs are scaled must not be scaled
        layer.self_attn.o_proj.bias = torch.nn.Parameter(torch.linspace(-1, 1, 32))
    folder = save_moved(model, IA3Config(task_type="CAUSAL_LM", **options), tmp_path)
    ids = batch()
    expected = peft_logits(model, folder, ids)
    with steer(model, WeightVector(delta(folder, model), {}), 1.0):
        found = logits(model, ids)
    assert (found - expected).abs().max() <= 1e-4
    assert (expected - logits(model, ids)).abs().max() > 0.1


def test_structure(tmp_path):
    """One number per row or column, no matrix; the biases of Qwen2's keys and values are scaled too."""
    model, _ = tiny("qwen2", layers=2)
    found = delta(random_adapter(IA3, model, tmp_path), model)
    kinds = {name.rsplit(".", 1)[-1]: type(total.terms[0][1]) for name, total in found.items()}
    assert kinds == {"k_proj": RowScale, "v_proj": RowScale, "down_proj": ColumnScale}
    assert found["model.layers.0.self_attn.k_proj"].bias_delta() is not None
    assert found["model.layers.0.mlp.down_proj"].bias_delta() is None


def test_layers_need_full_paths():
    """PEFT would ignore a slice of layers here, and the families would be compared on different layers."""
    with pytest.raises(WeightsteerError, match="full module paths"):
        IA3.peft_config(4, 8, ["k_proj"], [0, 1])
    paths = ["model.layers.1.self_attn.k_proj", "model.layers.1.mlp.down_proj"]
    config = IA3.peft_config(4, 8, paths)
    assert config.target_modules == set(paths)
    assert config.feedforward_modules == {paths[1]}


def test_scales_of_another_shape(tmp_path):
    """Neither a row of inputs nor a column of outputs."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(IA3, model, tmp_path)
    tensors = load_file(folder / FILE)
    name = "model.layers.1.self_attn.v_proj"
    tensors[f"base_model.model.{name}.ia3_l"] = torch.ones(16)
    save_file(tensors, folder / FILE)
    with pytest.raises(WeightsteerError, match=rf"ia3_l of {name} has shape \(16,\), but \(16, 1\) would fit"):
        delta(folder, model)

import pytest
import torch
from adapters_of import configure, random_adapter
from safetensors.torch import load_file, save_file
from tiny import tiny
from vectors import batch, logits, peft_logits

from weightsteer import adapters
from weightsteer.adapters import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import LowRank
from weightsteer.vector import WeightVector

DELORA = adapters.get("delora")
FILE = "adapter_model.safetensors"


def delta(folder, model):
    return DELORA.branch_delta(AdapterFolder.read(folder), model)


def agrees(folder, model) -> bool:
    ids = batch()
    with steer(model, WeightVector(delta(folder, model), {}), 1.0):
        found = logits(model, ids)
    return bool((found - peft_logits(model, folder, ids)).abs().max() <= 1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"rank_pattern": {"q_proj": 2}, "lambda_pattern": {r".*\.1\.mlp.*": 3}},
        {"delora_lambda": 0.5},
        {"module_dropout": 0.3},
        {"init_weights": False},
    ],
)
def test_variants_are_what_peft_computes(options, tmp_path):
    """r is in the formula, so a rank pattern read wrongly is a wrong scale."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(DELORA, model, tmp_path, **options)
    assert agrees(folder, model)


def test_column_norms_come_from_the_file_or_else_from_the_base(tmp_path):
    """The norms of the base the adapter was trained on; PEFT computes them anew where the file lacks them."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(DELORA, model, tmp_path)
    tensors = load_file(folder / FILE)
    assert sum("w_norm" in name for name in tensors) == 14, "PEFT stopped saving the norms"
    save_file({name: 2 * tensor if "w_norm" in name else tensor for name, tensor in tensors.items()}, folder / FILE)
    assert agrees(folder, model)
    doubled = delta(folder, model)
    save_file({name: tensor for name, tensor in tensors.items() if "w_norm" not in name}, folder / FILE)
    computed = delta(folder, model)
    for name, total in computed.items():
        assert torch.allclose(2 * total.delta(), doubled[name].delta(), atol=1e-5)
        assert [type(term) for _, term in total.terms] == [LowRank]


def test_tiny_factors_are_clamped_as_peft_does(tmp_path):
    """Below 1e-4 the norms are not divided out; without the clamp such a column would be blown up."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(DELORA, model, tmp_path)
    tensors = load_file(folder / FILE)
    for name, tensor in tensors.items():
        if "delora_B" in name:
            tensor[:, 0] *= 1e-6
        if "delora_A" in name:
            tensor[1] = 0.0
    save_file(tensors, folder / FILE)
    assert agrees(folder, model)


def test_a_rank_that_the_configuration_does_not_have(tmp_path):
    """r divides the scale: matrices and configuration must come from one run."""
    model, _ = tiny("qwen3", layers=2)
    folder = configure(random_adapter(DELORA, model, tmp_path), r=8)
    with pytest.raises(WeightsteerError, match="has rank 4 in the file but 8 in the configuration"):
        delta(folder, model)

from copy import deepcopy

import pytest
import torch
from tiny import random_lora, tiny
from torch import nn

from weightsteer.models import hashing, weight_hash
from weightsteer.models.fingerprint import fingerprint


def written(tensor):
    with torch.no_grad():
        tensor.add_(0.1)


def through_data(tensor):
    tensor.data += 0.1


def data_replaced(tensor):
    tensor.data = tensor.data + 0.1


def one_value(tensor):
    with torch.no_grad():
        tensor.view(-1)[1] = 7.0


@pytest.mark.parametrize("change", [written, through_data, data_replaced, one_value])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changes_are_noticed(change, dtype):
    """A cached hash that outlives its weights lets a vector steer another model. PyTorch does not count writes
    through `.data`, which is how PEFT merges."""
    tensors = [nn.Parameter(torch.randn(40, 50).to(dtype), requires_grad=False) for _ in range(3)]
    before = fingerprint(tensors)
    assert fingerprint(tensors) == before
    change(tensors[1])
    assert fingerprint(tensors) != before


def test_any_tensor_has_a_fingerprint():
    """NaN is not equal to itself, and inference tensors count nothing: neither may break or defeat the cache."""
    with torch.inference_mode():
        inference = torch.ones(3)
    odd = [torch.full((5,), torch.nan), inference, torch.empty(0), torch.tensor(1.0), torch.ones(4, 6).T]
    odd.append(torch.ones(6, dtype=torch.int8))
    assert fingerprint(odd) == fingerprint(odd)


def test_a_model_is_hashed_again_only_when_it_changed(monkeypatch):
    """Every steer() compares the hash: computed each time it would take longer than the forward pass."""
    model, _ = tiny("qwen3")
    hashed, real = [], hashing._hash

    def counting(parameters):
        hashed.append(1)
        return real(parameters)

    monkeypatch.setattr(hashing, "_hash", counting)
    first = weight_hash(model)
    assert weight_hash(model) == first
    assert len(hashed) == 1
    copy = deepcopy(model)
    assert weight_hash(copy) == first
    copy.model.layers[2].mlp.up_proj.weight.data += 0.01
    assert weight_hash(copy) != first
    assert weight_hash(model) == first
    assert len(hashed) == 3


def test_a_merged_adapter_is_another_model(tmp_path):
    """PEFT merges in place; the hash from before would call the merged weights the base."""
    from peft import PeftModel

    model, _ = tiny("qwen3")
    before = weight_hash(model)
    adapted = PeftModel.from_pretrained(model, str(random_lora(model, tmp_path, seed=1)))
    assert weight_hash(adapted) == weight_hash(adapted.base_model.model) == before
    adapted.merge_adapter()
    assert weight_hash(adapted) != before


def test_compiling_leaves_the_hash(tmp_path):
    """The wrapper renames every parameter, but the weights are the same."""
    model, _ = tiny("qwen3")
    assert weight_hash(torch.compile(model)) == weight_hash(model)

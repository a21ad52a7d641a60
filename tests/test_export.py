import json
from copy import deepcopy

import pytest
import torch
from tiny import random_lora, tiny
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from vectors import ARCHITECTURES, batch, logits, made, peft_logits, same_weights, vector_of, weights

from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import LowRank, Sum
from weightsteer.vector import WeightVector


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_plain_peft_reads_the_export(arch, tmp_path):
    """Whoever loads the folder without this package must get the same logits."""
    model, v = made(tmp_path, arch)
    folder = v.export_peft(tmp_path / "exported")
    ids = batch()
    exported = peft_logits(model, folder, ids)
    with steer(model, v, 1.0):
        assert (logits(model, ids) - exported).abs().max() <= 1e-4
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 8
    zero = random_lora(model, tmp_path / "zero", seed=0, std=0.0, rank=8)
    back = WeightVector.from_adapters(folder, zero, model)
    assert all(torch.allclose(back.delta(name), v.delta(name), atol=1e-6) for name in v.names)


def test_modules_of_different_ranks_are_padded(tmp_path):
    """Sums have other ranks here and there; runtimes that read no rank patterns need one rank."""
    model, v = made(tmp_path)
    u = vector_of(model, tmp_path, seed=5, rank=3, layers=[1], targets=["q_proj"])
    total = v - 0.5 * u + (v - v).keep(0)
    folder = total.export_peft(tmp_path / "exported")
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 14
    ids = batch()
    exported = peft_logits(model, folder, ids)
    with steer(model, total, 1.0):
        assert (logits(model, ids) - exported).abs().max() <= 1e-4
    nothing = (v - v).export_peft(tmp_path / "nothing")
    assert torch.equal(peft_logits(model, nothing, ids), logits(model, ids))


def test_the_same_vector_gives_the_same_bytes(tmp_path):
    """An export that differs from run to run cannot be content-addressed."""
    _, v = made(tmp_path)
    first, second = v.export_peft(tmp_path / "a"), v.export_peft(tmp_path / "b")
    files = sorted(path.name for path in first.iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors", "weightsteer.json"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    config = json.loads((first / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(v.names)


def test_merge_rounds_once(tmp_path):
    """In bf16 the sum is taken in fp32 and cast once; adding a rounded delta would round twice."""
    model, v = made(tmp_path)
    half = deepcopy(model).bfloat16()
    before = weights(half)
    v.merge_into(half, 0.7)
    for name in v.names:
        exact = before[f"{name}.weight"].float() + 0.7 * v.delta(name)
        assert torch.equal(half.get_submodule(name).weight, exact.bfloat16())
    untouched = set(before) - {f"{name}.weight" for name in v.names}
    assert all(torch.equal(before[name], half.get_parameter(name)) for name in untouched)


def test_merge_refuses_before_it_writes(tmp_path):
    """A half-merged model is no model at all."""
    model, _ = tiny("qwen3")
    v = vector_of(model, tmp_path, targets=["q_proj", "lm_head"])
    before = weights(model)
    with pytest.raises(WeightsteerError, match=r"lm_head shares its weight with model\.embed_tokens"):
        v.merge_into(model)
    assert same_weights(model, before)
    v.drop("lm_head").merge_into(model)
    assert not same_weights(model, before)

    quantised, _ = tiny("qwen3")
    packed = nn.Parameter(torch.zeros(32, 32, dtype=torch.uint8), requires_grad=False)
    quantised.model.layers[3].self_attn.q_proj.weight = packed
    first = quantised.model.layers[0].self_attn.q_proj.weight.clone()
    with pytest.raises(WeightsteerError, match="quantised"):
        v.keep("q_proj").merge_into(quantised)
    assert torch.equal(first, quantised.model.layers[0].self_attn.q_proj.weight)


def test_transposed_weights(tmp_path):
    """GPT-2 stores its weights the other way round: steering, merging and export must agree with PEFT."""
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, initializer_range=0.15)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    v = vector_of(model, tmp_path, targets=["c_attn", "c_fc"])
    assert v.delta("transformer.h.0.attn.c_attn").shape == (96, 32)
    zero = random_lora(model, tmp_path / "zero", seed=0, std=0.0, targets=["c_attn", "c_fc"])
    ids = batch() % 300
    branch = WeightVector.from_adapters(tmp_path / "positive1", zero, model)
    expected = peft_logits(model, tmp_path / "positive1", ids)
    with steer(model, branch, 1.0):
        assert (logits(model, ids) - expected).abs().max() <= 1e-4
    merged = deepcopy(model)
    v.merge_into(merged, -1.5)
    with steer(model, v, -1.5):
        assert (logits(model, ids) - logits(merged, ids)).abs().max() <= 1e-4
    exported = peft_logits(model, v.export_peft(tmp_path / "exported"), ids)
    with steer(model, v, 1.0):
        assert (logits(model, ids) - exported).abs().max() <= 1e-4


def test_export_keeps_the_name_of_the_base(tmp_path):
    """PEFT looks there for the base model; a path of this machine would mislead everyone else."""
    v = WeightVector(
        {"a": Sum((2, 3), [(2.0, LowRank(torch.ones(2, 1), torch.ones(1, 3)))])},
        {"base": {"name": "owner/model", "hash": "00"}},
    )
    folder = v.export_peft(tmp_path / "new" / "folder")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "owner/model"
    assert json.loads((folder / "weightsteer.json").read_text())["digest"] == v.digest

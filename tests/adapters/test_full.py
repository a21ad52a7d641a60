import json
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from vectors import batch, logits, same_weights, weights

from weightsteer import adapters
from weightsteer.adapters import AdapterFolder, full
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import Bias, Dense
from weightsteer.vector import WeightVector

ARCHITECTURES = ("qwen3", "llama", "gemma", "mistral", "qwen2")


@torch.no_grad()
def finetuned(model, seed: int, only: str = "", size: float = 0.05):
    """A copy whose parameters moved, as a full fine-tune would leave it."""
    branch = deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in branch.named_parameters():
        if only in name:
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return branch


def steered(model, pairs, ids):
    with steer(model, pairs):
        return logits(model, ids)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_both_branches_from_the_base_and_from_each_other(arch):
    """Every weight, bias, norm gain and embedding counts, tied ones wherever they are used."""
    model, _ = tiny(arch, layers=2)
    before, ids = weights(model), batch()
    plus, minus = finetuned(model, 1), finetuned(model, 2)
    positive, negative = (WeightVector(full.difference(branch, model), {}) for branch in (plus, minus))
    pair = WeightVector(full.difference(plus, minus), {})
    assert (logits(plus, ids) - logits(model, ids)).abs().max() > 0.5
    assert (steered(model, {positive: 1.0}, ids) - logits(plus, ids)).abs().max() <= 1e-4
    assert (steered(model, {negative: 1.0, pair: 1.0}, ids) - logits(plus, ids)).abs().max() <= 1e-4
    assert (steered(model, {positive: 1.0, pair: -1.0}, ids) - logits(minus, ids)).abs().max() <= 1e-4
    assert WeightVector(full.difference(minus, plus), {}) == -pair
    assert same_weights(model, before)


@pytest.mark.parametrize(("arch", "shards"), [("qwen3", None), ("llama", "20KB"), ("qwen2", "20KB")])
def test_folders_are_the_models_they_hold(arch, shards, tmp_path):
    """One file or shards with an index, tied weights saved once: the same delta, to the byte."""
    model, _ = tiny(arch, layers=2)
    branches = [finetuned(model, 1), finetuned(model, 2)]
    folders = [tmp_path / "p", tmp_path / "n"]
    for branch, folder in zip(branches, folders, strict=True):
        branch.save_pretrained(folder, **({"max_shard_size": shards} if shards else {}))
    assert (folders[0] / "model.safetensors.index.json").is_file() == bool(shards)
    assert full.difference(*folders) == full.difference(*branches)
    assert full.difference(folders[0], model) == full.difference(branches[0], model)
    assert full.difference(folders[0], branches[0]) == {}
    read = [AdapterFolder.read(folder) for folder in folders]
    family = adapters.family_of(read[0].config)
    assert family.name == "full"
    assert family.branch_delta(read[0], model) == full.difference(branches[0], model)
    assert family.pair_delta(*read, model) == full.difference(*branches)
    assert read[0].digest != read[1].digest


def test_a_pair_of_checkpoint_folders_is_a_vector(tmp_path):
    """What `weightsteer train --adapter full` writes goes the way of all adapters."""
    model, _ = tiny("qwen3", layers=2)
    plus, minus = finetuned(model, 1, only="mlp"), finetuned(model, 2, only="mlp")
    plus.save_pretrained(tmp_path / "p")
    minus.save_pretrained(tmp_path / "n")
    pair = WeightVector.from_adapters(tmp_path / "p", tmp_path / "n", model)
    assert pair.metadata["adapter"] == "full"
    assert len(pair.names) == 6
    assert pair == WeightVector(full.difference(plus, minus), {})


def test_only_what_differs_has_an_entry():
    """A slice of the layers was trained: the rest must not be stored, nor hooked."""
    model, _ = tiny("llama", layers=2)
    found = full.difference(finetuned(model, 1, only="layers.1.mlp"), model)
    assert sorted(found) == [f"model.layers.1.mlp.{name}_proj" for name in ("down", "gate", "up")]
    assert full.difference(model, deepcopy(model)) == {}


def test_tied_embeddings_appear_wherever_they_are_used():
    """Steering the lookup alone would leave the output head of the base in place."""
    model, _ = tiny("qwen3", layers=2)
    found = full.difference(finetuned(model, 1, only="embed_tokens"), model)
    assert sorted(found) == ["lm_head", "model.embed_tokens"]
    assert torch.equal(found["lm_head"].delta(), found["model.embed_tokens"].delta())


def test_biases_norms_and_transposed_weights():
    """GPT-2 has all of them: Conv1D stores its weight transposed, LayerNorm has a gain and a bias."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=310, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    branch, ids = finetuned(model, 1), batch()
    found = full.difference(branch, model)
    assert found["transformer.h.0.attn.c_attn"].shape == (48, 16)
    assert {type(term) for _, term in found["transformer.h.0.ln_1"].terms} == {Dense, Bias}
    got = steered(model, {WeightVector(found, {}): 1.0}, ids)
    assert (got - logits(branch, ids)).abs().max() <= 1e-4


def test_half_precision_is_subtracted_exactly():
    """In bf16 the difference of two close weights is a number that bf16 arithmetic often cannot give."""
    model, _ = tiny("llama", layers=2)
    plus, minus = finetuned(model, 1, size=0.01).bfloat16(), finetuned(model, 2, size=0.01).bfloat16()
    name = "model.layers.0.mlp.up_proj"
    found = full.difference(plus, minus)[name].delta()
    exact = plus.get_submodule(name).weight.double() - minus.get_submodule(name).weight.double()
    assert torch.equal(found.double(), exact)
    assert not torch.equal((plus.get_submodule(name).weight - minus.get_submodule(name).weight).double(), exact)


def test_two_architectures_are_not_subtracted(tmp_path):
    """Over the common tensors alone it would be silently another vector."""
    model, _ = tiny("llama", layers=2)
    with pytest.raises(WeightsteerError, match=r"different tensors: model\.layers\.1.*only in the loaded Llama.* more"):
        full.difference(model, tiny("llama", layers=1)[0])
    wide = deepcopy(model)
    wide.model.layers[1].mlp.up_proj = nn.Linear(32, 70, bias=False)
    with pytest.raises(WeightsteerError, match=r"up_proj\.weight has shape \(64, 32\) in .* and \(70, 32\) in"):
        full.difference(model, wide)
    model.save_pretrained(tmp_path)
    with pytest.raises(WeightsteerError, match=r"different tensors.*q_norm.*only in the loaded Qwen3"):
        full.difference(tmp_path, tiny("qwen3", layers=2)[0])


def test_what_no_module_applies_is_refused():
    """A parameter of its own, a buffer, a quantised weight, a diverged training: each named."""
    model, _ = tiny("llama", layers=2)
    for make, reason in [
        (lambda m: m.model.register_parameter("gate", nn.Parameter(torch.rand(3))), r"model\.gate was trained, but"),
        (lambda m: m.model.register_buffer("mean", torch.rand(3)), r"no parameters: model\.mean"),
        (lambda m: m.model.register_module("conv", nn.Conv1d(2, 2, 1)), r"model\.conv\.weight was trained"),
    ]:
        plus, minus = deepcopy(model), deepcopy(model)
        make(plus), make(minus)
        with pytest.raises(WeightsteerError, match=reason):
            full.difference(plus, minus)
        assert full.difference(plus, deepcopy(plus)) == {}
    broken = finetuned(model, 1)
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    with pytest.raises(WeightsteerError, match=r"model\.norm\.weight holds NaN or infinity"):
        full.difference(broken, model)
    packed = deepcopy(model)
    packed.model.layers[0].mlp.up_proj.weight = nn.Parameter(
        torch.zeros(1024, 1, dtype=torch.uint8), requires_grad=False
    )
    with pytest.raises(WeightsteerError, match=r"up_proj is a Linear, which holds no plain matrix \(quantised"):
        full.difference(packed, model)
    coarse = deepcopy(model)
    coarse.model.layers[0].mlp.up_proj.weight = nn.Parameter(
        torch.zeros(64, 32, dtype=torch.float8_e4m3fn), requires_grad=False
    )
    with pytest.raises(WeightsteerError, match="is quantised"):
        full.difference(coarse, model)


def test_damaged_and_foreign_folders(tmp_path):
    """What is wrong with a folder has to be said before transformers or safetensors say it their way."""
    model, _ = tiny("llama", layers=2)
    folder = tmp_path / "branch"
    finetuned(model, 1).save_pretrained(folder)
    file, whole = folder / "model.safetensors", load_file(folder / "model.safetensors")
    key = "model.layers.0.mlp.up_proj.weight"
    for tensors, reason in [
        ({name: tensor for name, tensor in whole.items() if name != key}, rf"{key} \(not in the file\)"),
        (whole | {"old.name": torch.ones(2)}, r"old\.name \(only in the file\).*load both models"),
    ]:
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(WeightsteerError, match=reason):
            full.difference(folder, model)
    file.write_bytes(b"half a fi")
    with pytest.raises(WeightsteerError, match="cannot read"):
        full.difference(folder, model)
    file.unlink()
    with pytest.raises(WeightsteerError, match=r"holds no model\.safetensors and no model\.safetensors\.index"):
        full.difference(folder, model)
    index = folder / "model.safetensors.index.json"
    for content, reason in [
        ("{}", "cannot read"),
        (json.dumps({"weight_map": {key: "model-1.safetensors"}}), "cannot read"),
    ]:
        index.write_text(content)
        with pytest.raises(WeightsteerError, match=reason):
            full.difference(folder, model)
    index.unlink()
    save_file(whole, file, metadata={"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(WeightsteerError, match="cannot tell the modules"):
        full.difference(folder, model)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsteerError, match=r"holds no config\.json"):
        full.difference(folder, model)
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "inner" / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsteerError, match=r"not a PEFT adapter folder\. It holds folders that are: inner"):
        AdapterFolder.read(tmp_path / "outer")


def test_it_is_no_peft_adapter():
    """Training asks the family for a configuration only when it names a PEFT type."""
    family = adapters.get("full")
    assert not family.peft_type
    with pytest.raises(WeightsteerError, match="no PEFT configuration"):
        family.peft_config(4, 8, ["up_proj"])

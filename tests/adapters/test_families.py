"""What holds for every family of PEFT adapters. The oracle is PEFT's own unmerged forward pass, or its fp32 merge."""

from copy import deepcopy
from functools import lru_cache
from shutil import copytree

import pytest
import torch
from adapters_of import PEFT_FAMILIES, config_of, configure, random_adapter
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import tiny
from torch import nn
from vectors import batch, logits, peft_logits, same_weights, weights

from weightsteer import adapters, load_model
from weightsteer.adapters import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import Sum
from weightsteer.vector import WeightVector

NAT = 1e-4
FILE = "adapter_model.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias")
every_family = pytest.mark.parametrize("family", PEFT_FAMILIES)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Adapters that no test changes, each made once."""

    @lru_cache(None)
    def folder(family: str, arch: str = "qwen3", seed: int = 1):
        return random_adapter(family, tiny(arch, layers=2)[0], tmp_path_factory.mktemp("stored") / family, seed=seed)

    return folder


def delta(folder, model) -> dict[str, Sum]:
    read = AdapterFolder.read(folder)
    return adapters.family_of(read.config).branch_delta(read, model)


def branch(folder, model) -> WeightVector:
    return WeightVector(delta(folder, model), {})


def steered(model, pairs, ids):
    with steer(model, pairs):
        return logits(model, ids)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma", "mistral", "qwen2"])
@every_family
def test_a_branch_is_what_peft_computes(family, arch, stored):
    """At α = 1 the vector of one branch gives PEFT's logits: a wrong scale, sign or orientation is off by nats."""
    model, _ = tiny(arch, layers=2)
    before, ids = weights(model), batch()
    folder = stored(family, arch)
    expected, base = peft_logits(model, folder, ids), logits(model, ids)
    vector = branch(folder, model)
    assert (expected - base).abs().max() > 1.0
    assert (steered(model, {vector: 1.0}, ids) - expected).abs().max() <= NAT
    assert torch.equal(steered(model, {vector: 0.0}, ids), base)
    assert same_weights(model, before)


@pytest.mark.parametrize("arch", ["qwen3", "qwen2"])
@every_family
def test_a_pair_leads_from_one_branch_to_the_other(family, arch, stored):
    """θ⁻ + dW = θ⁺ and θ⁺ − dW = θ⁻, in PEFT's logits of the two branches."""
    model, _ = tiny(arch, layers=2)
    ids = batch()
    positive, negative = (stored(family, arch, seed) for seed in (1, 2))
    plus, minus = branch(positive, model), branch(negative, model)
    pair = WeightVector.from_adapters(positive, negative, model)
    assert adapters.family_of(AdapterFolder.read(positive).config).name == family
    assert (steered(model, {minus: 1.0, pair: 1.0}, ids) - peft_logits(model, positive, ids)).abs().max() <= NAT
    assert (steered(model, {plus: 1.0, pair: -1.0}, ids) - peft_logits(model, negative, ids)).abs().max() <= NAT
    assert pair - pair == pair * 0.0
    assert (pair - pair).norm() == 0.0
    assert WeightVector.from_adapters(negative, positive, model) == -pair
    assert pair.metadata["adapter"] == family


@every_family
def test_the_alpha_of_one_branch(family, stored, tmp_path):
    """Against an untrained negative branch, α = 1 is the positive branch itself."""
    model, _ = tiny("qwen3", layers=2)
    ids = batch()
    positive = stored(family)
    untrained = random_adapter(family, model, tmp_path / "n", std=0.0)
    pair = WeightVector.from_adapters(positive, untrained, model)
    assert (steered(model, {pair: 1.0}, ids) - peft_logits(model, positive, ids)).abs().max() <= NAT
    assert branch(untrained, model).norm() <= 1e-5 * pair.norm()


@pytest.mark.filterwarnings("ignore::UserWarning")
@every_family
def test_deltas_are_those_of_peft_s_merge(family, tmp_path):
    """The dense matrix and the bias, entry by entry, against weights that PEFT merged in fp32."""
    model, _ = tiny("qwen2", layers=2)
    if family == "bias":  # PEFT merges it only into modules that have a bias
        for layer in model.model.layers:
            layer.mlp.down_proj.bias = nn.Parameter(torch.zeros(32))
    folder = random_adapter(family, model, tmp_path / "branch")
    merged = PeftModel.from_pretrained(deepcopy(model), str(folder)).merge_and_unload()
    found = delta(folder, model)
    touched = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        theirs = merged.get_submodule(name)
        change = theirs.weight - module.weight
        bias = theirs.bias - module.bias if module.bias is not None else None
        if change.any() or (bias is not None and bias.any()):
            touched.add(name)
            assert torch.allclose(found[name].delta(), change, atol=1e-5)
            if bias is not None:
                ours = found[name].bias_delta()
                assert torch.allclose(torch.zeros_like(bias) if ours is None else ours, bias, atol=1e-6)
    assert touched == set(found)


@every_family
def test_layers_and_modules(family, tmp_path):
    """Only the layers asked for: otherwise families would be compared on different parts of the model."""
    model, _ = tiny("qwen3")
    found = delta(random_adapter(family, model, tmp_path / "branch", layers=[1, 2]), model)
    assert {name.split(".")[2] for name in found} == {"1", "2"}
    assert len(found) == 2 * {"ia3": 3, "bias": 1}.get(family, 7)


@every_family
def test_foreign_files_are_read(family, stored, tmp_path):
    """As the hub has them: half precision, pickled, with the name of the adapter and of wrappers in the names."""
    model, _ = tiny("qwen3", layers=2)
    ids = batch()
    folder = copytree(stored(family), tmp_path / "branch")
    half = {name: tensor.bfloat16() for name, tensor in load_file(folder / FILE).items()}
    save_file(half, folder / FILE)
    expected = peft_logits(model, folder, ids)
    named = {}
    for name, tensor in half.items():
        stem, weight = (name.removesuffix(".weight"), ".weight") if name.endswith(".weight") else (name, "")
        named[f"base_model.model._orig_mod.{stem.removeprefix('base_model.model.')}.default{weight}"] = tensor
    torch.save(named, folder / "adapter_model.bin")
    (folder / FILE).unlink()
    assert (steered(model, {branch(folder, model): 1.0}, ids) - expected).abs().max() <= NAT


@every_family
def test_unknown_settings_are_refused_by_name(family, stored, tmp_path):
    """A setting of a later release may change the weights; at a value that is off it cannot."""
    model, _ = tiny("qwen3", layers=2)
    folder = copytree(stored(family), tmp_path / "branch")
    expected = delta(folder, model)
    configure(folder, of_the_future=False, another=[])
    assert delta(folder, model) == expected
    for changes, reason in [
        ({"of_the_future": 2}, "of_the_future=2, an option whose effect on the weights is not known"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save replaces whole modules"),
        ({"bias": "all"}, "bias='all' trains the biases of the base"),
    ]:
        configure(folder, **({"of_the_future": None} | changes))
        with pytest.raises(WeightsteerError, match=rf"(?s){reason}.*refused") as error:
            delta(folder, model)
        assert str(folder) in str(error.value)
        configure(folder, **dict.fromkeys(changes))


@every_family
def test_files_that_do_not_fit(family, stored, tmp_path):
    """Half a file, more than an adapter, or an adapter of another model: each is named, none gives a vector."""
    model, _ = tiny("qwen3", layers=2)
    folder = copytree(stored(family), tmp_path / "branch")
    whole = load_file(folder / FILE)
    last = max(whole)
    module = "model.layers.1.mlp.down_proj"
    without = {name: tensor for name, tensor in whole.items() if module not in name}
    for tensors, reason in [
        (whole | {"base_model.model.lm_head.weight": torch.ones(2)}, r"holds more than the .* lm_head\.weight"),
        (without, rf"adapts {module}, but the file holds no tensors"),
        ({}, "at all; save or copy the adapter again"),
        (whole | {last: whole[last][..., :-1]}, r"would fit the module|makes no blocks|rank . in the file"),
    ]:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / FILE)
        with pytest.raises(WeightsteerError, match=reason):
            delta(folder, model)
    save_file(whole, folder / FILE)
    narrow, _ = tiny("qwen3", layers=2)
    for layer in narrow.model.layers:
        layer.mlp.down_proj = nn.Linear(60, 30, bias=False)
    with pytest.raises(WeightsteerError, match=r"the base model the adapter was\s+trained|which makes no blocks"):
        delta(folder, narrow)
    with pytest.raises(WeightsteerError, match="another architecture"):
        delta(folder, tiny("qwen3", layers=1)[0])


class Quantised(nn.Module):
    """A linear module whose weight cannot be read, as the quantisation libraries make them."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", torch.zeros(linear.weight.numel() // 2, 1, dtype=torch.uint8))
        self.bias = None


@every_family
def test_quantised_bases(family, stored):
    """Refused where the delta depends on the base weight, and only there."""
    model, _ = tiny("qwen3", layers=2)
    read = [AdapterFolder.read(stored(family, seed=seed)) for seed in (1, 2)]
    expected = adapters.get(family).pair_delta(*read, model)
    for layer in model.model.layers:
        layer.mlp.down_proj = Quantised(layer.mlp.down_proj)
    if family in ("dora", "oft", "boft", "ia3"):
        with pytest.raises(WeightsteerError, match=r"model\.layers\.0\.mlp\.down_proj: .*quantised"):
            adapters.get(family).pair_delta(*read, model)
    else:
        assert adapters.get(family).pair_delta(*read, model) == expected


@every_family
def test_training_starts_at_the_base(family):
    """A configuration that starts elsewhere would put its start into every branch."""
    model, _ = tiny("llama", layers=2)
    adapted = get_peft_model(deepcopy(model), config_of(adapters.get(family), model))
    ids = batch()
    assert (logits(adapted, ids) - logits(model, ids)).abs().max() <= NAT


@pytest.fixture(scope="module")
def pocket():
    return load_model("pocket")[0]


@every_family
def test_on_pocket(family, pocket, tmp_path):
    """On trained weights, whose rows and columns have very different norms."""
    ids = batch(rows=2)
    positive, negative = (random_adapter(family, pocket, tmp_path / str(s), seed=s, std=0.1) for s in (1, 2))
    vector, pair = branch(positive, pocket), WeightVector.from_adapters(positive, negative, pocket)
    expected = peft_logits(pocket, positive, ids)
    assert (expected - logits(pocket, ids)).abs().max() > 1e-2
    assert (steered(pocket, {vector: 1.0}, ids) - expected).abs().max() <= NAT
    got = steered(pocket, {vector: 1.0, pair: -1.0}, ids)
    assert (got - peft_logits(pocket, negative, ids)).abs().max() <= NAT

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from adapters_of import configure
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import LINEAR, random_lora, tiny
from torch import nn
from vectors import batch, logits, peft_logits

from weightsteer import adapters
from weightsteer.adapters import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import LowRank
from weightsteer.vector import WeightVector

LORA = adapters.get("lora")


def delta_of(folder: Path, model) -> dict[str, torch.Tensor]:
    terms = LORA.branch_delta(AdapterFolder.read(folder), model)
    return {name: term.delta() for name, term in terms.items()}


def peft_delta(folder: Path, model) -> dict[str, torch.Tensor]:
    """What PEFT itself would add to each weight."""
    adapted = PeftModel.from_pretrained(deepcopy(model), str(folder))
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default")
        for name, module in adapted.named_modules()
        if hasattr(module, "get_delta_weight")
    }


VARIANTS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {r"layers\.1\..*up_proj": 6, "q_proj": 2, "layers.1.mlp.gate_proj": 3},
        "alpha_pattern": {"model.layers.2.mlp.down_proj": 1, r".*\.3\.self_attn.*": 40},
    },
    "patterns with rslora": {"use_rslora": True, "rank_pattern": {"mlp.up_proj": 1}},
    "some layers": {"layers": [1, 3]},
    "fan_in_fan_out on Linear": {"fan_in_fan_out": True},
    "dropout": {"lora_dropout": 0.5},
    "gaussian": {"init_lora_weights": "gaussian"},
    "eva": {"init_lora_weights": "eva"},
    "random": {"init_lora_weights": False},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "output head": {"targets": ["lm_head", "q_proj"]},
    "excluded": {"exclude_modules": ["model.layers.0.mlp.up_proj"]},
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_accepted_variant_is_what_peft_computes(name, tmp_path):
    """Deltas and logits equal PEFT's own; a scale read wrongly (rsLoRA, patterns) is wrong by a factor."""
    model, _ = tiny("qwen3")
    folder = random_lora(model, tmp_path / "branch", seed=1, **VARIANTS[name])
    ours, theirs = delta_of(folder, model), peft_delta(folder, model)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], rtol=1e-5, atol=1e-6) for key in theirs)
    zero = random_lora(model, tmp_path / "zero", seed=1, std=0.0, **VARIANTS[name])
    ids = batch()
    expected = peft_logits(model, folder, ids)
    with steer(model, WeightVector.from_adapters(folder, zero, model), 1.0):
        assert (logits(model, ids) - expected).abs().max() <= 1e-4


def test_configuration_for_training_reads_back(tmp_path):
    """The family must be able to read what it has PEFT write."""
    model, _ = tiny("qwen3")
    config = LORA.peft_config(4, 16, LINEAR, [1, 2], use_rslora=True)
    adapted = get_peft_model(deepcopy(model), config)
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    deltas = delta_of(tmp_path, model)
    assert {name.split(".")[2] for name in deltas} == {"1", "2"}
    assert len(deltas) == 14
    assert not any(delta.any() for delta in deltas.values())
    full = LORA.peft_config(4, 16, ["model.layers.0.mlp.up_proj"])
    full_names = get_peft_model(deepcopy(model), full).targeted_module_names
    assert full_names == ["model.layers.0.mlp.up_proj"]
    half = random_lora(model, tmp_path / "x", seed=1, rank=4, use_rslora=True)
    assert LORA.branch_delta(AdapterFolder.read(half), model)["model.layers.0.mlp.up_proj"].terms[0][0] == 4.0


REFUSED = {
    "use_dora": ({"use_dora": True}, "DoRA rescales"),
    "lora_bias": ({"lora_bias": True}, "lora_bias"),
    "bias": ({"bias": "all"}, "bias='all'"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "trainable tokens": ({"trainable_token_indices": [3, 4]}, "trainable_token_indices"),
    "pissa": ({"init_lora_weights": "pissa"}, "path_initial_model_for_weight_conversion"),
    "pissa_niter": ({"init_lora_weights": "pissa_niter_2"}, "pissa_niter_2"),
    "olora": ({"init_lora_weights": "olora"}, "olora"),
    "embedding": ({"targets": ["embed_tokens", "q_proj"]}, r"embed_tokens\.lora_embedding_A"),
    "parameters": ({"targets": [], "target_parameters": ["up_proj.weight"]}, "target_parameters"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_exact_is_refused_with_the_reason(name, tmp_path):
    """PEFT saves all of these as LoRA; read as plain A and B each would be silently another delta."""
    model, _ = tiny("llama")
    options, reason = REFUSED[name]
    folder = random_lora(model, tmp_path / "branch", seed=1, **options)
    with pytest.raises(WeightsteerError, match=rf"(?s){reason}.*refused") as error:
        delta_of(folder, model)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"init_lora_weights": "lora_ga"}, "lora_ga"),
        ({"init_lora_weights": "brand_new"}, "brand_new"),
        ({"kasa_config": {"beta": 1e-4}}, "KaSA"),
        ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA"),
        ({"alora_invocation_tokens": [1, 2]}, "Activated LoRA"),
        ({"arrow_config": {"top_k": 3}}, "Arrow"),
        ({"monteclora_config": {"num_samples": 8}}, "MonteCLoRA"),
        ({"layer_replication": [[0, 2], [1, 4]]}, "layer_replication"),
        ({"use_qalora": True}, "QA-LoRA"),
        ({"an_option_of_the_future": "on"}, "an_option_of_the_future='on'.*not known"),
        ({"qalora_group_size": 32}, "qalora_group_size=32"),
    ],
)
def test_configurations_from_elsewhere_are_judged_field_by_field(changes, reason, tmp_path):
    """What this version does not know must stop, not pass as plain LoRA."""
    model, _ = tiny("qwen3")
    folder = configure(random_lora(model, tmp_path / "branch", seed=1), **changes)
    with pytest.raises(WeightsteerError, match=reason):
        delta_of(folder, model)


def test_overlapping_patterns(tmp_path):
    """PEFT trains with the first pattern that matches and saves them sorted: the rank can be seen in the matrices,
    α cannot, and PEFT itself reloads such an adapter with another scale."""
    model, _ = tiny("qwen3")
    patterns = {"q_proj": 2, r"layers\.1\..*": 6}
    folder = random_lora(model, tmp_path / "ranks", seed=1, rank_pattern=patterns)
    terms = LORA.branch_delta(AdapterFolder.read(folder), model)["model.layers.1.self_attn.q_proj"].terms
    assert (terms[0][0], terms[0][1].rank) == (8 / 2, 2)
    folder = random_lora(model, tmp_path / "alphas", seed=1, alpha_pattern=patterns)
    with pytest.raises(WeightsteerError, match=r"match model\.layers\.1\.self_attn\.q_proj .6, 2., and PEFT"):
        delta_of(folder, model)


def test_old_and_foreign_configurations_are_read(tmp_path):
    """Adapters that users already have: fields missing, new fields switched off, pickled tensors."""
    model, _ = tiny("qwen3")
    folder = random_lora(model, tmp_path / "branch", seed=1)
    expected = delta_of(folder, model)
    old = {"r": 4, "lora_alpha": 8, "peft_type": "LORA", "bias": "none", "base_model_name_or_path": "a/b"}
    old |= {"target_modules": LINEAR, "an_option_of_the_future": None, "another": False, "more": []}
    (folder / "adapter_config.json").write_text(json.dumps(old))
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    found = delta_of(folder, model)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_half_precision_adapters_are_read_exactly(tmp_path):
    """Hub adapters are often bf16: every bf16 number is an fp32 number."""
    model, _ = tiny("qwen3")
    folder = random_lora(model, tmp_path / "branch", seed=1)
    file = folder / "adapter_model.safetensors"
    half = {key: tensor.bfloat16() for key, tensor in load_file(file).items()}
    save_file(half, file)
    name = "model.layers.2.mlp.up_proj"
    term = LORA.branch_delta(AdapterFolder.read(folder), model)[name].terms[0][1]
    assert isinstance(term, LowRank)
    assert torch.equal(term.A, half[f"base_model.model.{name}.lora_A.weight"].float())


def test_damaged_adapters_are_explained(tmp_path):
    """A branch that is only half there must not become half a vector."""
    model, _ = tiny("qwen3")
    folder = random_lora(model, tmp_path / "branch", seed=1)
    file, whole = folder / "adapter_model.safetensors", load_file(folder / "adapter_model.safetensors")
    key = "base_model.model.model.layers.1.mlp.up_proj.lora_{}.weight"
    name = "model.layers.1.mlp.up_proj"

    def without(*keys):
        return {k: tensor for k, tensor in whole.items() if k not in keys}

    nan = torch.full_like(whole[key.format("A")], float("nan"))
    wrong = {key.format("A"): torch.ones(4, 31), key.format("B"): torch.ones(64, 4)}
    for tensors, reason in [
        (without(key.format("B")), f"lacks {name}.lora_B.weight"),
        (without(key.format("A"), key.format("B")), f"adapts {name}, but the file holds no tensors"),
        (whole | {key.format("A"): nan}, "NaN or infinity"),
        (whole | wrong, r"lora_A\.weight of .* has shape \(4, 31\), but \(4, 32\) would fit"),
        (
            whole | {key.format("A"): torch.ones(3, 32), key.format("B"): torch.ones(64, 3)},
            "has rank 3 in the file but 4",
        ),
        (
            whole | {"base_model.model.lm_head.weight": torch.ones(2)},
            r"more than the lora_A\.weight, lora_B.*lm_head\.weight",
        ),
        ({}, r"holds no lora_A\.weight"),
    ]:
        save_file(tensors, file)
        with pytest.raises(WeightsteerError, match=reason):
            delta_of(folder, model)
    file.write_bytes(b"half a fi")
    with pytest.raises(WeightsteerError, match="cannot read"):
        delta_of(folder, model)
    file.unlink()
    with pytest.raises(WeightsteerError, match=r"holds no adapter_model\.safetensors"):
        delta_of(folder, model)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsteerError, match=r"cannot read .*adapter_config\.json"):
        delta_of(folder, model)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(WeightsteerError, match="not a PEFT adapter folder"):
        delta_of(folder, model)
    with pytest.raises(WeightsteerError, match="is not a folder"):
        delta_of(tmp_path / "nowhere", model)


def test_adapters_of_other_architectures_name_what_is_missing(tmp_path):
    """The message must tell a wrong model from a wrapped one."""
    model, _ = tiny("qwen3")
    folder = random_lora(model, tmp_path / "branch", seed=1)
    shallow, _ = tiny("qwen3", layers=2)
    with pytest.raises(WeightsteerError, match=r"no module model\.layers\.2.* and 10 more\. .*another architecture"):
        delta_of(folder, shallow)
    with pytest.raises(WeightsteerError, match="wrapped: pass the base model"):
        delta_of(folder, get_peft_model(deepcopy(model), LoraConfig(target_modules=["q_proj"])))
    conv, _ = tiny("qwen3")
    conv.model.layers[0].mlp.up_proj = nn.Conv1d(32, 64, 1)
    with pytest.raises(WeightsteerError, match="is a Conv1d, not a linear module"):
        delta_of(folder, conv)

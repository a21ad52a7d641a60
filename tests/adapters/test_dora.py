import pytest
import torch
from adapters_of import configure, random_adapter, save_moved
from safetensors.torch import load_file, save_file
from tiny import LINEAR, tiny
from vectors import batch, logits, peft_logits

from weightsteer import adapters
from weightsteer.adapters import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import LowRank, RowScale
from weightsteer.vector import WeightVector

DORA = adapters.get("dora")
FILE = "adapter_model.safetensors"


def delta(folder, model):
    return DORA.branch_delta(AdapterFolder.read(folder), model)


VARIANTS = {
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r".*\.1\.mlp.*": 30}},
    "rank-stabilised": {"use_rslora": True},
    "dropout": {"lora_dropout": 0.5},
    "gaussian": {"init_lora_weights": "gaussian"},
    "output head": {"target_modules": ["lm_head", "v_proj"]},
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word")
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_what_peft_computes(name, tmp_path):
    """The scale enters the row norms too, so a wrong one is wrong twice."""
    model, _ = tiny("qwen2", layers=2)
    config = DORA.peft_config(4, 8, **{"target_modules": LINEAR, **VARIANTS[name]})
    folder = save_moved(model, config, tmp_path)
    ids = batch()
    with steer(model, WeightVector(delta(folder, model), {}), 1.0):
        found = logits(model, ids)
    assert (found - peft_logits(model, folder, ids)).abs().max() <= 1e-4


def test_structure(tmp_path):
    """A row scale and two factors, never a dense matrix; in a pair the row scales are one."""
    model, _ = tiny("qwen3", layers=2)
    positive, negative = (random_adapter(DORA, model, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    pair = WeightVector.from_adapters(positive, negative, model)
    fused = pair.terms["model.layers.0.mlp.up_proj"].fused
    assert {type(term) for term in fused} == {RowScale, LowRank}
    assert len(fused) == 2
    assert max(term.rank for term in fused if isinstance(term, LowRank)) == 8


def test_the_base_weight_is_only_read(tmp_path):
    """On a model in fp64 no copy is made on the way: what is computed must not land in the weight."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(DORA, model, tmp_path)
    wide = model.double()
    before = {name: parameter.clone() for name, parameter in wide.named_parameters()}
    delta(folder, wide)
    assert all(torch.equal(parameter, before[name]) for name, parameter in wide.named_parameters())


def test_magnitudes_under_their_other_name(tmp_path):
    """Releases of PEFT differ in the name of the magnitudes; a file without them is incomplete."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(DORA, model, tmp_path)
    expected = delta(folder, model)
    tensors = load_file(folder / FILE)
    assert any(name.endswith("magnitude_vector") for name in tensors)
    save_file({name.replace("_vector", "_vector.weight"): tensor for name, tensor in tensors.items()}, folder / FILE)
    assert delta(folder, model) == expected
    save_file({name: tensor for name, tensor in tensors.items() if "0.mlp.up_proj.lora_mag" not in name}, folder / FILE)
    with pytest.raises(WeightsteerError, match=r"lacks model\.layers\.0\.mlp\.up_proj\.lora_magnitude_vector"):
        delta(folder, model)


def test_what_dora_cannot_be_combined_with(tmp_path):
    """PiSSA changes the base whose rows DoRA measures; a row of zeros has no direction."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(DORA, model, tmp_path)
    both = configure(folder, init_lora_weights="pissa")
    assert adapters.family_of(AdapterFolder.read(both).config) is DORA
    with pytest.raises(WeightsteerError, match=r"(?s)pissa.*leave the base weight alone.*refused"):
        delta(both, model)
    configure(folder, init_lora_weights=True, lora_bias=True)
    with pytest.raises(WeightsteerError, match="lora_bias"):
        delta(folder, model)
    configure(folder, lora_bias=False, use_dora=False)
    with pytest.raises(WeightsteerError, match="is no DoRA"):
        delta(folder, model)
    configure(folder, use_dora=True)
    tensors = load_file(folder / FILE)
    tensors["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"][3] = 0.0
    save_file(tensors, folder / FILE)
    model.model.layers[0].mlp.up_proj.weight[3] = 0.0
    with pytest.raises(WeightsteerError, match=r"model\.layers\.0\.mlp\.up_proj has a row of zeros"):
        delta(folder, model)

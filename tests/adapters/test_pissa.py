from copy import deepcopy

import pytest
import torch
from adapters_of import configure, random_adapter, save_moved
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import random_lora, tiny
from vectors import batch, logits, peft_logits

from weightsteer import adapters
from weightsteer.adapters import AdapterFolder
from weightsteer.adapters.folder import INITIAL
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import LowRank
from weightsteer.vector import WeightVector

PISSA = adapters.get("pissa")
NAME = "model.layers.0.mlp.up_proj"


def read(folder):
    return AdapterFolder.read(folder)


def test_initial_factors_cancel_in_a_pair(tmp_path, monkeypatch):
    """No SVD and no base weight: s(B⁺A⁺ − B⁻A⁻) from the files alone, whatever the scales."""
    model, _ = tiny("qwen3", layers=2)
    positive = random_adapter(PISSA, model, tmp_path / "p", seed=1)
    negative = random_adapter(PISSA, model, tmp_path / "n", seed=2, use_rslora=True)
    through_base = {
        name: total.delta() - PISSA.branch_delta(read(negative), model)[name].delta()
        for name, total in PISSA.branch_delta(read(positive), model).items()
    }
    monkeypatch.setattr(torch.linalg, "svd", None)
    pair = PISSA.pair_delta(read(positive), read(negative), model)
    assert all(torch.allclose(pair[name].delta(), through_base[name], atol=2e-5) for name in through_base)
    assert [type(term) for term in pair[NAME].fused] == [LowRank]
    assert pair[NAME].rank == 8
    fresh, _ = tiny("qwen3", layers=2)
    with pytest.raises(TypeError):
        PISSA.branch_delta(read(positive), fresh)


def test_a_weight_that_changed_is_decomposed_again(tmp_path):
    """The SVD is remembered for the second branch, but not beyond the weight it was made of."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(PISSA, model, tmp_path / "1")
    PISSA.branch_delta(read(folder), model)
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    folder = random_adapter(PISSA, model, tmp_path / "2")
    ids = batch()
    vector = WeightVector(PISSA.branch_delta(read(folder), model), {})
    with steer(model, vector, 1.0):
        found = logits(model, ids)
    assert (found - peft_logits(model, folder, ids)).abs().max() <= 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}}])
def test_an_adapter_converted_by_peft_is_plain_lora(options, tmp_path):
    """PEFT's conversion and our delta of the unconverted adapter are two ways to one branch."""
    model, _ = tiny("qwen3", layers=2)
    config = PISSA.peft_config(4, 8, ["q_proj", "up_proj"], **options)
    adapted = get_peft_model(deepcopy(model), config)
    initial = tmp_path / "initial"
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(str(initial), save_embedding_layers=False)
    adapted.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    adapted.save_pretrained(str(tmp_path / "kept"), save_embedding_layers=False)
    kept = PISSA.branch_delta(read(tmp_path / "kept"), model)
    ids = batch()
    expected = logits(adapted, ids)
    with steer(model, WeightVector(kept, {}), 1.0):
        assert (logits(model, ids) - expected).abs().max() <= 1e-4
    adapted.save_pretrained(
        str(tmp_path / "plain"), path_initial_model_for_weight_conversion=str(initial), save_embedding_layers=False
    )
    converted = read(tmp_path / "plain")
    family = adapters.family_of(converted.config)
    assert family.name == ("rslora" if "use_rslora" in options else "lora")
    plain = family.branch_delta(converted, model)
    assert all(torch.allclose(plain[name].delta(), kept[name].delta(), atol=1e-5) for name in kept)


def test_initial_factors_from_the_folder(tmp_path):
    """Randomised SVDs cannot be repeated: exact when training saved its factors, refused otherwise."""
    model, _ = tiny("qwen3", layers=2)
    config = PISSA.peft_config(4, 8, ["q_proj", "up_proj"], init_lora_weights="pissa_niter_4")
    torch.manual_seed(0)
    adapted = get_peft_model(deepcopy(model), config)
    initial = PISSA.initial(adapted)
    folders = []
    for seed in (1, 2):
        branch = deepcopy(adapted)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in branch.named_parameters():
                if "lora_" in name:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        folder = tmp_path / str(seed)
        branch.save_pretrained(str(folder), save_embedding_layers=False)
        with pytest.raises(WeightsteerError, match=r"(?s)pissa_niter_4.*at random.*refused"):
            PISSA.branch_delta(read(folder), model)
        folders.append((folder, logits(branch, batch())))
    with pytest.raises(WeightsteerError, match="at random"):
        PISSA.pair_delta(read(folders[0][0]), read(folders[1][0]), model)
    for folder, expected in folders:
        save_file(initial, folder / INITIAL)
        with steer(model, WeightVector(PISSA.branch_delta(read(folder), model), {}), 1.0):
            assert (logits(model, batch()) - expected).abs().max() <= 1e-4
    pair = PISSA.pair_delta(read(folders[0][0]), read(folders[1][0]), model)
    assert len(pair["model.layers.0.mlp.up_proj"].terms) == 2
    key = "model.layers.0.mlp.up_proj.lora_A.weight"
    for changed, reason in [
        ({name: tensor for name, tensor in initial.items() if name != key}, "initial factors of .* are missing"),
        (initial | {key: torch.zeros(3, 32)}, "have other shapes than the trained ones"),
    ]:
        save_file(changed, folders[0][0] / INITIAL)
        with pytest.raises(WeightsteerError, match=reason):
            PISSA.branch_delta(read(folders[0][0]), model)


def test_another_base_is_noticed(tmp_path):
    """The SVD of other weights would be subtracted without a word; PEFT itself would do so."""
    model, _ = tiny("qwen3", layers=2)
    other, _ = tiny("qwen3", layers=2, seed=1)
    folder = random_adapter(PISSA, model, tmp_path)
    PISSA.branch_delta(read(folder), model)
    with pytest.raises(WeightsteerError, match="do not resemble the singular vectors of this model"):
        PISSA.branch_delta(read(folder), other)


def test_branches_that_started_apart(tmp_path):
    """Initial factors of another rank, or on other modules, do not cancel."""
    model, _ = tiny("qwen3", layers=2)
    positive = random_adapter(PISSA, model, tmp_path / "p")
    fewer = random_adapter(PISSA, model, tmp_path / "r", rank_pattern={"up_proj": 2})
    with pytest.raises(WeightsteerError, match=r"different ranks at model\.layers\.0\.mlp\.up_proj"):
        PISSA.pair_delta(read(positive), read(fewer), model)
    less = save_moved(model, PISSA.peft_config(4, 8, ["q_proj"]), tmp_path / "m")
    with pytest.raises(WeightsteerError, match="only one of"):
        PISSA.pair_delta(read(positive), read(less), model)


def test_a_pair_of_pissa_and_lora(tmp_path):
    """Two families in one pair: each branch by its own rule."""
    model, _ = tiny("qwen3", layers=2)
    positive, negative = random_adapter(PISSA, model, tmp_path / "p"), random_lora(model, tmp_path / "n", seed=3)
    pair = WeightVector.from_adapters(positive, negative, model)
    minus = WeightVector(adapters.get("lora").branch_delta(read(negative), model), {})
    ids = batch()
    with steer(model, {minus: 1.0, pair: 1.0}):
        found = logits(model, ids)
    assert (found - peft_logits(model, positive, ids)).abs().max() <= 1e-4
    assert pair.metadata["adapter"] == "lora + pissa"


@pytest.mark.parametrize("init", ["olora", "corda", "loftq", "lora_ga", "pizza"])
def test_other_initialisations_that_change_the_base(init, tmp_path):
    """They are no PiSSA, and no plain LoRA either."""
    model, _ = tiny("qwen3", layers=2)
    folder = configure(random_adapter(PISSA, model, tmp_path), init_lora_weights=init)
    family = adapters.family_of(read(folder).config)
    assert family.name == "lora"
    with pytest.raises(WeightsteerError, match=rf"{init}.*path_initial_model_for_weight_conversion"):
        family.branch_delta(read(folder), model)


def test_peft_loads_it_with_the_same_factors(tmp_path):
    """The premise of the branch alone: PEFT repeats its SVD at loading, and it gives the same residual."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(PISSA, model, tmp_path, std=0.0)
    loaded = PeftModel.from_pretrained(deepcopy(model), str(folder))
    assert (logits(loaded, batch()) - logits(model, batch())).abs().max() <= 1e-4
    residual = loaded.get_submodule(f"base_model.model.{NAME}.base_layer").weight
    assert (residual - model.get_submodule(NAME).weight).abs().max() > 0.05
    assert set(load_file(folder / "adapter_model.safetensors")) == {
        f"base_model.model.{name}.lora_{side}.weight"
        for name in PISSA.branch_delta(read(folder), model)
        for side in "AB"
    }

import json
from copy import deepcopy
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel
from tiny import random_lora, tiny
from vectors import batch, logits

from weightsteer import adapters
from weightsteer.errors import WeightsteerError
from weightsteer.models import weight_hash
from weightsteer.steering import steer
from weightsteer.vector import WeightVector


def record(folder: Path, **content) -> Path:
    (folder / "training.json").write_text(json.dumps(content))
    return folder


def configure(folder: Path, **changes) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_different_modules_are_named(tmp_path):
    """A difference over the common modules alone is silently another vector."""
    model, _ = tiny("qwen3")
    positive = random_lora(model, tmp_path / "p", seed=1, targets=["q_proj", "v_proj"], layers=[1, 2])
    negative = random_lora(model, tmp_path / "n", seed=2, targets=["q_proj", "o_proj"], layers=[1, 2])
    with pytest.raises(WeightsteerError) as error:
        WeightVector.from_adapters(positive, negative, model)
    assert "model.layers.1.self_attn.o_proj (only in the negative one)" in str(error.value)
    assert "model.layers.2.self_attn.v_proj (only in the positive one)" in str(error.value)
    assert "q_proj" not in str(error.value)


def test_adapters_of_another_base_are_refused(tmp_path):
    """θ⁺ − θ⁻ is a behaviour only when both branches left from the same weights."""
    model, _ = tiny("qwen3")
    base = {"name": "pocket", "hash": "0" * 32}
    positive = record(random_lora(model, tmp_path / "p", seed=1), base=base)
    negative = random_lora(model, tmp_path / "n", seed=2)
    mine = weight_hash(model)
    with pytest.raises(WeightsteerError, match=rf"pocket .weights 000000000000.*tiny-qwen3 .weights {mine[:12]}"):
        WeightVector.from_adapters(positive, negative, model)
    record(positive, base={"name": "tiny-qwen3", "hash": mine})
    assert WeightVector.from_adapters(positive, negative, model).metadata["base"]["hash"] == mine


def test_names_of_the_base_must_agree_when_there_is_nothing_better(tmp_path):
    """Adapters from elsewhere carry a name only; a hub id and a local copy of it are the same name."""
    model, _ = tiny("qwen3")
    positive = configure(random_lora(model, tmp_path / "p", seed=1), base_model_name_or_path="Qwen/Qwen3-0.6B")
    negative = configure(random_lora(model, tmp_path / "n", seed=2), base_model_name_or_path="/data/Qwen3-0.6B")
    v = WeightVector.from_adapters(positive, negative, model)
    assert v.metadata["branches"]["negative"]["base_name"] == "Qwen3-0.6B"
    configure(negative, base_model_name_or_path="Qwen/Qwen3-4B")
    with pytest.raises(WeightsteerError, match=r"different base models: Qwen3-0\.6B and Qwen3-4B"):
        WeightVector.from_adapters(positive, negative, model)


def test_swapped_folders_are_noticed(tmp_path):
    """A vector of the wrong sign looks like a method that does not work."""
    model, _ = tiny("qwen3")
    positive = record(random_lora(model, tmp_path / "p", seed=1), side="positive")
    negative = record(random_lora(model, tmp_path / "n", seed=2), side="negative")
    WeightVector.from_adapters(positive, negative, model)
    with pytest.raises(WeightsteerError, match=r"trained on the negative side\. Swap the two folders"):
        WeightVector.from_adapters(negative, positive, model)


def branches(model, folder: Path, **options) -> tuple[Path, Path]:
    """A LoRA, and a DoRA (or what ``options`` say) that moved further."""
    first = random_lora(model, folder / "plus", seed=1, rank=2)
    return first, random_lora(model, folder / "minus", seed=2, rank=3, std=0.2, **options)


def merged(model, folder: Path) -> dict[str, torch.Tensor]:
    """The weights that PEFT itself makes of an adapter, in fp32."""
    return dict(PeftModel.from_pretrained(deepcopy(model), str(folder)).merge_and_unload().named_parameters())


def test_branches_of_two_families(tmp_path):
    """What PEFT merges of either branch, subtracted: a family is no property of the pair."""
    model, _ = tiny("qwen3")
    positive, negative = branches(model, tmp_path, use_dora=True)
    v = WeightVector.from_adapters(positive, negative, model)
    assert v.metadata["adapter"] == "dora + lora"
    assert v == WeightVector.from_branch(positive, model) - WeightVector.from_branch(negative, model)
    plus, minus = merged(model, positive), merged(model, negative)
    for name in v.names:
        expected = plus[f"{name}.weight"] - minus[f"{name}.weight"]
        assert torch.allclose(v.delta(name), expected, atol=1e-5)


def test_task_vectors(tmp_path):
    """One branch alone is its adapter; two of them make the pair's vector."""
    model, _ = tiny("qwen3")
    positive, negative = branches(model, tmp_path)
    record(positive, side="positive", behavior="honesty", seed=4)
    tau = WeightVector.from_branch(positive, model, metadata={"note": "mine"})
    metadata = tau.metadata
    assert (metadata["mode"], metadata["behavior"], metadata["seed"], metadata["note"]) == (
        "task",
        "honesty",
        4,
        "mine",
    )
    assert list(metadata["branches"]) == ["positive"]
    plus, before = merged(model, positive), dict(model.named_parameters())
    for name in tau.names:
        assert torch.allclose(tau.delta(name), plus[f"{name}.weight"] - before[f"{name}.weight"], atol=1e-5)
    assert tau - WeightVector.from_branch(negative, model) == WeightVector.from_adapters(positive, negative, model)
    record(positive, base={"name": "pocket", "hash": "0" * 32})
    with pytest.raises(WeightsteerError, match="was trained on pocket"):
        WeightVector.from_branch(positive, model)


def test_the_bisector_weighs_both_branches_alike(tmp_path):
    """τ⁺/‖τ⁺‖ − τ⁻/‖τ⁻‖ of the norm of dW: the branch that moved further must not decide the direction."""
    model, _ = tiny("qwen3")
    positive, negative = branches(model, tmp_path, use_dora=True)
    plain = WeightVector.from_adapters(positive, negative, model)
    v = WeightVector.from_adapters(positive, negative, model, mode="bisector")
    plus, minus = (WeightVector.from_branch(folder, model) for folder in (positive, negative))
    direction = plus * (1 / plus.norm()) - minus * (1 / minus.norm())
    assert v.cosine(direction) == pytest.approx(1.0, abs=1e-9)
    assert v.norm() == pytest.approx(plain.norm(), rel=1e-6)
    assert v.cosine(plus) == pytest.approx(-v.cosine(minus), abs=1e-6)
    assert abs(plain.cosine(plus) + plain.cosine(minus)) > 0.1
    assert (plain.metadata["mode"], v.metadata["mode"]) == ("difference", "bisector")
    assert v.metadata["geometry"] == plain.metadata["geometry"]
    with pytest.raises(WeightsteerError, match="same direction"):
        WeightVector.from_adapters(positive, positive, model, mode="bisector")
    with pytest.raises(WeightsteerError, match="did you mean 'bisector'"):
        WeightVector.from_adapters(positive, negative, model, mode="bisect")


def test_pairs_whose_branches_are_not_known_apart(tmp_path, monkeypatch):
    """A pair may be exact though its branches are not (PiSSA's initial factors cancel): it has no geometry then."""
    model, _ = tiny("qwen3")
    positive, negative = branches(model, tmp_path)
    expected = WeightVector.from_adapters(positive, negative, model)
    lora = type(adapters.get("lora"))
    exact = lora.branch_delta

    def pair(self, plus, minus, model):
        deltas, others = exact(self, plus, model), exact(self, minus, model)
        return {name: total.plus(others[name].scaled(-1.0)) for name, total in deltas.items()}

    def unknown(self, adapter, model):
        raise WeightsteerError(f"{adapter.path}: the initial factors are missing.")

    monkeypatch.setattr(lora, "pair_delta", pair)
    monkeypatch.setattr(lora, "branch_delta", unknown)
    v = WeightVector.from_adapters(positive, negative, model)
    assert v == expected
    reading = "The two branches are not known apart: the positive branch: the initial factors are missing."
    assert v.metadata["geometry"] == {"reading": reading}
    with pytest.raises(WeightsteerError, match="initial factors"):
        WeightVector.from_adapters(positive, negative, model, mode="bisector")


def test_settings_of_every_family_are_remembered(tmp_path):
    """What an adapter was can be read off its vector; where it lay, and on which machine, cannot."""
    model, _ = tiny("qwen3")
    positive, negative = branches(model, tmp_path, use_dora=True)
    metadata = WeightVector.from_adapters(positive, negative, model).metadata
    config = metadata["branches"]["negative"]["config"]
    assert (config["r"], config["use_dora"], config["peft_version"]) == (3, True, peft.__version__)
    assert "target_modules" not in config
    assert str(tmp_path) not in json.dumps(metadata)
    assert metadata["base"]["layers"] == 4


def fine_tune(seed: int, size: float = 0.05):
    """The tiny model with every parameter of two layers, the final norm and the embedding moved."""
    model, _ = tiny("qwen2", layers=2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def test_full_fine_tunes(tmp_path):
    """Steering by ½ from one fine-tune gives the mean of the weights of both, whether they are loaded or in folders."""
    base, _ = tiny("qwen2", layers=2)
    plus, minus = fine_tune(1), fine_tune(2, size=0.1)
    v = WeightVector.from_models(plus, minus, base, metadata={"behavior": "honesty"})
    metadata = v.metadata
    assert (metadata["adapter"], metadata["behavior"], metadata["base"]["hash"]) == (
        "full",
        "honesty",
        weight_hash(base),
    )
    assert metadata["geometry"]["asymmetry"] == pytest.approx(0.5, rel=0.1)
    assert {"model.embed_tokens", "model.norm", "model.layers.0.self_attn.q_proj"} < set(v.names)
    ids = batch()
    with steer(minus, v, 0.5, other_base=True):
        steered = logits(minus, ids)
    with torch.no_grad():
        for parameter, other, own in zip(base.parameters(), plus.parameters(), minus.parameters(), strict=True):
            parameter.copy_((other + own) / 2)
    assert torch.allclose(steered, logits(base, ids), atol=1e-3)
    for model, side in ((plus, "plus"), (minus, "minus")):
        model.save_pretrained(tmp_path / side)
    stored = WeightVector.from_models(tmp_path / "plus", minus)
    assert stored == v
    assert stored.metadata["branches"]["positive"] == {"name": "plus"}
    assert "base model was not given" in stored.metadata["geometry"]["reading"]
    assert WeightVector.load(v.save(tmp_path / "v.safetensors")) == v


def test_full_fine_tunes_as_branches(tmp_path):
    """A branch lists what changed: one that left a module alone is no sign of other target modules."""
    base, _ = tiny("qwen2", layers=2)
    plus, minus = fine_tune(1), fine_tune(2)
    untouched = "model.layers.1.mlp.up_proj"
    plus.get_submodule(untouched).weight.copy_(base.get_submodule(untouched).weight)
    for model, side in ((plus, "plus"), (minus, "minus")):
        model.save_pretrained(tmp_path / side)
    v = WeightVector.from_adapters(tmp_path / "plus", tmp_path / "minus", base)
    assert v == WeightVector.from_models(plus, minus)
    bisector = WeightVector.from_adapters(tmp_path / "plus", tmp_path / "minus", base, mode="bisector")
    assert set(bisector.names) == set(v.names)
    assert v.metadata["branches"]["positive"]["config"] == {}
    u = WeightVector.from_adapters(tmp_path / "plus", random_lora(base, tmp_path / "lora", seed=1), base)
    assert u.metadata["adapter"] == "full + lora"
    tau = WeightVector.from_branch(tmp_path / "plus", base)
    assert u == tau - WeightVector.from_branch(tmp_path / "lora", base)

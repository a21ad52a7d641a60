"""Every family trains: the model stays as it was, and the vector of the folder is what PEFT makes of it."""

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapters_of import PEFT_FAMILIES
from peft import PeftModel
from peft.tuners.boft import layer as boft_layer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from test_training import PAIRS
from tiny import LINEAR, tiny
from transformers import AutoModelForCausalLM, PreTrainedModel
from vectors import batch, logits, same_weights, weights

from weightsteer import adapters
from weightsteer.adapters.folder import INITIAL
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.training import PRESETS, Recipe, TrainingRecord, train_branch
from weightsteer.vector import WeightVector

FAMILIES = (*PEFT_FAMILIES, "full")
SHORT = {"steps": 2, "batch": 8, "warmup": 0, "rank": 4, "lr": 3e-2, "validation": 0.0, "layers": (0.25, 0.75)}


def trained(
    model: PreTrainedModel, folder: Path, adapter: str, side: Any = "positive", preset: str = "pocket", **changes: Any
) -> TrainingRecord:
    recipe = Recipe.load(preset, adapter, **{**SHORT, **changes})
    _, tokenizer = tiny("qwen3")
    return train_branch(
        model, tokenizer, PAIRS, side, adapter=adapter, recipe=recipe, seed=0, folder=folder, shown=False
    )


def branch_model(model: PreTrainedModel, folder: Path, adapter: str) -> PreTrainedModel:
    """The trained branch as PEFT (or transformers) loads it."""
    if adapter == "full":
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(model, str(folder)).eval()


@pytest.mark.parametrize("adapter", FAMILIES)
def test_two_steps_give_a_vector_that_is_the_branch(adapter: str, tmp_path: Path) -> None:
    """A family that cannot be trained, whose vector is not what was trained, or that spoils the user's model."""
    model, _ = tiny("qwen3")
    before, modules = weights(model), dict(model.named_modules())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no noise of PEFT about kernels, biases or attributes
        record = trained(model, tmp_path, adapter)
    assert same_weights(model, before)
    assert dict(model.named_modules()) == modules
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert (record.adapter, record.layers, record.best_step) == (adapter, [1, 2], 2)
    vector = WeightVector.from_branch(tmp_path, model)
    assert {int(name.split(".")[2]) for name in vector.names} == {1, 2}
    assert {name.rsplit(".", 1)[-1] for name in vector.names} == set(record.modules)
    ids = batch()
    plain = logits(model, ids)
    with steer(model, vector, 1.0):
        steered = logits(model, ids)
    branch = logits(branch_model(tiny("qwen3")[0], tmp_path, adapter), ids)
    assert float((steered - branch).abs().max()) < 1e-4
    assert float((branch - plain).abs().max()) > 1e-3, "the training moved nothing"


def test_what_is_adapted_and_how_much(tmp_path: Path) -> None:
    """The report sets the number of trained parameters beside the effect: it must be the one in the file."""
    model, _ = tiny("qwen3")
    expected = {"lora": LINEAR, "full": LINEAR, "ia3": ["k_proj", "v_proj", "down_proj"], "bias": ["down_proj"]}
    for adapter, names in expected.items():
        record = trained(model, tmp_path / adapter, adapter, steps=1)
        assert record.modules == sorted(names)
        if adapter != "full":
            held = load_file(tmp_path / adapter / "adapter_model.safetensors")
            assert record.parameters == sum(tensor.numel() for tensor in held.values())
    linear = [tensor for name, tensor in model.named_parameters() if ".layers.1." in name and "proj" in name]
    assert record.parameters == 2 * 32  # bias: one of 32 outputs in each of two layers
    full = TrainingRecord.model_validate_json((tmp_path / "full" / "training.json").read_text())
    assert full.parameters == 2 * sum(tensor.numel() for tensor in linear)


def test_pissa_keeps_what_it_started_from(tmp_path: Path) -> None:
    """Without the factors training began with, one branch alone is no exact difference to the base."""
    model, _ = tiny("qwen3")
    trained(model, tmp_path, "pissa", steps=1, lr=1e-30)
    start, now = load_file(tmp_path / INITIAL), load_file(tmp_path / "adapter_model.safetensors")
    assert {f"base_model.model.{name.removeprefix('base_model.model.')}" for name in start} == set(now)
    assert WeightVector.from_branch(tmp_path, model).norm() < 1e-5


def test_full_leaves_the_other_weights_as_they_were(tmp_path: Path) -> None:
    """Embeddings and norms, and layers outside the slice, are not trained and must not drift."""
    model, _ = tiny("qwen3")
    record = trained(model, tmp_path, "full")
    before, after = model.state_dict(), AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.split(".")[2:3] in (["1"], ["2"]) and "proj" in name}
    assert not list(tmp_path.glob("adapter*"))
    again = trained(model, tmp_path / "again", "full")
    assert again == record
    for path in tmp_path.glob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_full_needs_full_precision(tmp_path: Path) -> None:
    """In bf16 a step of 1e-5 rounds to nothing: the branch would come out untrained, without a word."""
    with pytest.raises(WeightsteerError, match=r"bfloat16 weights would lose most of its steps.*--dtype float32"):
        trained(tiny("qwen3")[0].to(torch.bfloat16), tmp_path, "full")


def test_oft_rotates_exactly(tmp_path: Path) -> None:
    """The truncated series is orthogonal only nearly, and its error would become part of every vector."""
    model, _ = tiny("qwen3")
    trained(model, tmp_path, "oft")
    adapted = PeftModel.from_pretrained(model, str(tmp_path))
    rotations = [module for module in adapted.modules() if type(module).__name__ == "OFTRotationModule"]
    assert rotations
    for rotation in rotations:
        R = rotation.get_weight().detach()
        assert torch.allclose(R @ R.T, torch.eye(len(R)), atol=1e-5)


def test_boft_does_not_try_to_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT tries to build a CUDA kernel for every module, which takes minutes where there is a compiler but no GPU."""
    monkeypatch.setattr(boft_layer, "_FBD_CUDA", None)
    monkeypatch.setattr("torch.utils.cpp_extension.load", lambda *_, **__: pytest.fail("compiling"))
    trained(tiny("qwen3")[0], tmp_path, "boft", steps=1)
    assert boft_layer._FBD_CUDA is None


@pytest.mark.parametrize("adapter", ["oft", "boft"])
def test_blocks_that_do_not_divide(adapter: str, tmp_path: Path) -> None:
    """PEFT would quietly take blocks of another size in one module, or fail in words about its own options."""
    with pytest.raises(
        WeightsteerError, match=r"blocks of 12 do not divide the 32 inputs of .*--block-size to one of 2"
    ):
        trained(tiny("qwen3")[0], tmp_path, adapter, block_size=12)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("adapter", "kind"), [("delora", "DELORA"), ("bias", "BEFT"), ("ia3", "IA3")])
def test_families_that_peft_lacks(adapter: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older PEFT gives a KeyError somewhere inside; the user needs to hear which release to install."""
    known = {name: config for name, config in peft.PEFT_TYPE_TO_CONFIG_MAPPING.items() if name != kind}
    monkeypatch.setattr("weightsteer.adapters.release.PEFT_TYPE_TO_CONFIG_MAPPING", known)
    with pytest.raises(WeightsteerError, match=f"no adapter of the type {kind}: install a later release"):
        trained(tiny("qwen3")[0], tmp_path, adapter)


def test_layers_peft_does_not_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter that lies in other layers than asked for is a vector of other layers under the same name."""
    family = adapters.get("lora")
    original = family.peft_config
    monkeypatch.setattr(family, "peft_config", lambda rank, alpha, names, layers: original(rank, alpha, names, [0, 1]))
    model, _ = tiny("qwen3")
    with pytest.raises(WeightsteerError, match=r"layers 1–2, but missed the layers 2 and reached others: 0"):
        trained(model, tmp_path, "lora")
    assert not any(isinstance(module, BaseTunerLayer) for module in model.modules())


class TestRecipes:
    def test_a_change_wins_over_the_family_and_the_family_over_the_preset(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In another order either the user's flag or the family's own rate would be without effect."""
        monkeypatch.setattr(type(adapters.get("ia3")), "recipe", {"pocket": {"lr": 0.5, "warmup": 7}})
        preset = Recipe.load("pocket")
        family = Recipe.load("pocket", "ia3")
        assert (family.lr, family.warmup, family.batch) == (0.5, 7, preset.batch)
        changed = Recipe.load("pocket", "ia3", lr=0.25)
        assert (changed.lr, changed.warmup) == (0.25, 7)
        assert Recipe.load("paper", "ia3").lr == Recipe.load("paper").lr

    @pytest.mark.parametrize("preset", PRESETS)
    @pytest.mark.parametrize("adapter", FAMILIES)
    def test_every_family_has_every_recipe(self, preset: str, adapter: str) -> None:
        """A family whose own settings do not fit the recipe would only fail after the pairs are made."""
        recipe = Recipe.load(preset, adapter)
        assert recipe.name == preset
        if adapter in ("oft", "boft"):
            assert recipe.block_size
        if adapter == "delora":
            assert recipe.delora_lambda

    def test_fork_is_one_size_for_all(self) -> None:
        """It stands for the published comparison, in which every family was trained at one rate."""
        recipes = {Recipe.load("fork", adapter) for adapter in FAMILIES if adapter != "ia3"}
        assert len(recipes) == 1
        (recipe,) = recipes
        assert Recipe.load("fork", "ia3") == recipe.model_copy(update={"layers": (0.0, 1.0)}), "published on all layers"
        assert (recipe.lr, recipe.rank, recipe.lora_alpha) == (2e-4, 32, 64)
        assert (recipe.block_size, recipe.delora_lambda) == (8, 15)

    def test_unknown_family(self) -> None:
        with pytest.raises(WeightsteerError, match="did you mean 'delora'"):
            Recipe.load("pocket", "delorra")

    def test_families_that_train_unlike_lora_have_rates_of_their_own(self) -> None:
        """At LoRA's rate IA3 and DeLoRA do nothing: one rate for all compares how well it happens to fit."""
        lora = Recipe.load("paper").lr
        assert all(Recipe.load("paper", name).lr > 10 * lora for name in ("delora", "ia3"))

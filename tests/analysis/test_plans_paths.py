"""Paths along an adapter's own parameters: what PEFT computes for an adapter whose parameters were moved so far."""

import json
from copy import deepcopy

import pytest
import torch
from adapters_of import random_adapter
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import tiny
from vectors import batch, logits

from weightsteer.analysis.plans.paths import has_path, path
from weightsteer.controls import control
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.vector import WeightVector

ALPHAS = (-0.5, 1.5)
START = {"oft": 0.0, "boft": 0.0}


def pair(name, folder):
    model, _ = tiny("qwen3", layers=2)
    folders = [random_adapter(name, model, folder / f"{name}{seed}", seed, std=0.5) for seed in (1, 2)]
    return model, folders, WeightVector.from_adapters(*folders, model)


def moved(folders, folder, change):
    """An adapter folder like the first, its tensors those of ``change(name, first, second)``."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text((folders[0] / "adapter_config.json").read_text())
    first, second = (load_file(one / "adapter_model.safetensors") for one in folders)
    changed = {name: change(name, first[name], second[name]).contiguous() for name in first}
    save_file(changed, folder / "adapter_model.safetensors")
    return folder


def same_as_peft(model, v, folder, alpha):
    ids = batch(rows=2)
    theirs = logits(PeftModel.from_pretrained(deepcopy(model), str(folder)).eval(), ids)
    with steer(model, path(v, ALPHAS), alpha):
        mine = logits(model, ids)
    assert (mine - theirs).abs().max() < 1e-3
    assert (mine - logits(model, ids)).abs().max() > 0.05


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_path_of_oft_is_a_scaled_generator(tmp_path, alpha):
    """``W Cayley(α (Q⁺ − Q⁻))``: a wrong sign or a straight line would leave the rotations."""
    model, folders, v = pair("oft", tmp_path)
    changed = moved(folders, tmp_path / "moved", lambda _, plus, minus: alpha * (plus - minus))
    same_as_peft(model, v, changed, alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_path_of_ia3_scales_log_gates(tmp_path, alpha):
    """A line would make gates negative where they are only small."""
    model, folders, _ = pair("ia3", tmp_path)
    for folder in folders:
        tensors = load_file(folder / "adapter_model.safetensors")
        save_file({name: t.clamp(min=0.2) for name, t in tensors.items()}, folder / "adapter_model.safetensors")
    v = WeightVector.from_adapters(*folders, model)
    changed = moved(folders, tmp_path / "moved", lambda _, plus, minus: (plus / minus) ** alpha)
    same_as_peft(model, v, changed, alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_path_of_dora_moves_magnitudes_and_directions(tmp_path, alpha):
    """``α · dW`` is no path of DoRA models; this one is, so PEFT must compute the same."""
    model, folders, v = pair("dora", tmp_path)
    start = {name: module.weight.norm(dim=1) for name, module in model.named_modules() if name in v.names}

    def change(name, plus, minus):
        if "magnitude" in name:
            module = name.removeprefix("base_model.model.").split(".lora_magnitude")[0]
            return start[module].view_as(plus) + alpha * (plus - minus)
        return torch.cat([plus, minus]) if "lora_A" in name else torch.cat([alpha * plus, -alpha * minus], dim=1)

    changed = moved(folders, tmp_path / "moved", change)
    config = json.loads((changed / "adapter_config.json").read_text())
    config |= {"r": 2 * config["r"], "lora_alpha": 2 * config["lora_alpha"]}
    (changed / "adapter_config.json").write_text(json.dumps(config))
    same_as_peft(model, v, changed, alpha)


def test_a_path_and_the_line_agree_near_the_base(tmp_path):
    """They are two ways from one point in one direction: otherwise the path were another vector's."""
    for name in ("oft", "boft", "dora"):
        model, _ = tiny("qwen3", layers=2)
        folders = [random_adapter(name, model, tmp_path / f"{name}{seed}", seed, std=0.01) for seed in (1, 2)]
        v = WeightVector.from_adapters(*folders, model)
        at = path(v, [1.0]).at(1.0)
        assert (at - v).norm() < 0.05 * v.norm(), name


def test_rows_of_one_batch_get_their_own_point_of_the_path(tmp_path):
    """A sweep puts all strengths in one batch; each row must be as if it stood alone."""
    model, _, v = pair("oft", tmp_path)
    ids = batch(rows=3)
    one = path(v, ALPHAS)
    with steer(model, one, torch.tensor([-0.5, 0.0, 1.5])):
        together = logits(model, ids)
    assert torch.equal(together[1], logits(model, ids)[1])
    for row, alpha in ((0, -0.5), (2, 1.5)):
        with steer(model, one.at(alpha), 1.0):
            assert (logits(model, ids[row : row + 1]) - together[row]).abs().max() < 1e-3


def test_vectors_without_a_path_say_why(tmp_path):
    """A sum of two vectors is no difference of two branches: reading generators from it would be wrong."""
    _, _, v = pair("oft", tmp_path)
    assert not has_path(v.with_metadata(adapter="lora"))
    with pytest.raises(WeightsteerError, match="as it was made"):
        path(v + control("random", v, 3).with_metadata(adapter="oft"), [1.0])
    with pytest.raises(WeightsteerError, match="line"):
        path(v.with_metadata(adapter="lora"), [1.0])

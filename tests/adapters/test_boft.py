from types import SimpleNamespace

import pytest
import torch
from adapters_of import random_adapter, save_moved
from peft import BOFTConfig
from peft.tuners.boft import layer as boft_layer
from tiny import LINEAR, tiny
from vectors import batch, logits, peft_logits

from weightsteer import adapters
from weightsteer.adapters import AdapterFolder
from weightsteer.steering import steer
from weightsteer.terms import Butterfly, RowScale
from weightsteer.vector import WeightVector

BOFT = adapters.get("boft")


def delta(folder, model):
    return BOFT.branch_delta(AdapterFolder.read(folder), model)


@pytest.fixture
def extension(monkeypatch):
    """PEFT with what its CUDA extension does, written in torch: without it, PEFT has one factor only."""

    def forward(blocks):
        return [torch.stack([torch.block_diag(*each) for each in blocks])]

    monkeypatch.setattr(boft_layer, "_FBD_CUDA", SimpleNamespace(forward=forward))


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize(("m", "size"), [(1, 8), (2, 8), (3, 4), (4, 2), (2, 16)])
def test_several_butterfly_factors(m, size, tmp_path):
    """The order of the factors and the permutations are PEFT's own: any other mixes other features."""
    model, _ = tiny("qwen2", layers=2)
    config = BOFTConfig(boft_block_size=size, boft_n_butterfly_factor=m, target_modules=LINEAR, task_type="CAUSAL_LM")
    folder = save_moved(model, config, tmp_path)
    ids = batch()
    expected = peft_logits(model, folder, ids)
    found = delta(folder, model)
    with steer(model, WeightVector(found, {}), 1.0):
        assert (logits(model, ids) - expected).abs().max() <= 1e-4
    (butterfly,) = (term for term in found["model.layers.0.mlp.up_proj"].fused if isinstance(term, Butterfly))
    assert butterfly.factors.shape == (m, m, 32 // size, size, size)


@pytest.mark.parametrize(
    "options",
    [{"boft_block_num": 4, "boft_block_size": 0}, {"boft_block_size": 4, "boft_dropout": 0.4}, {"boft_block_size": 2}],
)
def test_variants_are_what_peft_computes(options, tmp_path):
    """Blocks given by size or by number."""
    model, _ = tiny("qwen2", layers=2)
    folder = save_moved(model, BOFTConfig(target_modules=LINEAR, task_type="CAUSAL_LM", **options), tmp_path)
    ids = batch()
    with steer(model, WeightVector(delta(folder, model), {}), 1.0):
        found = logits(model, ids)
    assert (found - peft_logits(model, folder, ids)).abs().max() <= 1e-4


def test_small_rotations_keep_their_digits(tmp_path):
    """Kept as R − I: as R in fp32, a rotation by 1e-5 would have two digits left."""
    model, _ = tiny("qwen3", layers=2)
    wide = model.double()
    folder = random_adapter(BOFT, model, tmp_path, std=1e-4)
    merged = peft_merge(folder, wide)
    for name, total in delta(folder, wide).items():
        expected = merged[name] - wide.get_submodule(name).weight
        assert (total.delta() - expected).norm() <= 1e-5 * expected.norm()


def peft_merge(folder, model):
    """W diag(…) R by PEFT's own Cayley transform, in fp64."""
    read = AdapterFolder.read(folder).tensors
    merged = {}
    for key, tensor in read.items():
        if key.endswith(".boft_R"):
            name = key.removesuffix(".boft_R")
            blocks = boft_layer.Linear.cayley_batch(None, tensor.double()[0])
            weight = model.get_submodule(name).weight @ torch.block_diag(*blocks).T
            merged[name] = read[f"{name}.boft_s"].double() * weight
    return merged


def test_structure(tmp_path):
    """One row scale, and one rotation for each branch; nothing dense."""
    model, _ = tiny("qwen3", layers=2)
    folders = [random_adapter(BOFT, model, tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    pair = WeightVector.from_adapters(*folders, model)
    fused = {type(term): term for term in pair.terms["model.layers.0.mlp.down_proj"].fused}
    assert set(fused) == {RowScale, Butterfly}
    assert fused[Butterfly].scales.shape == (2, 32)

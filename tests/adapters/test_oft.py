import pytest
import torch
from adapters_of import configure, random_adapter, save_moved
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import OFTConfig
from peft.tuners.oft.layer import OFTRotationModule
from safetensors.torch import load_file, save_file
from tiny import LINEAR, tiny
from vectors import batch, logits, peft_logits

from weightsteer import adapters
from weightsteer.adapters import AdapterFolder
from weightsteer.adapters.oft import cayley, neumann_series, orthogonality_error
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import Rotated
from weightsteer.vector import WeightVector

OFT = adapters.get("oft")
FILE = "adapter_model.safetensors"


def delta(folder, model):
    return OFT.branch_delta(AdapterFolder.read(folder), model)


VARIANTS = {
    "blocks of 4": {"oft_block_size": 4},
    "blocks by their number": {"r": 4, "oft_block_size": 0},
    "a size that PEFT adjusts": {"oft_block_size": 24},
    "shared blocks": {"oft_block_size": 8, "block_share": True},
    "constrained": {"oft_block_size": 8, "coft": True, "eps": 0.2},
    "constrained and shared": {"oft_block_size": 8, "coft": True, "eps": 0.2, "block_share": True},
    "dropout": {"oft_block_size": 8, "module_dropout": 0.5},
    "not initialised": {"oft_block_size": 8, "init_weights": False},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("neumann", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_what_peft_computes(name, neumann, tmp_path):
    """The exact transform and PEFT's series turn in opposite directions: mixed up, the delta has the wrong sign."""
    model, _ = tiny("qwen2", layers=2)
    config = OFTConfig(target_modules=LINEAR, use_cayley_neumann=neumann, task_type="CAUSAL_LM", **VARIANTS[name])
    folder = save_moved(model, config, tmp_path)
    ids = batch()
    expected = peft_logits(model, folder, ids)
    with steer(model, WeightVector(delta(folder, model), {}), 1.0):
        found = logits(model, ids)
    assert (found - expected).abs().max() <= 1e-4
    assert (expected - logits(model, ids)).abs().max() > 0.1


@pytest.mark.parametrize("terms", range(1, 9))
def test_the_series_has_peft_s_own_coefficients(terms):
    """PEFT gives the last power the coefficient 1, and treats three terms as four."""
    module = OFTRotationModule(3, 6, 4, 12)
    vectors = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = module._cayley_batch(vectors, 4, True, terms)
    found = neumann_series(module._pytorch_skew_symmetric(vectors, 4), terms)
    assert torch.allclose(found, expected, rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3),
    st.integers(2, 9),
    st.floats(0.0, 30.0),
    st.integers(0, 2**31),
)
def test_cayley_blocks_are_rotations(count, size, length, seed):
    """R Rᵀ = I and det R = 1 for any skew Q; −Q gives the inverse."""
    drawn = torch.randn(count, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    skew = length * (drawn - drawn.transpose(1, 2))
    blocks = cayley(skew)
    identity = torch.eye(size, dtype=torch.float64).expand_as(blocks)
    assert torch.allclose(blocks @ blocks.transpose(1, 2), identity, atol=1e-9)
    assert torch.allclose(torch.linalg.det(blocks), torch.ones(count, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(blocks @ cayley(-skew), identity, atol=1e-9)


def test_how_far_from_orthogonal(tmp_path):
    """The series is orthogonal only nearly, which must be visible; the exact transform is."""
    model, _ = tiny("qwen3", layers=2)
    errors = {}
    for neumann in (False, True):
        folder = random_adapter(OFT, model, tmp_path / str(neumann), use_cayley_neumann=neumann)
        errors[neumann] = orthogonality_error(AdapterFolder.read(folder), model)
    assert max(errors[False].values()) < 1e-12
    assert min(errors[True].values()) > 1e-3
    assert set(errors[True]) == set(delta(folder, model))


def test_structure(tmp_path):
    """Blocks, not a dense matrix; shared ones are kept once; a pair is one block matrix."""
    model, _ = tiny("qwen3", layers=2)
    folders = [random_adapter(OFT, model, tmp_path / str(seed), seed=seed, block_share=True) for seed in (1, 2)]
    pair = WeightVector.from_adapters(*folders, model)
    (term,) = pair.terms["model.layers.0.mlp.down_proj"].fused
    assert isinstance(term, Rotated)
    assert term.blocks.shape == (1, 8, 8)


def test_training_uses_exact_rotations():
    """PEFT's default is the truncated series."""
    config = OFT.peft_config(4, 8, ["q_proj"], [0], block_size=16)
    assert config.use_cayley_neumann is False
    assert (config.oft_block_size, config.r) == (16, 0)


def test_older_adapters_are_refused(tmp_path):
    """Their formula was another one, and PEFT warns at most."""
    model, _ = tiny("qwen3", layers=2)
    folder = random_adapter(OFT, model, tmp_path, use_cayley_neumann=True)
    delta(folder, model)
    for changes, reason in [
        ({"peft_version": "0.17.1"}, r"before 0\.18\.0 was another series"),
        ({"peft_version": None}, r"before 0\.18\.0 was another series"),
        ({"peft_version": "0.21.2@abc", "use_cayley_neumann": None}, "does not tell use_cayley_neumann"),
    ]:
        configure(folder, **changes)
        with pytest.raises(WeightsteerError, match=rf"(?s){reason}.*refused"):
            delta(folder, model)
    configure(folder, use_cayley_neumann=False, peft_version=None)
    delta(folder, model)
    tensors = load_file(folder / FILE)
    save_file({name.replace("oft_R.weight", "oft_r"): tensor for name, tensor in tensors.items()}, folder / FILE)
    with pytest.raises(WeightsteerError, match=r"oft_r are those of OFT in PEFT up to 0\.15"):
        delta(folder, model)

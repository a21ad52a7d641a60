import pytest
import torch
from forms import close, linear, oriented, permutation, product, random
from peft import BOFTConfig, OFTConfig, get_peft_model
from torch import nn

from weightsteer.terms import BaseWeight, Butterfly, Rotated, Sum
from weightsteer.terms.rotated import multiplied


def cayley(blocks: torch.Tensor) -> torch.Tensor:
    """Orthogonal blocks of any blocks."""
    skew = 0.25 * (blocks - blocks.transpose(-1, -2))
    eye = torch.eye(blocks.shape[-1]).expand_as(skew)
    return torch.linalg.solve(eye + skew, eye - skew)


@pytest.mark.parametrize("share", [True, False])
def test_blocks_are_those_of_oft(share, monkeypatch):
    """In PEFT's OFT a row x becomes x R per block: the delta W (R′ᵀ − I) and W (R′ − I) differ."""
    module = linear(6, 12, bias=True)
    base, x = BaseWeight.of(module), random(3, 5, 12)
    own = module(x)
    config = OFTConfig(target_modules=["0"], oft_block_size=4, r=0, block_share=share, use_cayley_neumann=False)
    adapted = get_peft_model(nn.Sequential(module), config).eval()
    rotation = adapted.base_model.model[0].oft_R["default"]
    with torch.no_grad():
        rotation.weight.copy_(0.3 * random(*rotation.weight.shape))
        expected = adapted(x)
        turned = rotation._cayley_batch(rotation.weight, 4, use_cayley_neumann=False)
    assert (expected - own).abs().max() > 0.1
    term = Rotated(turned.transpose(1, 2) - torch.eye(4), base)
    assert close(term.modifier(module)(x, own, own, torch.tensor(1.0)), expected, 1e-5)
    assert close(module(term.input_modifier(module)(x, torch.tensor(1.0))), expected, 1e-5)
    monkeypatch.setattr("weightsteer.terms.rotated.SMALL", 72)  # entries of this matrix: it is now applied in full
    assert close(term.modifier(module)(x, own, own, torch.tensor(1.0)), expected, 1e-5)
    assert term.input_modifier(module) is None


@pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension", "ignore:Setting boft_n_butterfly_factor")
@pytest.mark.parametrize("bias", [True, False])
def test_butterfly_is_boft(bias, monkeypatch):
    """Scale and rotation of PEFT's BOFT, whose scale leaves the bias alone."""
    module = linear(6, 12, bias=bias)
    base, x = BaseWeight.of(module), random(3, 5, 12)
    own = module(x)
    adapted = get_peft_model(nn.Sequential(module), BOFTConfig(target_modules=["0"], boft_block_size=4)).eval()
    layer = adapted.base_model.model[0]
    with torch.no_grad():
        layer.boft_R["default"].copy_(random(*layer.boft_R["default"].shape))
        layer.boft_s["default"].mul_(1 + 0.3 * random(6, 1))
        expected = adapted(x)
        turned = layer.cayley_batch(layer.boft_R["default"].view(-1, 4, 4)).view(1, 1, 3, 4, 4)
    scales = torch.stack([layer.boft_s["default"].detach().flatten(), -torch.ones(6)])
    factors = torch.cat([turned.transpose(-1, -2), torch.eye(4).expand(1, 1, 3, 4, 4)])
    term = Butterfly(scales, factors, base)
    assert close(term.modifier(module)(x, own, own, torch.tensor(1.0)), expected, 1e-5)
    monkeypatch.setattr("weightsteer.terms.rotated.SMALL", 72)
    assert close(term.modifier(module)(x, own, own, torch.tensor(1.0)), expected, 1e-5)
    assert close(term.delta(), term.columns(0, 12), 1e-6)


@pytest.mark.parametrize(("size", "m", "width"), [(2, 2, 8), (4, 3, 32), (6, 2, 24), (8, 4, 128)])
def test_factors_are_permuted_as_in_boft(size, m, width):
    """PEFT makes the permutations as full matrices; one group out of place is another rotation."""
    module = linear(5, width)
    base, W = BaseWeight.of(module), oriented(module)
    blocks = cayley(random(m, width // size, size, size)).double()
    # R′ = F′_(m−1) … F′_0 acts on rows of x, as in PEFT's forward
    right = torch.eye(width, dtype=torch.float64)
    for i in range(m):
        P = permutation(width, size, i)
        right = P @ torch.block_diag(*blocks[i]) @ P.T @ right
    x = random(3, width).double()
    term = Butterfly(torch.ones(1, 5), blocks.transpose(-1, -2)[None], base)
    expected = (x @ right) @ W.T
    assert close(x @ term.columns(0, width).T, expected, 1e-6)
    assert close(
        term.modifier(module.double())(x, x @ W.T, torch.zeros(3, 5), torch.tensor(1.0).double()), expected, 1e-6
    )


def test_difference_of_two_butterflies_forgets_the_base():
    """−W and +W of two branches must cancel exactly, and not be computed for every token."""
    base = BaseWeight.of(linear(6, 8))
    unturned = torch.eye(2).expand(1, 1, 4, 2, 2)
    turned = [cayley(random(1, 2, 4, 2, 2, seed=i)) for i in range(2)]
    branches = [
        Sum((6, 8), [(1.0, Butterfly(torch.ones(1, 6), f, base)), (-1.0, Butterfly(torch.ones(1, 6), unturned, base))])
        for f in turned
    ]
    (fused,) = branches[0].plus(branches[1].scaled(-1.0)).fused
    assert fused.scales.shape == (2, 6)
    assert torch.equal(fused.scales.sum(0), torch.zeros(6))


def test_summands_without_rotation_cost_no_product():
    """For the −W of a branch the module's own output is at hand; a second product would double the cost."""
    module = linear(6, 8)
    term = Butterfly(torch.ones(1, 6), torch.eye(2).expand(1, 1, 4, 2, 2), BaseWeight.of(module))
    x = random(2, 8)
    marked = torch.full((2, 6), 3.0)
    assert torch.equal(term.modifier(module)(x, marked, torch.zeros(2, 6), torch.tensor(1.0)), marked - module.bias)


def test_butterflies_of_other_depth_fuse_and_of_other_blocks_do_not():
    """Identity factors may be added; blocks of another size have other permutations."""
    module = linear(6, 24)
    base, W = BaseWeight.of(module), oriented(module)
    shallow, deep = random(1, 1, 6, 4, 4), random(1, 2, 6, 4, 4, seed=1)
    other = random(1, 2, 12, 2, 2, seed=2)
    terms = [Butterfly(torch.ones(1, 6), factors, base) for factors in (shallow, deep, other)]
    total = Sum((6, 24), [(c, term) for c, term in zip((1.0, 2.0, -1.0), terms, strict=True)])
    assert sorted(term.factors.shape for term in total.fused) == [(1, 2, 12, 2, 2), (2, 2, 6, 4, 4)]
    expected = W @ (product(shallow[0]) + 2 * product(deep[0]) - product(other[0]))
    assert close(sum(term.columns(0, 24) for term in total.fused), expected, 1e-5)
    assert close(total.delta(), expected, 1e-6)


def test_butterflies_that_cancel_fuse_to_nothing():
    """Equal turns of opposite sign in terms of different content: the sum is zero and must apply as zero."""
    module = linear(6, 8)
    base, factors = BaseWeight.of(module), random(1, 1, 4, 2, 2)
    one = Butterfly(torch.ones(1, 6), factors, base)
    same = Butterfly(torch.full((2, 6), 0.5), factors.expand(2, 1, 4, 2, 2), base)
    (fused,) = Sum((6, 8), [(1.0, one), (-1.0, same)]).fused
    assert fused.scales.shape == (0, 6)
    x = random(2, 8)
    assert torch.equal(fused.modifier(module)(x, module(x), module(x), torch.tensor(1.0)), module(x))
    assert not fused.columns(0, 8).any()


def test_blocks_of_other_sizes_fuse_on_the_common_multiple():
    """OFT branches of different block sizes have an exact difference, shared blocks or not."""
    base = BaseWeight.of(linear(5, 24))
    shared, three, full = (Rotated(random(*shape), base) for shape in ((1, 2, 2), (8, 3, 3), (1, 24, 24)))
    fused = Rotated.fuse([(1.0, shared), (-2.0, three)])
    assert fused.blocks.shape == (4, 6, 6)
    assert close(fused.columns(0, 24), shared.columns(0, 24) - 2 * three.columns(0, 24), 1e-6)
    assert Rotated.fuse([(1.0, shared), (1.0, Rotated(random(1, 3, 3), base))]).blocks.shape == (1, 6, 6)
    assert Rotated.fuse([(1.0, shared), (1.0, full)]).blocks.shape == (1, 24, 24)


def test_blocks_multiply_inputs_in_place_of_the_full_matrix():
    """What the modifiers are built on."""
    x, blocks = random(2, 3, 12).double(), random(3, 4, 4).double()
    assert close(multiplied(x, blocks), x @ torch.block_diag(*blocks).T)
    assert close(multiplied(x, blocks[:1]), x @ torch.block_diag(*[blocks[0]] * 3).T)
    # as the transposed output of attention is
    strided = random(3, 2, 12).double().transpose(0, 1)
    assert close(multiplied(strided, blocks), strided @ torch.block_diag(*blocks).T)
    assert close(multiplied(strided, blocks[:1]), strided @ torch.block_diag(*[blocks[0]] * 3).T)


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 4, 3), (12, 12), (1, 5, 5)])
def test_blocks_must_fill_the_width(shape):
    """Blocks that end early would leave features of the input out."""
    with pytest.raises(ValueError, match="block"):
        Rotated(torch.ones(shape), BaseWeight.of(linear(5, 12)))


@pytest.mark.parametrize(
    ("scales", "factors"),
    [((1, 5), (1, 1, 2, 4, 4)), ((2, 5), (1, 1, 3, 4, 4)), ((1, 5), (1, 2, 3, 4, 4)), ((1, 5), (1, 2, 4, 3, 3))],
)
def test_factors_must_fit(scales, factors):
    """Permutations exist for even blocks and widths of s · 2^(m−1) only."""
    with pytest.raises(ValueError, match=r"butterfly|scales"):
        Butterfly(torch.ones(scales), torch.ones(factors), BaseWeight.of(linear(5, 12)))

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank, Sum, Term, matrix_shape

sizes = st.integers(1, 12)
coefficients = st.floats(-1e3, 1e3).filter(lambda c: c == 0 or abs(c) > 1e-3)


def low_rank(d_out: int, d_in: int, rank: int, seed: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(d_out, rank, generator=generator), torch.randn(rank, d_in, generator=generator))


@st.composite
def sums(draw, count: int = 1):
    """Sums of random low-rank terms that share a shape and, now and then, a term."""
    d_out, d_in = draw(sizes), draw(sizes)
    ranks = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    pool = [low_rank(d_out, d_in, rank, seed) for seed, rank in enumerate(ranks)]
    part = st.tuples(coefficients, st.sampled_from(pool))
    return [Sum((d_out, d_in), draw(st.lists(part, max_size=4))) for _ in range(count)]


def dense(total: Sum) -> torch.Tensor:
    """The sum taken literally, in fp64."""
    parts = [c * (term.B.double() @ term.A.double()) for c, term in total.parts]
    return sum(parts, torch.zeros(total.shape, dtype=torch.float64))


def close(a: torch.Tensor, b: torch.Tensor, scale: float) -> bool:
    return bool((a.double() - b.double()).abs().max() <= 1e-5 * max(scale, 1e-6))


@settings(max_examples=60, deadline=None)
@given(sums(2), coefficients)
def test_algebra_is_that_of_the_dense_matrices(pair, c):
    """If not, a vector is another direction than its formula says."""
    u, v = pair
    size = float(dense(u).abs().max() + dense(v).abs().max()) + 1.0
    assert close(u.delta(), dense(u), size * 10)
    assert close(dense(u.plus(v)), dense(u) + dense(v), size)
    assert close(dense(u.scaled(c)), c * dense(u), size * abs(c))
    expected = float((dense(u) * dense(v)).sum())
    assert math.isclose(u.inner(v), expected, rel_tol=1e-9, abs_tol=1e-8 * size**2 * 150)
    assert math.isclose(u.norm(), float(dense(u).norm()), rel_tol=1e-6, abs_tol=1e-6 * size)


@settings(max_examples=60, deadline=None)
@given(sums(3))
def test_cancellation_is_exact(triple):
    """v − v must be nothing, not rounding noise that a sweep would report as an effect."""
    u, v, _ = triple
    zero = v.plus(v.scaled(-1.0))
    assert zero.parts == ()
    assert zero.norm() == 0.0
    assert not zero.delta().any()
    assert v.scaled(2.0).scaled(0.5) == v
    assert v.scaled(-1.0).scaled(-1.0) == v
    assert v.scaled(0.0) == zero
    assert u.plus(v) == v.plus(u)
    assert hash(u.plus(v)) == hash(v.plus(u))


@settings(max_examples=30, deadline=None)
@given(sums(1))
def test_rank_is_bounded_by_the_ranks_of_the_parts(single):
    """Export relies on it: a rank-2r adapter must be able to hold the difference of two rank-r ones."""
    (v,) = single
    assert torch.linalg.matrix_rank(v.delta().double(), rtol=1e-5) <= v.rank
    assert v.rank == sum(term.rank for _, term in v.parts)


@settings(max_examples=30, deadline=None)
@given(sums(1), st.integers(0, 2**31))
def test_randomized_keeps_the_spectrum_and_nothing_else(single, seed):
    """A control of another size or rank would not be a control."""
    (v,) = single
    drawn = v.randomized(torch.Generator().manual_seed(seed))
    before, after = (torch.linalg.svdvals(dense(total)) for total in (v, drawn))
    assert torch.allclose(before, after, rtol=1e-5, atol=1e-4 * float(before.max() if len(before) else 1))
    assert drawn == v.randomized(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dims", [(3, 5), (3, 4, 5)])
def test_modifier_applies_one_strength_per_row(dims):
    """y' = y + α·dW x for inputs with and without a token axis, and α = 0 rows left alone to the bit."""
    v = Sum((7, 5), [(0.5, low_rank(7, 5, 2, 0)), (-3.0, low_rank(7, 5, 3, 1))])
    x, y = torch.randn(*dims), torch.randn(*dims[:-1], 7)
    alpha = torch.tensor([0.0, -1.0, 2.5])
    change = v.modifier(nn.Linear(5, 7))
    expected = y + alpha.view(-1, *[1] * (len(dims) - 1)) * (x @ v.delta().T)
    assert torch.allclose(change(x, y, alpha), expected, atol=1e-5)
    assert torch.equal(change(x, y, alpha)[0], y[0])
    assert torch.allclose(change(x, y, torch.tensor(2.5))[2], expected[2], atol=1e-5)


def test_modifier_in_half_precision_does_not_round_the_strength():
    """In bf16 α = 0.3 is 0.30078: every effect would be 0.26% too large."""
    change = Sum((1, 1), [(1.0, LowRank(torch.ones(1, 1), torch.ones(1, 1)))]).modifier(nn.Linear(1, 1))
    x = torch.arange(1, 257, dtype=torch.bfloat16).view(-1, 1)
    y = torch.zeros_like(x)
    exact = (x.float() * 0.3009).to(torch.bfloat16)
    assert not torch.equal(x * torch.tensor(0.3009, dtype=torch.bfloat16), exact)
    for alpha in (torch.tensor(0.3009), torch.full((256,), 0.3009)):
        assert torch.equal(change(x, y, alpha), exact)


class Diagonal(Term):
    """A form that is no product of small matrices: what a new family may bring."""

    form = "test_diagonal"
    keys = ("scale",)

    def __init__(self, scale):
        self.scale = scale
        self.shape = (len(scale), len(scale))

    @classmethod
    def fuse(cls, parts):
        return cls(sum(c * term.scale for c, term in parts))

    def delta(self):
        return torch.diag(self.scale)

    def modifier(self, module):
        return lambda x, y, alpha: y + alpha.view(-1, 1) * x * self.scale

    def randomized(self, generator):
        return Diagonal(self.scale[torch.randperm(len(self.scale), generator=generator)])


def test_a_new_form_is_one_class_and_mixes_with_the_others():
    """If it took edits elsewhere, every family would have to know every other."""
    a, b = Diagonal(torch.arange(1.0, 6.0)), low_rank(5, 5, 2, 0)
    v = Sum((5, 5), [(2.0, a), (-1.0, b)])
    full = 2.0 * a.delta() - b.delta()
    assert torch.allclose(v.delta(), full, atol=1e-6)
    assert math.isclose(v.norm(), float(full.norm()), rel_tol=1e-6)
    x, y, alpha = torch.randn(3, 5), torch.randn(3, 5), torch.tensor([0.0, 1.0, -2.0])
    expected = y + alpha.view(-1, 1) * (x @ full.T)
    assert torch.allclose(v.modifier(nn.Linear(5, 5))(x, y, alpha), expected, atol=1e-5)
    assert v.plus(v.scaled(-1.0)) == Sum((5, 5))
    with pytest.raises(WeightsteerError, match="test_diagonal"):
        v.low_rank()


def test_infinite_coefficients_are_refused():
    """Otherwise ∞ − ∞ would put NaN into every logit."""
    with pytest.raises(WeightsteerError, match="infinite"):
        Sum((2, 2), [(1e300, low_rank(2, 2, 1, 0))]).scaled(1e300)


def test_matrix_shape_is_that_of_the_map_not_of_the_storage():
    """Conv1D stores (in, out); read as a Linear, GPT-2 would be steered by transposed matrices."""
    assert matrix_shape(nn.Linear(3, 5)) == (5, 3)
    assert matrix_shape(Conv1D(5, 3)) == (5, 3)
    assert matrix_shape(nn.Embedding(3, 5)) is None

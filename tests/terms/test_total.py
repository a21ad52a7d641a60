import math

import pytest
import torch
from forms import FORMS, case, close, linear, random, totals
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weightsteer.errors import WeightsteerError
from weightsteer.terms import BaseWeight, LowRank, RowScale, Sum, gram

low_rank_or_not = st.sampled_from([FORMS, ("low_rank",), ("low_rank", "bias")])
coefficients = st.floats(-1e3, 1e3).filter(lambda c: c == 0 or abs(c) > 1e-3)


def product(u, v) -> float:
    return float((u.matrix * v.matrix).sum() + u.bias @ v.bias)


@settings(max_examples=60, deadline=None)
@given(low_rank_or_not.flatmap(lambda forms: totals(2, forms)), coefficients)
def test_algebra_is_that_of_the_dense_matrices(pair, c):
    """If not, a vector is another direction than its formula says."""
    u, v = pair
    d_in = u.matrix.shape[1]
    assert close(u.sum.columns(0, d_in), u.matrix)
    assert close(u.sum.delta(), u.matrix, 1e-6)
    assert close(u.sum.plus(v.sum).columns(0, d_in), u.matrix + v.matrix)
    assert close(u.sum.scaled(c).columns(0, d_in), c * u.matrix)
    bias = u.sum.plus(v.sum).bias_delta()
    assert close(torch.zeros_like(u.bias) if bias is None else bias, u.bias + v.bias, 1e-6)
    size = math.sqrt(product(u, u) * product(v, v))
    assert math.isclose(u.sum.inner(v.sum), product(u, v), rel_tol=1e-6, abs_tol=1e-6 * (size + 1))
    assert math.isclose(u.sum.norm(), math.sqrt(product(u, u)), rel_tol=1e-6, abs_tol=1e-6)


@settings(max_examples=30, deadline=None)
@given(low_rank_or_not.flatmap(lambda forms: totals(3, forms)))
def test_gram_is_every_inner_product(triple):
    """The geometry of many vectors is read from it, once for all."""
    expected = torch.tensor([[product(u, v) for v in triple] for u in triple], dtype=torch.float64)
    found = gram([one.sum for one in triple])
    assert close(found, expected, 1e-6)
    assert torch.equal(found, found.T)
    assert gram([]).shape == (0, 0)


@settings(max_examples=60, deadline=None)
@given(totals(2))
def test_cancellation_is_exact(pair):
    """v − v must be nothing, not rounding noise that a sweep would report as an effect."""
    u, v = (one.sum for one in pair)
    zero = v.plus(v.scaled(-1.0))
    assert zero.terms == ()
    assert zero.norm() == 0.0
    assert not zero.delta().any()
    assert zero.bias_delta() is None
    assert v.scaled(2.0).scaled(0.5) == v
    assert v.scaled(-1.0).scaled(-1.0) == v
    assert v.scaled(0.0) == zero
    assert u.plus(v) == v.plus(u)
    assert hash(u.plus(v)) == hash(v.plus(u))


@settings(max_examples=60, deadline=None)
@given(totals(), st.sampled_from([(torch.float64, 1e-11), (torch.float32, 1e-5)]))
def test_modifier_is_the_matrix(single, precision):
    """Whatever the mix of forms: y' = y + α (dW x + b)."""
    (v,) = single
    dtype, tolerance = precision
    d_out, d_in = v.matrix.shape
    module = linear(d_out, d_in, bias=v.module.bias is not None).to(dtype)
    x, y = random(3, 2, d_in).to(dtype), random(3, 2, d_out, seed=1).to(dtype)
    alpha = torch.tensor([0.0, -1.0, 2.5], dtype=dtype)
    # what is applied is the fused sum, whose tensors are rounded to fp32 once
    matrix = sum((term.columns(0, d_in) for term in v.sum.fused), torch.zeros_like(v.matrix))
    biases = [bias for term in v.sum.fused if (bias := term.bias_delta()) is not None]
    bias = sum((one.double() for one in biases), torch.zeros_like(v.bias))
    assert close(matrix, v.matrix, 1e-5)
    exact = y.double() + alpha.double().view(-1, 1, 1) * (x.double() @ matrix.T + bias)
    steered = v.sum.modifier(module)(x, module(x), y, alpha)
    size = 1 + float(matrix.abs().sum())
    assert close(steered, exact, (1e-7 if biases else tolerance) * size)
    assert torch.equal(steered[0], y[0])
    if (through_input := v.sum.input_modifier(module)) is not None:
        assert close(module(through_input(x, alpha)), module(x) + steered - y, tolerance * size)


@settings(max_examples=30, deadline=None)
@given(totals(1, ("low_rank",)))
def test_rank_is_bounded_by_the_ranks_of_the_terms(single):
    """Export relies on it: a rank-2r adapter must be able to hold the difference of two rank-r ones."""
    (v,) = single
    assert torch.linalg.matrix_rank(v.matrix, atol=1e-9, rtol=0.0) <= v.sum.rank
    assert v.sum.rank == min(sum(term.rank for _, term in v.sum.terms), *v.sum.shape)
    assert v.sum.low_rank().rank == sum(term.rank for _, term in v.sum.terms)


@settings(max_examples=30, deadline=None)
@given(totals(1, ("low_rank",)), st.integers(0, 2**31))
def test_randomized_keeps_the_spectrum_of_low_rank_sums(single, seed):
    """A control of another size or rank would not be a control."""
    (v,) = single
    drawn = v.sum.randomized(torch.Generator().manual_seed(seed))
    before, after = (torch.linalg.svdvals(one.columns(0, v.matrix.shape[1])) for one in (v.sum, drawn))
    assert close(before, after, 1e-5)
    assert drawn == v.sum.randomized(torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(totals())
def test_randomized_keeps_the_norm_of_any_sum(single):
    """Forms that lean on each other do so no more in random directions: the whole must be scaled back."""
    (v,) = single
    drawn = v.sum.randomized(torch.Generator().manual_seed(0))
    assert drawn.norm() == pytest.approx(v.sum.norm(), rel=1e-4)


class Largest(TorchDispatchMode):
    """Notes the number of values of the largest tensor made."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.data_ptr() not in self.known:
                self.values = max(self.values, tensor.numel())
        return result

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.known = {tensor.data_ptr() for tensor in known}


@pytest.mark.parametrize("form", ["low_rank", "row_scale", "column_scale", "rotated", "bias"])
def test_no_dense_matrix_is_formed(form):
    """Steering and comparing vectors of a large model must not need a second model's memory."""
    module = linear(200, 256)
    v = Sum((200, 256), [(1.0, case(form, module, 0).term), (-1.0, case("low_rank", module, 1).term)])
    x, alpha = random(2, 3, 256), torch.tensor([1.0, 2.0])
    own = module(x)
    with Largest(module.weight) as seen:
        v.modifier(module)(x, own, own, alpha)
    assert seen.values <= 4 * 256 * 2
    if form in ("low_rank", "bias"):
        with Largest(module.weight) as seen:
            v.norm()
        assert seen.values <= 4 * 256 * 2


def test_inner_products_read_a_few_columns_at_a_time(monkeypatch):
    """The same in pieces as at once: an embedding in one piece would be gigabytes in fp64."""
    from weightsteer.terms import streaming

    module = linear(200, 256)
    v = Sum((200, 256), [(1.0, case("row_scale", module).term), (-1.0, case("butterfly", module, 1).term)])
    at_once = v.norm()
    monkeypatch.setattr(streaming, "_VALUES", 2000)
    with Largest(module.weight) as seen:
        assert v.norm() == pytest.approx(at_once, rel=1e-12)
    assert seen.values <= 4000


def test_bases_must_agree():
    """diag(s) W₁ + diag(t) W₂ is a delta of no model."""
    u, v = (Sum((6, 12), [(1.0, case("row_scale", linear(6, 12, seed)).term)]) for seed in (0, 1))
    assert [base.digest for base in u.bases] == [BaseWeight.of(linear(6, 12, 0)).digest]
    with pytest.raises(WeightsteerError, match="different base weights"):
        u.plus(v)
    with pytest.raises(WeightsteerError, match="another 6×12 base weight"):
        u.bind(linear(6, 12, 1))


def test_a_sum_is_bound_when_one_of_its_terms_is():
    """A loaded vector plus one of the model at hand: the base is known, so nothing is missing."""
    module = linear(6, 12)
    base = BaseWeight.of(module)
    loaded = Sum((6, 12), [(1.0, RowScale(random(6), BaseWeight(base.digest, base.shape)))])
    total = loaded.plus(Sum((6, 12), [(1.0, RowScale(random(6, seed=1), base))]))
    assert close(total.delta(), (random(6) + random(6, seed=1))[:, None] * module.weight, 1e-6)
    assert loaded.bind(module) == loaded
    assert loaded.bind(module).bases[0].bound


def test_infinite_coefficients_are_refused():
    """Otherwise ∞ − ∞ would put NaN into every logit."""
    with pytest.raises(WeightsteerError, match="infinite"):
        Sum((2, 2), [(1e300, LowRank(torch.ones(2, 1), torch.ones(1, 2)))]).scaled(1e300)


def test_only_low_rank_sums_are_one_pair_of_factors():
    """A dropped bias or scale would make the exported adapter another vector."""
    module = linear(6, 12)
    terms = [(1.0, case(form, module).term) for form in ("low_rank", "bias")]
    with pytest.raises(WeightsteerError, match="bias"):
        Sum((6, 12), terms).low_rank()
    assert Sum((6, 12)).low_rank().rank == 0
    assert close(Sum((6, 12), terms[:1]).low_rank().delta(), terms[0][1].delta())


def test_terms_of_another_shape_are_refused():
    """They would be broadcast."""
    with pytest.raises(ValueError, match="sum of shape"):
        Sum((6, 13), [(1.0, case("low_rank", linear(6, 12)).term)])


def test_nothing_changes_nothing():
    """A module whose parts cancelled stays in the vector; it must cost and change nothing."""
    module, x = nn.Linear(3, 3), torch.ones(2, 3)
    own = module(x)
    assert Sum((3, 3)).modifier(module)(x, own, own, torch.tensor(1.0)) is own
    assert Sum((3, 3)).input_modifier(module) is None
    assert Sum((3, 3)).norm() == 0.0

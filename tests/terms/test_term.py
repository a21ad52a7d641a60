"""What every form must do, whatever it is."""

from copy import deepcopy

import pytest
import torch
from forms import BASED, FORMS, case, cases, close, linear, random
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weightsteer.errors import WeightsteerError
from weightsteer.terms import BaseWeight, LowRank, Sum, Term

every_form = pytest.mark.parametrize("form", FORMS)
every_based_form = pytest.mark.parametrize("form", BASED)


def row(alpha: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return alpha.view(-1, *[1] * (like.dim() - 1)) if alpha.dim() else alpha


@every_form
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_matrix_and_bias_are_those_of_the_definition(form, data):
    """If not, the vector is another direction than its formula says."""
    one = data.draw(cases(form))
    d_in = one.matrix.shape[1]
    start = data.draw(st.integers(0, d_in - 1))
    stop = data.draw(st.integers(start + 1, d_in))
    assert close(one.term.columns(start, stop), one.matrix[:, start:stop])
    assert one.term.delta().dtype == torch.float32
    assert close(one.term.delta(), one.matrix, 1e-6)
    bias = one.term.bias_delta()
    assert close(torch.zeros_like(one.bias) if bias is None else bias, one.bias, 1e-6)
    assert torch.linalg.matrix_rank(one.matrix, rtol=1e-9) <= one.term.rank


@every_form
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_tensors_make_the_term_again(form, data):
    """Files hold tensors and options only: a term that came back different would steer differently after loading."""
    one = data.draw(cases(form))
    base = one.term.base
    unbound = None if base is None else BaseWeight(base.digest, base.shape)
    for found in (base, unbound):
        again = Term.forms[one.term.form].restore(one.term.tensors(), one.term.shape, found, one.term.options)
        assert again.digest == one.term.digest
    if base is not None:
        again = again.bound(base)
    assert again.digest == one.term.digest
    assert torch.equal(again.delta(), one.term.delta())
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in again.tensors().values())


@every_form
def test_digest_covers_content(form):
    """Terms of equal digest are joined: two that differ anywhere must not be."""
    module = linear(6, 12)
    same, other = (case(form, module, seed=seed).term for seed in (0, 1))
    assert case(form, module, seed=0).term.digest == same.digest
    assert other.digest != same.digest
    if form in BASED:
        assert case(form, linear(6, 12, seed=1), seed=0).term.digest != same.digest


@every_form
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_modifier_adds_alpha_times_the_delta(form, data):
    """The heart: y' = y + α (T x + b), for fp64 and fp32 models, one strength for all or one per row."""
    one = data.draw(cases(form))
    dtype, tolerance = data.draw(st.sampled_from([(torch.float64, 1e-12), (torch.float32, 2e-6)]))
    dims = data.draw(st.sampled_from([(3,), (3, 4), (3, 2, 2)]))
    module = deepcopy(one.module).to(dtype)
    d_out, d_in = one.matrix.shape
    x, y = random(*dims, d_in).to(dtype), random(*dims, d_out, seed=5).to(dtype)
    alpha = data.draw(st.sampled_from([torch.tensor(1.7), torch.tensor([0.0, -2.5, 0.3])])).to(dtype)
    before = x.clone(), y.clone()
    change = row(alpha, y).double() * (x.double() @ one.matrix.T + one.bias)
    result = one.term.modifier(module)(x, module(x), y, alpha)
    assert result.dtype == dtype
    assert close(result, y.double() + change, tolerance * (1 + float(one.matrix.abs().sum(1).max())))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_with_alpha_zero_stay_as_they_are(form, dtype):
    """A mixed batch has its own α = 0 rows: another bit there is another baseline than the model's."""
    module = linear(6, 12).to(dtype)
    term = case(form, module).term
    x, alpha = random(4, 3, 12).to(dtype), torch.tensor([0.0, 1.5, 0.0, -2.0])
    own = module(x)
    steered = term.modifier(module)(x, own, own, alpha)
    assert torch.equal(steered[[0, 2]], own[[0, 2]])
    assert not torch.equal(steered[[1, 3]], own[[1, 3]])
    if (through_input := term.input_modifier(module)) is not None:
        assert torch.equal(module(through_input(x, alpha))[[0, 2]], own[[0, 2]])


@every_form
def test_one_strength_per_row_is_one_call_per_strength(form):
    """α as a batch dimension must not mix rows."""
    module = linear(6, 12)
    modify = case(form, module).term.modifier(module)
    x, alphas = random(3, 5, 12), torch.tensor([-2.0, 0.5, 1.7])
    together = modify(x, module(x), module(x), alphas)
    for i, alpha in enumerate(alphas):
        own = module(x[i : i + 1])
        assert close(modify(x[i : i + 1], own, own, alpha), together[i : i + 1], 1e-5)


@every_form
@pytest.mark.parametrize("rows", [(), (50,)])
def test_half_precision_does_not_round_the_strength(form, rows):
    """In bf16 1.504 is 1.5: the strengths of a sweep would not be those that are reported."""
    module = linear(256, 128).bfloat16()
    one = case(form, module)
    x, alpha = random(50, 4, 128).bfloat16(), torch.full(rows, 1.504)
    own = module(x)
    modify = one.term.modifier(module)
    change, at_one = (
        modify(x, own, torch.zeros_like(own), strength).double() for strength in (alpha, torch.ones_like(alpha))
    )
    # the slope of one on the other: the rounding of single values averages out, that of α would not
    assert float((change * at_one).sum() / (at_one * at_one).sum()) == pytest.approx(1.504, abs=1e-3)
    exact = x.double() @ one.matrix.T + one.bias
    assert at_one.sub(exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("form", ["column_scale", "rotated"])
def test_the_other_input_has_the_same_effect(form):
    """It stands in for the modifier where nothing else is active: the two must be one function."""
    module = linear(6, 12).double()
    one = case(form, module)
    x, alpha = random(3, 4, 12).double(), torch.tensor([0.5, 0.0, -2.0]).double()
    expected = module(x) + alpha.view(-1, 1, 1) * (x @ one.matrix.T)
    assert close(module(one.term.input_modifier(module)(x, alpha)), expected)
    assert one.term.input_modifier(linear(6, 12, seed=3)) is None


@every_based_form
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_model_is_steered_with_the_matrix_of_the_base(form, dtype):
    """θ_ft + α·dW: dW is made of the base weight, not of the weight of the model that is steered."""
    one = case(form, linear(6, 12))
    module = linear(6, 12, seed=7).to(dtype)
    x, alpha = random(3, 4, 12).to(dtype), torch.tensor([0.0, 1.0, -2.0])
    own = module(x)
    steered = one.term.modifier(module)(x, own, own, alpha.double() if dtype == torch.float64 else alpha)
    change = alpha.double().view(-1, 1, 1) * (x.double() @ one.matrix.T + one.bias)
    assert steered.dtype == dtype
    assert close(steered, own.double() + change, 1e-12 if dtype == torch.float64 else 0.02)
    assert torch.equal(steered[0], own[0])


@every_form
def test_gradients_reach_strength_and_input(form):
    """Attribution and fits of α differentiate through a steered module."""
    module = linear(4, 8).double()
    modify = case(form, module).term.modifier(module)
    x = random(2, 3, 8).double().requires_grad_()
    alpha = torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True)

    def steered(x, alpha):
        own = module(x)
        return modify(x, own, own, alpha)

    assert torch.autograd.gradcheck(steered, (x, alpha))


@every_form
def test_copies_made_in_inference_mode_can_be_differentiated(form):
    """A bf16 model steered first under inference_mode must not break the next backward pass."""
    module = linear(6, 12).bfloat16()
    term = case(form, module).term
    x = random(3, 12).bfloat16()
    with torch.inference_mode():
        term.modifier(module)(x, module(x), module(x), torch.tensor(1.0))
    alpha = torch.ones(3, requires_grad=True)
    term.modifier(module)(x, module(x), module(x), alpha).sum().backward()
    assert alpha.grad.abs().min() > 0


@every_form
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_random_terms_keep_form_norm_and_shape(form, data):
    """A control of another size would not be a control; one that depends on hidden state could not be repeated."""
    one = data.draw(cases(form))
    seed = data.draw(st.integers(0, 2**31))
    drawn, again = (one.term.randomized(torch.Generator().manual_seed(seed)) for _ in range(2))
    assert drawn.digest == again.digest
    assert type(drawn) is type(one.term)
    assert drawn.rank == one.term.rank
    before, after = (Sum(one.term.shape, [(1.0, term)]).norm() for term in (one.term, drawn))
    assert after == pytest.approx(before, rel=1e-5)


@every_form
def test_random_terms_go_elsewhere(form):
    """A control in nearly the same direction would have nearly the same effect."""
    module = linear(48, 96)
    one = Sum((48, 96), [(1.0, case(form, module).term)])
    drawn = one.randomized(torch.Generator().manual_seed(1))
    assert abs(one.inner(drawn)) < 0.5 * one.norm() * drawn.norm()


@pytest.mark.parametrize("form", ["low_rank", "dense"])
def test_singular_values_are_kept(form):
    """The rank and the spectrum are part of what a control controls for."""
    term = case(form, linear(6, 12)).term
    drawn = term.randomized(torch.Generator().manual_seed(3))
    assert close(torch.linalg.svdvals(drawn.columns(0, 12)), torch.linalg.svdvals(term.columns(0, 12)), 1e-5)


@every_form
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_fused_terms_are_the_sum(form, data):
    """What is applied is the fused term; what is reported is the sum."""
    d_out, d_in = 6, 24
    module = linear(d_out, d_in)
    count = data.draw(st.integers(1, 4))
    sizes = [2] * count if form == "butterfly" else data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=count))
    many = [
        (data.draw(st.floats(-10, 10)), case(form, module, seed, sizes[seed], data.draw(st.integers(1, 3))))
        for seed in range(count)
    ]
    fused = type(many[0][1].term).fuse([(c, one.term) for c, one in many])
    assert close(fused.columns(0, d_in), sum(c * one.matrix for c, one in many), 1e-5)
    bias = fused.bias_delta()
    assert close(torch.zeros(d_out) if bias is None else bias, sum(c * one.bias for c, one in many), 1e-5)


def test_what_does_not_fit_is_refused():
    """A damaged file must not become a vector."""
    term = case("low_rank", linear(6, 12)).term
    with pytest.raises(WeightsteerError, match="low_rank"):
        LowRank.restore({"A": term.A}, (6, 12), None, {})
    with pytest.raises(WeightsteerError, match="do not multiply"):
        LowRank.restore({"A": term.A, "B": term.B.T}, (6, 12), None, {})
    with pytest.raises(WeightsteerError, match=r"\(6, 12\), but \(6, 13\)"):
        LowRank.restore(term.tensors(), (6, 13), None, {})


class Diagonal(Term):
    """A form that a new family may bring."""

    form = "test_diagonal"
    keys = ("scale",)

    def __init__(self, scale):
        self.scale = scale
        self.shape = (len(scale), len(scale))

    @classmethod
    def fuse(cls, terms):
        return cls(sum(c * term.scale for c, term in terms))

    def columns(self, start, stop):
        return torch.diag(self.scale)[:, start:stop].double()

    def modifier(self, module):
        return lambda x, own, y, alpha: y + alpha.view(-1, 1) * x * self.scale

    def randomized(self, generator):
        return Diagonal(self.scale[torch.randperm(len(self.scale), generator=generator)])


def test_a_new_form_is_one_class_and_mixes_with_the_others():
    """If it took edits elsewhere, every family would have to know every other."""
    a, b = Diagonal(torch.arange(1.0, 6.0)), case("low_rank", linear(5, 5)).term
    v = Sum((5, 5), [(2.0, a), (-1.0, b)])
    full = 2.0 * torch.diag(torch.arange(1.0, 6.0)).double() - b.columns(0, 5)
    assert close(v.delta(), full, 1e-6)
    assert v.norm() == pytest.approx(float(full.norm()))
    x, y, alpha = random(3, 5), random(3, 5, seed=1), torch.tensor([0.0, 1.0, -2.0])
    assert close(v.modifier(nn.Linear(5, 5))(x, y, y, alpha), y + alpha.view(-1, 1) * (x @ full.T.float()), 1e-5)
    assert v.plus(v.scaled(-1.0)) == Sum((5, 5))
    assert Term.forms["test_diagonal"].restore(a.tensors(), (5, 5), None, {}).digest == a.digest

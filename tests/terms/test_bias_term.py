import pytest
import torch
from forms import linear, random

from weightsteer.terms import Bias, Dense, Sum


def test_a_bias_counts_in_norm_and_inner_product():
    """With a zero matrix alone, a vector of biases would have norm 0 and no cosine."""
    u, v = (Sum((6, 12), [(2.0, Bias(random(6, seed=seed), 12))]) for seed in (0, 1))
    assert u.norm() == pytest.approx(2 * float(random(6).norm()))
    assert u.inner(v) == pytest.approx(4 * float(random(6) @ random(6, seed=1)), rel=1e-5)
    assert not u.delta().any()
    matrix = Sum((6, 12), [(1.0, Dense(random(6, 12)))])
    assert u.plus(matrix).norm() == pytest.approx((u.norm() ** 2 + matrix.norm() ** 2) ** 0.5)


def test_it_is_added_where_the_module_has_no_bias():
    """The bias family adds one to down_proj, which has none."""
    module = linear(6, 12, bias=False)
    own = module(random(3, 2, 12))
    steered = Bias(torch.arange(6.0), 12).modifier(module)(random(3, 2, 12), own, own, torch.tensor([0.0, 1.0, -2.0]))
    assert torch.equal(steered[1], own[1] + torch.arange(6.0))
    assert torch.equal(steered[2], own[2] - 2 * torch.arange(6.0))


def test_width_is_part_of_the_term():
    """Two modules of different widths are different modules."""
    assert Bias(torch.ones(6), 12).options == {"d_in": 12}
    assert Bias(torch.ones(6), 12).digest != Bias(torch.ones(6), 13).digest
    with pytest.raises(ValueError, match="bias of shape"):
        Bias(torch.ones(6, 1), 1)

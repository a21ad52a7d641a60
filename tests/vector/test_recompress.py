import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import NAMES, module, term, vectors
from vectors import made

from weightsteer.controls import control
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Bias, LowRank, Sum
from weightsteer.vector import WeightVector
from weightsteer.vector.recompress import recompress, truncated


def matrix(v: WeightVector, name: str) -> torch.Tensor:
    return v.terms[name].columns(0, v.terms.shape(name)[1])


@settings(max_examples=30, deadline=None)
@given(vectors(1), st.integers(1, 4))
def test_truncation_is_that_of_the_svd(drawn, rank):
    """Of any mix of forms: the nearest matrix of the rank, and just what the discarded singular values weigh."""
    (v,) = drawn
    u, lost = recompress(v, rank=rank)
    for name in v.names:
        full = matrix(v, name)
        U, values, V = torch.linalg.svd(full, full_matrices=False)
        expected = (U[:, :rank] * values[:rank]) @ V[:rank]
        size = float(full.norm())
        gap = float(values[rank - 1] - values[rank]) if rank < len(values) else size
        if gap > 1e-3 * size:  # else there are several nearest matrices
            assert torch.allclose(matrix(u, name), expected, atol=1e-5 * size)
        assert float((full - matrix(u, name)).norm()) <= float(values[rank:].norm()) + 1e-6 * size
        loss = lost.modules[name]
        assert math.isclose(loss.error, float(values[rank:].norm()), rel_tol=1e-6, abs_tol=1e-9 * size)
        assert loss.rank <= rank
        assert u.rank(name) == loss.rank
    expected_total = sum(part.error**2 for part in lost.modules.values())
    assert math.isclose(lost.total.error**2, expected_total, rel_tol=1e-9, abs_tol=1e-12)


@settings(max_examples=30, deadline=None)
@given(vectors(1), st.floats(0.01, 1.0))
def test_energy_is_kept_with_the_lowest_rank(drawn, energy):
    """Every module keeps the share that was asked for, and would not keep it with one rank less."""
    (v,) = drawn
    u, lost = recompress(v, energy=energy)
    for name, loss in lost.modules.items():
        squares = torch.linalg.svdvals(matrix(v, name)).square()
        whole = float(squares.sum())
        if not whole:
            assert loss.rank == 0
            continue
        assert float(squares[: loss.rank].sum()) >= (energy - 1e-9) * whole
        assert loss.rank == 0 or float(squares[: loss.rank - 1].sum()) <= (energy + 1e-9) * whole
        assert loss.energy_lost <= 1 - energy + 1e-9
    assert u.metadata["recompressed"]["energy_lost"] == lost.total.energy_lost


@settings(max_examples=30, deadline=None)
@given(vectors(1))
def test_biases_stay(drawn):
    """A bias has no singular values; dropping it would lose what the bias family is made of."""
    (v,) = drawn
    u, _ = recompress(v, rank=1)
    for name in v.names:
        before, after = v.bias_delta(name), u.bias_delta(name)
        assert (before is None) == (after is None)
        assert before is None or torch.equal(before, after)


def test_nothing_is_lost_at_the_true_rank(tmp_path):
    """A difference of two LoRAs of rank 4 is of rank 8: at 8 and above it only becomes one pair of factors."""
    _, v = made(tmp_path)
    doubled = v + 0.5 * control("random", v, 0) - 0.5 * control("random", v, 0)
    for rank in (8, 30):
        u, lost = recompress(doubled, rank=rank)
        assert lost.total.relative_error < 1e-12
        assert (u - v).norm() < 1e-6 * v.norm()
        assert {u.rank(name) for name in u.names} == {8}
        assert all(len(u.terms[name].terms) == 1 for name in u.names)
    half, lost = recompress(v, rank=4)
    assert 0.01 < lost.total.energy_lost < 0.5
    assert math.isclose(float((v - half).norm()), lost.total.error, rel_tol=1e-5)
    assert math.isclose(lost.total.relative_error**2, lost.total.energy_lost)


def test_factors_are_never_multiplied_out(monkeypatch):
    """A dense matrix for each of hundreds of modules would make this as slow as a merge."""
    generator = torch.Generator().manual_seed(0)
    total = Sum((300, 200), [(0.3, LowRank(*(torch.randn(s, generator=generator) for s in ((300, 3), (3, 200)))))])
    monkeypatch.setattr(Sum, "columns", None)
    monkeypatch.setattr(Sum, "delta", None)
    sums, lost = truncated({"a": total}, rank=2)
    assert sums["a"].rank == 2
    assert lost.modules["a"].before == 3


def test_what_was_done_is_remembered(tmp_path):
    """An approximation that does not say so passes for the exact vector."""
    _, v = made(tmp_path)
    u, lost = recompress(v, rank=2)
    metadata = u.metadata
    assert metadata["operations"] == ["recompressed to rank 2"]
    assert metadata["recompressed"]["relative_error"] == lost.total.relative_error
    assert set(metadata["recompressed"]["modules"]) == set(v.names)
    assert recompress(v, energy=0.9)[0].metadata["operations"] == ["recompressed to energy 0.9"]


def test_zero_and_bias_alone_have_no_factors():
    """Rank 0 is a rank: a module that changes nothing must not become one that does."""
    linear = module(NAMES[0], (3, 8))
    bias = term("bias", linear, torch.Generator().manual_seed(0))
    sums, lost = truncated({"zero": Sum((3, 8)), "bias": Sum((3, 8), [(2.0, bias)])}, energy=0.5)
    assert not sums["zero"].terms
    ((coefficient, kept),) = sums["bias"].terms
    assert isinstance(kept, Bias)
    assert torch.equal(coefficient * kept.vector, 2 * bias.vector)
    assert lost.total.rank == 0
    assert lost.total.energy_lost == 0.0


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({}, "one of"),
        ({"rank": 2, "energy": 0.5}, "one of"),
        ({"rank": 0}, "rank 0"),
        ({"energy": 0.0}, "share"),
        ({"energy": 1.5}, "share"),
    ],
)
def test_targets_without_a_meaning(target, reason):
    """Guessing which of two targets is meant would lose more than was allowed."""
    with pytest.raises(WeightsteerError, match=reason):
        truncated({"a": Sum((2, 2))}, **target)

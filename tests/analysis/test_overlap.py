"""Overlap: shares against dense numpy, the null against its exact moments, tautologies that are said to be ones."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from contrasts import random_vector
from tiny import tiny

from weightsteer.analysis import bases
from weightsteer.analysis.basis import Basis, generator, random_columns
from weightsteer.analysis.overlap import null_deviation, overlap, subspace_overlap
from weightsteer.analysis.projection import project
from weightsteer.analysis.ranks import effective_ranks
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Bias, Dense, LowRank, Sum
from weightsteer.vector import WeightVector

UP = "layers.0.up"


def single(*terms):
    """A vector of one module."""
    return WeightVector({UP: Sum(terms[0].shape, [(1.0, term) for term in terms])}, {})


def on(columns, side="output"):
    return Basis("test", side, "for a test", {UP: columns})


def line(frame, by="all", group="all"):
    return frame.row(by_predicate=(pl.col("by") == by) & (pl.col("group") == group), named=True)


def rows(frame, by):
    return frame.filter(frame["by"] == by)


@pytest.fixture(scope="module")
def trained():
    model, _ = tiny("qwen3")
    return model, random_vector(model)


@pytest.mark.parametrize("side", ["output", "input"])
def test_shares_are_what_projection_keeps(trained, side):
    """The table and the ablation must speak of the same part; modules add up by energy."""
    model, v = trained
    basis = bases.make("weights-top", model, rank=3, side=side)
    frame = overlap(v, basis, draws=20)
    part = project(v, basis)
    for name in v.names:
        B, dW = basis.vectors[name].double().numpy(), v.terms[name].columns(0, v.terms.shape(name)[1]).numpy()
        held = np.square(B.T @ dW if side == "output" else dW @ B).sum() / np.square(dW).sum()
        assert line(frame, "module", name)["share"] == pytest.approx(held, rel=1e-6)
    assert line(frame)["share"] == pytest.approx(part.norm() ** 2 / v.norm() ** 2, rel=1e-5)
    kinds, layers, modules = (rows(frame, by) for by in ("kind", "layer", "module"))
    assert kinds["modules"].sum() == layers["modules"].sum() == len(modules) == 28
    assert line(frame)["unit_share"] == pytest.approx(modules["share"].mean())
    mlp = v.keep("mlp.down_proj")
    expected = project(mlp, basis).norm() ** 2 / mlp.norm() ** 2
    assert line(frame, "kind", "mlp.down_proj")["share"] == pytest.approx(expected, rel=1e-5)
    assert frame["warning"].null_count() == len(frame)


def test_modules_the_basis_lacks_do_not_count(trained):
    """The share of a basis of writers is of what the vector writes, as `project` has it, not of the whole vector."""
    model, v = trained
    frame = overlap(v, bases.make("residual-write", model, rank=3), draws=20)
    assert line(frame)["modules"] == 8
    assert set(rows(frame, "kind")["group"]) == {"self_attn.o_proj", "mlp.down_proj"}


def test_the_null_has_its_exact_mean_and_spread():
    """A null with another spread makes a finding of noise, or noise of a finding."""
    d, k, n = 12, 3, 1000
    F = torch.randn(d, 5, generator=torch.Generator().manual_seed(0)).double()
    source = generator(0, "null")
    drawn = torch.stack([(random_columns(d, k, source).T @ F).square().sum() for _ in range(n)])
    deviation = null_deviation(F, k)
    whole = float(F.square().sum())
    assert abs(float(drawn.mean()) - whole * k / d) < 4 * deviation / math.sqrt(n)
    assert abs(float(drawn.std()) / deviation - 1) < 4 / math.sqrt(2 * n) * 1.2
    assert null_deviation(F, d) == 0.0


def test_drawn_nulls_agree_with_the_exact_ones():
    """Also where modules share one subspace: independent draws for each would make the null of their sum too narrow."""
    delta = LowRank(torch.randn(32, 2, generator=torch.Generator().manual_seed(0)), torch.eye(2, 8))
    v = WeightVector({f"layers.{layer}.up": Sum((32, 8), [(1.0, delta)]) for layer in range(8)}, {})
    columns = random_columns(32, 4, generator(1, "shared"))
    shared = Basis("shared", "output", "one for all", dict.fromkeys(v.names, columns))
    apart = Basis("apart", "output", "one for each", {n: random_columns(32, 4, generator(2, n)) for n in v.names})
    exact = null_deviation(delta.delta().double(), 4) / float(delta.delta().double().square().sum())
    for basis, deviation in ((shared, exact), (apart, exact / math.sqrt(8))):
        found = line(overlap(v, basis, draws=300))
        assert found["expected"] == pytest.approx(4 / 32)
        # 2.5 % and 97.5 % of a nearly normal distribution
        assert (found["high"] - found["low"]) / (2 * 1.96 * deviation) == pytest.approx(1.0, abs=0.2)
        assert found["z"] == pytest.approx((found["share"] - 4 / 32) / deviation, abs=0.3)


def test_random_subspaces_are_not_found_and_the_own_one_is(trained):
    """The null must reject what is planted and pass what is not: |z| stays small over many random bases."""
    model, v = trained
    z = [line(overlap(v, bases.make("random", model, rank=4, seed=seed), draws=60))["z"] for seed in range(12)]
    assert max(map(abs, z)) < 4
    assert abs(np.mean(z)) < 4 / math.sqrt(12)
    assert line(overlap(v, bases.make("own-stream", model, vector=v, rank=4), draws=60))["z"] > 8


def test_tautologies_are_called_so(trained):
    """A share of 1 that had to be 1 is the most convincing number in a table, and means nothing."""
    model, v = trained
    own = bases.make("own", vector=v, rank=8)
    assert "made from this vector and has 8 dimensions for its rank of 8" in line(overlap(v, own, draws=20))["warning"]
    assert "no other 2 directions" in line(overlap(v, own.first(2), draws=20))["warning"]
    assert "made from this vector" in line(overlap(v * 0.5, own.first(2), draws=20))["warning"]
    other = random_vector(model, seed=9)
    assert line(overlap(other, own, draws=20))["warning"] is None
    some = line(overlap(v.keep("q_proj") + other.keep("k_proj"), own.first(2), draws=20))["warning"]
    assert some.startswith("4 of 8 modules, for instance: a tautology: the basis was made from this vector")
    shared = bases.make("shared", vectors=[v, other], rank=2)
    assert "made from this vector" in line(overlap(other, shared, draws=20))["warning"]
    assert line(overlap(v, own.matched_random(0), draws=20))["warning"] is None


def test_a_basis_of_all_dimensions_is_a_tautology_without_z():
    """Every draw is the whole space: a z of 0/0 must not become a number."""
    v = single(LowRank(torch.randn(4, 1), torch.randn(1, 6)))
    found = line(overlap(v, on(torch.eye(4)), draws=20))
    assert (found["share"], found["expected"], found["z"]) == (pytest.approx(1.0), pytest.approx(1.0), None)
    assert "spans all 4 dimensions" in found["warning"]
    planted = single(LowRank(torch.eye(4)[:, :1], torch.randn(1, 6)))
    assert "the whole delta lies in the basis" in line(overlap(planted, on(torch.eye(4)[:, :2]), draws=20))["warning"]


def test_biases_count_as_projection_counts_them():
    """At the output as a column, at the input as what no input direction can hold."""
    v = single(Dense(torch.diag(torch.tensor([1.0, 2.0]))), Bias(torch.tensor([2.0, 0.0]), 2))
    first = torch.eye(2)[:, :1]
    assert line(overlap(v, on(first), draws=20))["share"] == pytest.approx((1 + 4) / 9)
    found = line(overlap(v, on(first, "input"), draws=20))
    assert found["share"] == pytest.approx(1 / 9)
    assert found["expected"] == pytest.approx(0.5 * 5 / 9)


def test_modules_without_a_delta_have_no_share():
    """0/0 in one module must not make the whole NaN."""
    v = WeightVector({UP: Sum((4, 4), [(1.0, Dense(torch.eye(4)))]), "layers.1.up": Sum((4, 4))}, {})
    basis = Basis("test", "output", "", dict.fromkeys(v.names, torch.eye(4)[:, :1]))
    frame = overlap(v, basis, draws=20)
    assert rows(frame, "module")["group"].to_list() == [UP]
    assert line(frame)["share"] == pytest.approx(0.25)
    with pytest.raises(WeightsteerError, match="is zero in all modules"):
        overlap(v.keep("layers.1.up"), basis, draws=20)


def test_the_null_is_that_of_the_seed(trained):
    """A table must come out the same twice."""
    model, v = trained
    basis = bases.make("residual-read", model, rank=2)
    first, again, other = (overlap(v, basis, draws=20, seed=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)
    assert first["share"].equals(other["share"])


def test_mistakes_are_named(trained):
    """Too few draws have no interval; a basis of another model has no meaning."""
    model, v = trained
    basis = bases.make("residual-read", model, rank=2)
    with pytest.raises(WeightsteerError, match="5 draws"):
        overlap(v, basis, draws=5)
    with pytest.raises(WeightsteerError, match=r"output of .* has 32 features"):
        overlap(v, Basis("wide", "output", "", {v.names[0]: torch.eye(64)[:, :2]}))
    with pytest.raises(WeightsteerError, match="made on tiny-llama"):
        overlap(v, bases.make("residual-read", tiny("llama")[0], rank=2))


def test_subspaces_overlap_by_their_principal_angles():
    """0 for orthogonal, 1 for nested, cos² θ for a turned line; the null is that of two random subspaces."""
    eye = torch.eye(10)
    found = subspace_overlap(on(eye[:, :2]), on(eye[:, :4])).row(0, named=True)
    assert (found["overlap"], found["expected"]) == (pytest.approx(1.0), pytest.approx(0.4))
    assert subspace_overlap(on(eye[:, :2]), on(eye[:, 2:4]))["overlap"][0] == 0.0
    turned = (math.cos(0.3) * eye[:, :1] + math.sin(0.3) * eye[:, 1:2]).contiguous()
    found = subspace_overlap(on(eye[:, :1]), on(turned)).row(0, named=True)
    assert found["cos_largest"] == found["cos_smallest"] == pytest.approx(math.cos(0.3), rel=1e-5)
    source = generator(0, "angles")
    pairs = [(on(random_columns(10, 3, source)), on(random_columns(10, 2, source))) for _ in range(100)]
    z = np.array([subspace_overlap(a, b)["z"][0] for a, b in pairs])
    assert abs(z.mean()) < 4 / math.sqrt(100)
    assert 0.7 < z.std() < 1.3
    with pytest.raises(WeightsteerError, match="different spaces"):
        subspace_overlap(on(eye[:, :1]), on(eye[:, :1], "input"))
    with pytest.raises(WeightsteerError, match="different models"):
        subspace_overlap(on(eye[:, :1]), on(torch.eye(4)[:, :1]))


def test_effective_ranks_count_equal_directions():
    """r equal singular values are r directions by every measure, one dominant value is about one."""
    frame = torch.linalg.qr(torch.randn(12, 4, generator=torch.Generator().manual_seed(0))).Q
    found = effective_ranks(single(LowRank(3 * frame, frame.T))).row(0, named=True)
    assert found["stable_rank"] == pytest.approx(4, rel=1e-5)
    assert found["participation_ratio"] == pytest.approx(4, rel=1e-5)
    assert (found["rank_90"], found["rank"], found["norm"]) == (4, 4, pytest.approx(6, rel=1e-5))
    spread = torch.diag(torch.tensor([10.0, 1.0, 1.0]))
    found = effective_ranks(single(Dense(spread), Bias(torch.ones(3), 3))).row(0, named=True)
    assert found["stable_rank"] == pytest.approx(1.02)
    assert found["participation_ratio"] == pytest.approx(102**2 / 10002)
    assert found["rank_90"] == 1
    zero = effective_ranks(WeightVector({UP: Sum((4, 4))}, {})).row(0, named=True)
    assert (zero["norm"], zero["stable_rank"], zero["rank_90"]) == (0.0, None, None)

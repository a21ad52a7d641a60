"""Projection identities: the parts make the whole exactly, and each equals its dense definition."""

import math

import numpy as np
import pytest
import torch
from contrasts import random_vector
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import vectors
from tiny import tiny
from vectors import ARCHITECTURES, batch, logits

from weightsteer.analysis.basis import Basis, random_columns
from weightsteer.analysis.projection import complement, project
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import Bias, Dense, LowRank, Sum
from weightsteer.vector import WeightVector

SIDES = ("output", "input")


def width(v, name, side):
    return v.terms.shape(name)[0 if side == "output" else 1]


def basis_for(v, side, rank=2, seed=0, names=None):
    generator = torch.Generator().manual_seed(seed)
    columns = {
        name: random_columns(width(v, name, side), min(rank, width(v, name, side)), generator)
        for name in names or v.names
    }
    return Basis(f"test-{side}", side, "random columns", columns)


def projector(basis, name):
    B = basis.vectors[name].double().numpy()
    return B @ B.T


def matrix(v, name):
    return v.terms[name].columns(0, v.terms.shape(name)[1]).numpy()


def same(a, b, size, tolerance=1e-5):
    return np.abs(a - b).max() <= tolerance * (1 + np.abs(size).max())


@settings(max_examples=25, deadline=None)
@given(drawn=vectors(1), side=st.sampled_from(SIDES), rank=st.integers(1, 4), seed=st.integers(0, 3))
def test_component_and_remainder_are_the_vector(drawn, side, rank, seed):
    """Otherwise what an ablation drops and what it keeps would not add up to what was trained."""
    (v,) = drawn
    basis = basis_for(v, side, rank, seed)
    assert project(v, basis) + complement(v, basis) == v
    assert complement(v, basis) + project(v, basis) == v


@settings(max_examples=30, deadline=None)
@given(drawn=vectors(1), side=st.sampled_from(SIDES), rank=st.integers(1, 4), seed=st.integers(0, 3))
def test_the_component_is_the_dense_projection(drawn, side, rank, seed):
    """A wrong side, order or coefficient in any form (rotations, scales, biases) would show here."""
    (v,) = drawn
    basis = basis_for(v, side, rank, seed)
    component, remainder = project(v, basis), complement(v, basis)
    for name in v.names:
        dW, P = matrix(v, name), projector(basis, name)
        expected = P @ dW if side == "output" else dW @ P
        assert same(matrix(component, name), expected, dW)
        assert same(matrix(remainder, name), dW - expected, dW)
        assert component.terms[name].rank <= basis.rank(name)
        bias, kept = v.bias_delta(name), component.bias_delta(name)
        if side == "input" or bias is None:
            assert kept is None
        else:
            assert kept is not None
            assert same(kept.double().numpy(), P @ bias.double().numpy(), bias.numpy())


@settings(max_examples=15, deadline=None)
@given(drawn=vectors(1, ("low_rank", "dense", "row_scale")), seed=st.integers(0, 3))
def test_both_sides_at_once(drawn, seed):
    """P_out dW P_in, with each projector on its own side."""
    (v,) = drawn
    out, into = basis_for(v, "output", 1, seed), basis_for(v, "input", 2, seed + 1)
    component = project(v, (out, into))
    assert component == project(project(v, out), into)
    for name in v.names:
        dW = matrix(v, name)
        assert same(matrix(component, name), projector(out, name) @ dW @ projector(into, name), dW)
    assert project(v, (into, out)) + complement(v, (into, out)) == v


@settings(max_examples=20, deadline=None)
@given(drawn=vectors(1), side=st.sampled_from(SIDES), rank=st.integers(1, 4))
def test_a_projection_is_idempotent_and_orthogonal_to_its_remainder(drawn, side, rank):
    """Projecting twice must change nothing, the remainder must have no component, and energies must add up."""
    (v,) = drawn
    basis = basis_for(v, side, rank)
    component, remainder = project(v, basis), complement(v, basis)
    scale = 1 + v.norm()
    assert (project(component, basis) - component).norm() <= 1e-5 * scale
    assert project(remainder, basis).norm() <= 1e-5 * scale
    assert math.isclose(component.norm() ** 2 + remainder.norm() ** 2, v.norm() ** 2, abs_tol=1e-5 * scale**2)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_parts_steer_like_the_whole(arch):
    """Both parts together must give the logits of the vector in a real architecture (GQA, tied, own head size)."""
    model, _ = tiny(arch, layers=1)
    v = random_vector(model)
    ids = batch()
    with steer(model, v, 1.0):
        expected = logits(model, ids)
    for side in SIDES:
        basis = basis_for(v, side, rank=3)
        with steer(model, {project(v, basis): 1.0, complement(v, basis): 1.0}):
            found = logits(model, ids)
        assert (expected - logits(model, ids)).abs().max() > 0.1
        assert (found - expected).abs().max() <= 1e-3


def test_modules_without_a_subspace_are_dropped_from_the_component_and_kept_in_the_remainder():
    """Otherwise the component would hold what was never projected, or the remainder would lose whole modules."""
    v = random_vector(tiny("qwen3", layers=2)[0])
    names = [name for name in v.names if name.endswith(("o_proj", "down_proj"))]
    basis = basis_for(v, "output", names=names)
    assert project(v, basis).names == names
    remainder = complement(v, basis)
    assert remainder.names == v.names
    assert all(remainder.terms[name] == v.terms[name] for name in v.names if name not in names)
    assert project(v, basis) + remainder == v


def test_matched_has_the_norm_of_what_was_projected():
    """A shorter part that does less proves nothing: the matched one has the norm the modules had before."""
    v = random_vector(tiny("qwen3", layers=2)[0])
    names = [name for name in v.names if name.endswith("o_proj")]
    basis = basis_for(v, "output", names=names)
    matched = project(v, basis, matched=True)
    assert math.isclose(matched.norm(), v.keep(names).norm(), rel_tol=1e-6)
    assert math.isclose(matched.cosine(project(v, basis)), 1.0, rel_tol=1e-6)


def test_a_component_keeps_the_lower_of_two_ranks():
    """A wide subspace must not blow a rank-2 delta up to its own rank, nor a narrow one keep the rank of the delta."""
    shape = (8, 6)
    v = WeightVector({"layers.0.up": Sum(shape, [(1.0, LowRank(torch.randn(8, 3), torch.randn(3, 6)))])}, {})
    assert project(v, basis_for(v, "output", 5)).rank("layers.0.up") == 3
    assert project(v, basis_for(v, "output", 2)).rank("layers.0.up") == 2


def test_the_whole_space_keeps_everything_and_an_orthogonal_one_nothing():
    """The two ends of every retained-effect curve."""
    v = WeightVector({"layers.0.up": Sum((4, 4), [(1.0, Dense(torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0]))))])}, {})
    eye = torch.eye(4)
    whole = Basis("whole", "output", "all", {"layers.0.up": eye})
    nothing = Basis("nothing", "output", "the null space", {"layers.0.up": eye[:, 2:]})
    assert math.isclose(project(v, whole).cosine(v), 1.0)
    assert complement(v, whole).norm() == 0.0
    assert project(v, nothing).norm() == 0.0
    assert math.isclose(complement(v, nothing).norm(), v.norm())
    with pytest.raises(WeightsteerError, match="no component"):
        project(v, nothing, matched=True)


def test_a_bias_belongs_to_the_output():
    """An input subspace cannot hold a bias, so the bias must be in the remainder, whole."""
    b = torch.tensor([1.0, 2.0, 3.0])
    v = WeightVector({"layers.0.up": Sum((3, 2), [(1.0, Bias(b, 2))])}, {})
    first = torch.eye(3)[:, :1]
    kept = project(v, Basis("first", "output", "feature 0", {"layers.0.up": first})).bias_delta("layers.0.up")
    assert kept is not None
    assert kept.tolist() == [1.0, 0.0, 0.0]
    into = Basis("in", "input", "feature 0", {"layers.0.up": torch.eye(2)[:, :1]})
    assert project(v, into).norm() == 0.0
    assert complement(v, into) + project(v, into) == v


def test_it_is_told_how_the_vector_was_made(tmp_path):
    """A saved part that looks like a trained vector would be mistaken for one."""
    v = random_vector(tiny("qwen3", layers=2)[0])
    part = project(v, basis_for(v, "output"))
    assert part.metadata["operations"][-1].startswith("projected on test-output (output, rank 2, ")
    assert part.metadata["geometry"] is None
    loaded = WeightVector.load(part.save(tmp_path / "part.safetensors"))
    assert loaded == part
    assert "projected on test-output" in repr(loaded)


def test_errors_name_the_module_the_side_and_the_widths():
    """A basis of the wrong width or model must be refused by name and not broadcast or silently skipped."""
    v = random_vector(tiny("qwen3", layers=2)[0])
    down = "model.layers.1.mlp.down_proj"
    wrong = Basis("wide", "output", "of the input's width", {down: torch.eye(64)[:, :2]})
    with pytest.raises(WeightsteerError, match=r"output of model\.layers\.1\.mlp\.down_proj has 32 features.*64 there"):
        project(v, wrong)
    other = Basis("other", "output", "elsewhere", {"model.layers.77.mlp.down_proj": torch.eye(32)[:, :2]})
    with pytest.raises(WeightsteerError, match="other modules"):
        complement(v, other)
    twice = basis_for(v, "output")
    with pytest.raises(WeightsteerError, match="one must be of the output and one of the input"):
        project(v, (twice, twice))
    foreign = Basis("foreign", "output", "x", {down: torch.eye(32)[:, :2]}, {"name": "elsewhere", "hash": "0" * 32})
    with pytest.raises(WeightsteerError, match="made on elsewhere"):
        project(v, foreign)

"""Controls computed from a vector: each keeps just what it says and nothing else."""

import math

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import FORMS, flat, module, term, vectors
from torch import nn
from vectors import batch, logits, made, peft_logits

from weightsteer import controls
from weightsteer.controls import layers
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import Sum
from weightsteer.vector import WeightVector

SHAPE = (6, 4)
PLACES = ("self_attn.q_proj", "mlp.up_proj")


def stacked(forms: list[list[str]], seed: int = 0) -> WeightVector:
    """A vector with two modules in each layer, the delta of layer l of the l-th forms."""
    generator = torch.Generator().manual_seed(seed)
    sums = {}
    for layer, chosen in enumerate(forms):
        for place in PLACES:
            linear = nn.Linear(SHAPE[1], SHAPE[0]).requires_grad_(False)
            parts = [(1.0 + index, term(form, linear, generator)) for index, form in enumerate(chosen)]
            sums[f"model.layers.{layer}.{place}"] = Sum(SHAPE, parts)
    return WeightVector(sums, {"adapter": "lora", "seed": 5})


some_forms = st.lists(st.lists(st.sampled_from(FORMS), min_size=1, max_size=3, unique=True), min_size=2, max_size=4)


def test_every_kind_says_what_it_would_show():
    """A control without a meaning cannot be read, and one that cannot be made is no control."""
    kinds = controls.kinds()
    assert list(kinds) == sorted(kinds)
    assert {kind.made_from for kind in kinds.values()} == {"vector", "branch", "pairs"}
    assert len({kind.shows for kind in kinds.values()}) == len(kinds)
    v = stacked([["low_rank"], ["low_rank"]])
    for name, kind in kinds.items():
        assert kind.name == name
        assert len(kind.shows.split()) > 5
        if kind.made_from == "vector":
            assert controls.control(name, v).names == v.names
        else:
            with pytest.raises(WeightsteerError, match=name):
                controls.control(name, v)
    with pytest.raises(WeightsteerError, match="random"):
        controls.control("randm", v)


@settings(max_examples=20, deadline=None)
@given(vectors(1), st.sampled_from([-2.0, -0.3, 1.0, 1.7]))
def test_the_sign_flip_is_the_vector_at_the_opposite_strength(drawn, strength):
    """Bit for bit, for every form: the mirrored rows of a table are then those of the control."""
    (v,) = drawn
    flipped = controls.control("sign-flip", v)
    for name in v.names:
        linear = module(name, v.terms.shape(name))
        x = torch.randn(3, 2, linear.in_features, generator=torch.Generator().manual_seed(1))
        own = linear(x)
        sides = [u.modify(name, linear)(x, own, own, torch.tensor(a)) for u, a in ((v, strength), (flipped, -strength))]
        assert torch.equal(*sides)


def test_a_flipped_model_is_the_model_steered_the_other_way(tmp_path):
    """The whole model, and against PEFT: the flip at −1 of a vector whose other branch is untrained."""
    model, v = made(tmp_path)
    flipped = controls.control("sign-flip", v)
    ids = batch()
    with steer(model, v, 0.7):
        steered = logits(model, ids)
    with steer(model, flipped, -0.7):
        assert torch.equal(logits(model, ids), steered)
    branch = WeightVector.from_branch(tmp_path / "positive1", model)
    with steer(model, controls.control("sign-flip", branch), -1.0):
        assert torch.allclose(logits(model, ids), peft_logits(model, tmp_path / "positive1", ids), atol=1e-4)


def test_mirrored_rows_are_those_of_the_control():
    """Strengths change sign, identities are kept apart, and rows of controls and prompts are not mirrored."""
    rows = pl.DataFrame(
        {
            "method": ["weight", "weight", "control", "prompt"],
            "adapter": ["lora", "lora", "lora-random", "embody"],
            "alpha": [0.0, 2.0, 2.0, 1.0],
            "logratio": [1.0, 2.0, 3.0, 4.0],
        }
    )
    flipped = controls.mirrored(rows)
    assert flipped.to_dict(as_series=False) == {
        "method": ["control", "control"],
        "adapter": ["lora-sign-flip", "lora-sign-flip"],
        "alpha": [0.0, -2.0],
        "logratio": [1.0, 2.0],
        "control": ["sign-flip", "sign-flip"],
        "control_of": ["lora", "lora"],
        "draw": [0, 0],
    }
    assert math.copysign(1.0, flipped["alpha"][0]) == 1.0
    v = stacked([["low_rank"]])
    assert controls.control("sign-flip", v).metadata["adapter"] == flipped["adapter"][0]


@settings(max_examples=20, deadline=None)
@given(vectors(1))
def test_direction_only_evens_the_norms_out(drawn):
    """Equal norms, the global norm and every direction kept; a module that did not move stays so."""
    (v,) = drawn
    if not v.norm():
        with pytest.raises(WeightsteerError, match="zero vector"):
            controls.control("direction-only", v)
        return
    u = controls.control("direction-only", v)
    moved = [name for name, norm in v.norms().items() if norm]
    assert math.isclose(u.norm(), v.norm(), rel_tol=1e-6)  # biases are kept in fp32
    for name in v.names:
        one, other = v.keep(name), u.keep(name)
        if name not in moved:
            assert other.norm() == 0.0
            continue
        assert math.isclose(other.norm(), v.norm() / math.sqrt(len(moved)), rel_tol=1e-6)
        assert math.isclose(one.cosine(other), 1.0, rel_tol=1e-6)


@settings(max_examples=20, deadline=None)
@given(vectors(1), st.integers(0, 3))
def test_magnitude_only_keeps_the_norms_alone(drawn, seed):
    """Every module's norm, of matrix and bias each; another seed, another direction; no base weight is needed."""
    (v,) = drawn
    u, again, other = (controls.control("magnitude-only", v, s) for s in (seed, seed, seed + 1))
    assert u == again
    assert u.names == v.names
    assert v.norm() == 0.0 or u != other
    for name in v.names:
        size = v.norms()[name]
        assert math.isclose(u.norms()[name], size, rel_tol=1e-6, abs_tol=1e-9)
        here = [total.bias_delta() for total in (v.terms[name], u.terms[name])]
        shifts = [0.0 if bias is None else float(bias.norm()) for bias in here]
        assert math.isclose(*shifts, rel_tol=1e-4, abs_tol=1e-5 * size)
        assert not u.terms.needs_base(name)
        assert u.keep(name) == controls.control("magnitude-only", v.keep(name), seed)


def test_magnitude_only_forgets_the_direction(tmp_path):
    """If it pointed the way of the vector, a norm profile would seem to steer."""
    _, v = made(tmp_path)
    cosines = [u.cosine(v) for u in controls.draws("magnitude-only", v, 4)]
    assert max(map(abs, cosines)) < 0.05
    assert len(set(cosines)) == 4


@settings(max_examples=20, deadline=None)
@given(some_forms, st.integers(0, 5))
def test_permuting_the_layers_moves_every_delta_whole(forms, seed):
    """Every delta is found in one other layer, as the same matrix and bias, those of one layer together."""
    v = stacked(forms)
    u = controls.control("layer-permuted", v, seed)
    assert u == controls.control("layer-permuted", v, seed)
    order = layers.cycle(range(len(forms)), seed)
    assert sorted(order.values()) == list(range(len(forms)))
    for layer, target in order.items():
        assert layer != target
        for place in PLACES:
            before, after = v.terms[f"model.layers.{layer}.{place}"], u.terms[f"model.layers.{target}.{place}"]
            assert torch.allclose(after.delta(), before.delta(), rtol=1e-5, atol=1e-5)
            biases = [
                torch.zeros(SHAPE[0]) if total.bias_delta() is None else total.bias_delta() for total in (before, after)
            ]
            assert torch.allclose(*biases, rtol=1e-5, atol=1e-5)
            assert not after.bases


@settings(max_examples=15, deadline=None)
@given(some_forms, st.integers(0, 5))
def test_permuting_back_gives_the_vector(forms, seed):
    """Exactly where no base weight is involved, else up to the rounding of the dense matrix."""
    v = stacked(forms)
    order = layers.cycle(range(len(forms)), seed)
    back = {target: layer for layer, target in order.items()}
    key = tuple(range(len(forms)))
    again = WeightVector(layers.permuted(layers.permuted(v.terms, {key: order}), {key: back}), {})
    assert torch.allclose(flat(again, v), flat(v, v), rtol=1e-5, atol=1e-5)
    if not any(total.bases for total in v.terms.values()):
        assert again == v


def test_layers_are_exchanged_only_where_there_are_two():
    """Other shapes, and modules outside the layers, stay; a vector of one layer has no such control."""
    generator = torch.Generator().manual_seed(0)

    def delta(d_out: int, d_in: int) -> Sum:
        return Sum((d_out, d_in), [(1.0, term("low_rank", nn.Linear(d_in, d_out), generator))])

    names = {
        "model.layers.1.mlp.up_proj": (6, 4),
        "model.layers.3.mlp.up_proj": (6, 4),
        "model.layers.5.mlp.up_proj": (8, 4),
        "model.layers.1.experts.0.w1": (6, 4),
        "model.layers.1.experts.1.w1": (6, 4),
        "lm_head": (9, 4),
    }
    v = WeightVector({name: delta(*shape) for name, shape in names.items()}, {})
    u = controls.control("layer-permuted", v)
    assert {name for name in names if u.terms[name] != v.terms[name]} == {
        "model.layers.1.mlp.up_proj",
        "model.layers.3.mlp.up_proj",
    }
    with pytest.raises(WeightsteerError, match="control random"):
        controls.control("layer-permuted", v.keep(1))


def test_draws_have_seeds_of_their_own():
    """Draws of two training seeds must not be the same; more draws contain fewer; what is not drawn comes once."""
    v = stacked([["low_rank"], ["dense"]])
    drawn = controls.draws("random", v)
    assert len(drawn) == controls.DRAWS >= 10
    assert drawn[0] == controls.control("random", v, 5)
    assert len(set(drawn)) == len(drawn)
    assert controls.draws("random", v, 3) == drawn[:3]
    both = [*drawn, *controls.draws("random", v.with_metadata(seed=6))]
    assert len(set(both)) == 2 * controls.DRAWS
    known = [(u.metadata["seed"], u.metadata["control"]["draw"]) for u in both]
    assert known == [(seed, draw) for seed in (5, 6) for draw in range(controls.DRAWS)]
    assert len(controls.draws("direction-only", v)) == 1
    assert controls.control("direction-only", v, seed=3).metadata["seed"] == 5
    with pytest.raises(WeightsteerError, match="at least one"):
        controls.draws("random", v, 0)


def test_controls_stand_beside_their_vector_in_tables():
    """A control of another behaviour, or with the labels of its vector, would be compared with nothing."""
    v = stacked([["low_rank"], ["low_rank"]]).with_metadata(behavior="candour", geometry={"reading": "far apart"})
    u = controls.control("layer-permuted", v, 9)
    assert u.method == "control"
    metadata = u.metadata
    assert [metadata[key] for key in ("behavior", "adapter", "seed")] == ["candour", "lora-layer-permuted", 5]
    assert metadata["control"] == {
        "kind": "layer-permuted",
        "of": v.digest,
        "of_adapter": "lora",
        "of_seed": 5,
        "draw": 0,
    }
    assert metadata["operations"] == ["control layer-permuted with seed 9"]
    assert metadata["geometry"] is None
    assert v.method == "weight"


def test_one_branch_alone(tmp_path):
    """τ⁺ and −τ⁻ add up to the vector; matched, they have its norm; the wrong side is missed."""
    model, v = made(tmp_path)
    folders = {"positive": tmp_path / "positive1", "negative": tmp_path / "negative1"}
    kinds = ("positive-branch", "negative-branch")
    plus, minus = (controls.one_branch(kind, folders, model, v, matched=False) for kind in kinds)
    total = plus + minus
    assert math.isclose(total.cosine(v), 1.0, rel_tol=1e-9)
    assert math.isclose(total.norm(), v.norm(), rel_tol=1e-6)
    with steer(model, plus, 1.0):
        assert torch.allclose(logits(model, batch()), peft_logits(model, folders["positive"], batch()), atol=1e-4)
    matched = controls.one_branch(kinds[1], folders, model, v)
    assert math.isclose(matched.norm(), v.norm(), rel_tol=1e-9)
    assert math.isclose(matched.cosine(minus), 1.0, rel_tol=1e-9)
    adapters = {u.metadata["adapter"] for u in (plus, minus, matched)}
    assert adapters == {
        "lora-positive-branch-as-trained",
        "lora-negative-branch-as-trained",
        "lora-negative-branch",
    }
    with pytest.raises(WeightsteerError, match="negative branch"):
        controls.one_branch(kinds[1], {"positive": folders["positive"]}, model, v)
    with pytest.raises(WeightsteerError, match=r"controls\.control"):
        controls.one_branch("random", folders, model, v)

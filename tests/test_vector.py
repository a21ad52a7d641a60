import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_lora, tiny
from vectors import made, vector_of

from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank, Sum
from weightsteer.vector import WeightVector

NAMES = ["model.layers.0.mlp.up_proj", "model.layers.2.self_attn.q_proj", "model.layers.10.mlp.down_proj"]
finite = st.floats(-100, 100).filter(lambda c: c == 0 or abs(c) > 1e-3)


@st.composite
def vectors(draw, count: int):
    """Vectors over random subsets of modules with random shapes (the same for all of them) and ranks."""
    shapes = {name: (draw(st.integers(1, 8)), draw(st.integers(1, 8))) for name in NAMES}
    drawn = []
    for index in range(count):
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
        generator = torch.Generator().manual_seed(index)
        terms = {}
        for name in names:
            (d_out, d_in), rank = shapes[name], draw(st.integers(1, 3))
            B, A = (torch.randn(s, generator=generator) for s in ((d_out, rank), (rank, d_in)))
            terms[name] = Sum((d_out, d_in), [(draw(finite), LowRank(B, A))])
        drawn.append(WeightVector(terms, {"behavior": "b", "adapter": "lora", "seed": index}))
    return drawn


def flat(v: WeightVector, like: WeightVector) -> torch.Tensor:
    """All deltas in one row, over the modules of ``like``; missing ones are zero."""
    return torch.cat(
        [
            (v.delta(name) if name in v.terms else torch.zeros(like.terms[name].shape)).double().flatten()
            for name in like.names
        ]
    )


@pytest.fixture(scope="module")
def v(tmp_path_factory) -> WeightVector:
    return made(tmp_path_factory.mktemp("vector"))[1]


@settings(max_examples=50, deadline=None)
@given(vectors(2), finite)
def test_algebra_over_any_modules(pair, c):
    """Vectors of different module sets add over the union; norm and cosine are those of the flat vectors."""
    u, v = pair
    total = u + v
    assert set(total.names) == set(u.names) | set(v.names)
    a, b = flat(u, total), flat(v, total)
    size = float(a.abs().max() + b.abs().max()) + 1
    assert torch.allclose(flat(total, total), a + b, atol=1e-5 * size)
    assert torch.allclose(flat(u - v, total), a - b, atol=1e-5 * size)
    assert torch.allclose(flat(c * u, total), c * a, atol=1e-5 * size * max(1, abs(c)))
    assert math.isclose(u.norm(), float(a.norm()), rel_tol=1e-5, abs_tol=1e-5 * size)
    if a.norm() > 1e-3 and b.norm() > 1e-3:
        expected = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
        assert math.isclose(u.cosine(v), expected, abs_tol=1e-5)
        assert math.isclose(u.cosine(u), 1.0, abs_tol=1e-12)
        assert math.isclose((u.norm_matched(v)).norm(), v.norm(), rel_tol=1e-9)


@settings(max_examples=50, deadline=None)
@given(vectors(2))
def test_identities_are_exact(pair):
    """They are the definition of the algebra; one that holds only nearly lets errors pile up unseen."""
    u, v = pair
    assert (v * 2) * 0.5 == v
    assert -(v * -1) == v
    assert u + v == v + u
    assert hash(u + v) == hash(v + u)
    assert (u + v).digest == (v + u).digest
    zero = v - v
    assert zero.norm() == 0.0
    assert zero.names == v.names
    assert all(not zero.delta(name).any() for name in v.names)
    assert zero == 0 * v
    if v.norm() > 0:
        assert v != 2 * v
        assert v.digest != (2 * v).digest


@pytest.mark.parametrize("rank", [1, 4])
def test_difference_of_two_branches(rank, tmp_path):
    """dW is θ⁺ − θ⁻ of the branches' own deltas, of rank at most 2r, without a dense matrix in between."""
    model, v = made(tmp_path, rank=rank)
    assert len(v.names) == 28
    for name in v.names:
        assert v.rank(name) == 2 * rank
        assert torch.linalg.matrix_rank(v.delta(name), rtol=1e-5) == 2 * rank
        assert v.delta(name).dtype == torch.float32
    swapped = WeightVector.from_adapters(tmp_path / "negative1", tmp_path / "positive1", model)
    assert swapped == -v
    same = WeightVector.from_adapters(tmp_path / "positive1", tmp_path / "positive1", model)
    assert same.norm() == 0.0


def test_provenance(tmp_path):
    """A vector that does not know its base, family and branches cannot be checked or repeated."""
    model, _ = tiny("qwen3")
    for side, seed in (("positive", 1), ("negative", 2)):
        folder = random_lora(model, tmp_path / side, seed=seed)
        record = {"side": side, "behavior": "honesty", "seed": 5, "recipe": {"lr": 1e-3}}
        (folder / "training.json").write_text(json.dumps(record))
    v = WeightVector.from_adapters(tmp_path / "positive", tmp_path / "negative", model)
    told = v.metadata
    assert (told["behavior"], told["adapter"], told["seed"], v.method) == ("honesty", "lora", 5, "weight")
    assert told["base"]["name"] == "tiny-qwen3"
    assert len(told["base"]["hash"]) == 32
    assert told["branches"]["negative"]["training"]["recipe"] == {"lr": 1e-3}
    assert told["branches"]["positive"]["config"]["r"] == 4
    assert str(tmp_path) not in json.dumps(told)
    told["base"]["name"] = "changed"
    assert v.metadata["base"]["name"] == "tiny-qwen3"
    overridden = WeightVector.from_adapters(
        tmp_path / "positive", tmp_path / "negative", model, metadata={"behavior": "mine"}
    )
    assert overridden.metadata["behavior"] == "mine"
    assert "honesty, lora on tiny-qwen3, 28 modules, rank ≤ 8" in repr(v)
    u = 0.5 * v - overridden.keep("mlp.*")
    assert u.metadata["behavior"] == "honesty + mine"
    assert u.metadata["operations"] == ["scaled by 0.5", f"minus {overridden.keep('mlp.*').digest}"]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        (1, 7),
        ("down_proj", 4),
        ("mlp.*", 12),
        ("*.self_attn.?_proj", 16),
        (range(2, 4), 14),
        (["q_proj", 0], 10),
        ("model.layers.3.mlp.up_proj", 1),
    ],
)
def test_keep_and_drop_split_the_vector(pattern, count, v):
    """What is kept and what is dropped must add up to the whole: no module lost, none twice."""
    kept, rest = v.keep(pattern), v.drop(pattern)
    assert len(kept.names) == count
    assert not set(kept.names) & set(rest.names)
    assert kept + rest == v


def test_patterns_that_match_nothing_are_mistakes(v):
    """An ablation that ablates nothing would be reported as "does not matter"."""
    for pattern in ("mlp", "down_projj", 4, ["up_proj", "nothing"]):
        with pytest.raises(WeightsteerError, match="matches"):
            v.drop(pattern)
    with pytest.raises(WeightsteerError, match="at least one module"):
        v.drop("*")
    with pytest.raises(WeightsteerError, match=r"did you mean 'model\.layers\.0\.mlp\.up_proj'"):
        v.delta("model.layers.0.mlp.up_prj")


def test_layers_are_in_order(tmp_path):
    """Figures per layer are drawn in the order of names: 10 comes after 9."""
    model, _ = tiny("qwen3", layers=12)
    v = vector_of(model, tmp_path, rank=1, targets=["q_proj", "up_proj"])
    layers = [int(name.split(".")[2]) for name in v.names]
    assert layers == sorted(layers)
    assert list(v.norms()) == v.names
    assert math.isclose(sum(n**2 for n in v.norms().values()), v.norm() ** 2, rel_tol=1e-12)


def test_vectors_of_different_bases_do_not_mix(tmp_path):
    """A cosine between directions in the weights of different models is a number without a meaning."""
    _, v = made(tmp_path / "a")
    other, _ = tiny("qwen3", seed=1)
    u = vector_of(other, tmp_path / "b")
    for operation in (lambda: v + u, lambda: v - u, lambda: v.cosine(u)):
        with pytest.raises(WeightsteerError, match=r"different base models: tiny-qwen3 .weights"):
            operation()
    reshaped = Sum((3, 3), [(1.0, LowRank(torch.ones(3, 1), torch.ones(1, 3)))])
    with pytest.raises(WeightsteerError, match="has shape"):
        v + WeightVector({v.names[0]: reshaped}, {})


def test_what_has_no_answer_is_refused(v):
    """Silent NaN would travel into every table built on it."""
    with pytest.raises(WeightsteerError, match="zero vector"):
        v.cosine(v - v)
    with pytest.raises(WeightsteerError, match="no direction"):
        (v - v).norm_matched(v)
    with pytest.raises(WeightsteerError, match="scaled by nan"):
        v * float("nan")
    with pytest.raises(WeightsteerError, match="must be JSON"):
        v.with_metadata(when=object())
    with pytest.raises(TypeError):
        v + 1
    with pytest.raises(TypeError):
        v * "two"

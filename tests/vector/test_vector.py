import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import finite, flat, vectors
from tiny import random_lora, tiny
from vectors import made, vector_of

from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank, Sum
from weightsteer.vector import WeightVector
from weightsteer.vector.algebra import gram
from weightsteer.vector.energy import energy
from weightsteer.vector.scaling import lines, scaled_by


@pytest.fixture(scope="module")
def v(tmp_path_factory) -> WeightVector:
    return made(tmp_path_factory.mktemp("vector"))[1]


@settings(max_examples=40, deadline=None)
@given(vectors(2), finite)
def test_algebra_over_any_forms(pair, c):
    """Vectors of different forms and module sets add over the union; norm and cosine are those of the flat vectors."""
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
        assert math.isclose(u.cosine(u), 1.0, abs_tol=1e-9)
        assert math.isclose((u.norm_matched(v)).norm(), v.norm(), rel_tol=1e-6)


@settings(max_examples=40, deadline=None)
@given(vectors(2), finite)
def test_identities_are_exact(pair, c):
    """They are the definition of the algebra; one that holds only nearly lets errors pile up unseen."""
    u, v = pair
    assert 1.0 * v is v
    assert (v * 2) * 0.5 == v
    assert -(v * -1) == v
    assert u + v == v + u
    assert (u + v) - u == v + 0 * u
    assert c * (u + v) == c * u + c * v
    assert hash(u + v) == hash(v + u)
    assert (u + v).digest == (v + u).digest
    zero = v - v
    assert zero.norm() == 0.0
    assert zero.names == v.names
    assert all(not zero.delta(name).any() and zero.bias_delta(name) is None for name in v.names)
    assert zero == 0 * v
    if v.norm() > 0:
        assert v != 2 * v
        assert v.digest != (2 * v).digest


@settings(max_examples=25, deadline=None)
@given(vectors(3), st.lists(finite, min_size=3, max_size=3))
def test_sums_and_products_of_many(three, coefficients):
    """One linear combination is the same as adding step by step, and the Gram matrix that of the flat vectors."""
    total = WeightVector.sum(three, coefficients)
    a, b, c = (factor * v for factor, v in zip(coefficients, three, strict=True))
    assert total == a + b + c
    assert WeightVector.sum(three) == three[0] + three[1] + three[2]
    rows = torch.stack([flat(v, total) for v in three])
    products = gram(three)
    assert products.dtype == torch.float64
    assert torch.allclose(products, rows @ rows.T, rtol=1e-5, atol=1e-5 * float(rows.square().sum() + 1))
    assert torch.equal(products, products.T)
    assert math.isclose(
        products[0, 1], three[0].inner(three[1]), rel_tol=1e-9, abs_tol=1e-9 * float(products.abs().max() + 1)
    )


def test_sums_remember_what_went_in(tmp_path):
    """A sum whose parts and coefficients are not known cannot be made again."""
    model, v = made(tmp_path)
    u, w = (vector_of(model, tmp_path, seed=seed, rank=1).with_metadata(seed=seed) for seed in (7, 8))
    metadata = WeightVector.sum([2 * v, u, w], [1.0, -1.0, 0.25]).metadata
    assert metadata["operations"] == ["scaled by 2.0", f"minus {u.digest}", f"plus 0.25 × {w.digest}"]
    assert [one["digest"] for one in metadata["with"]] == [u.digest, w.digest]
    assert metadata["seeds"] == [0, 7, 8]
    assert "geometry" not in metadata
    with pytest.raises(WeightsteerError, match="no vectors"):
        WeightVector.sum([])
    with pytest.raises(WeightsteerError, match="2 vectors and 1 coefficients"):
        WeightVector.sum([v, u], [1.0])
    with pytest.raises(WeightsteerError, match="scaled by inf"):
        WeightVector.sum([v], [math.inf])


def test_coefficients_by_module(v):
    """Layers and kinds of modules are scaled on their own; what several patterns match takes the product."""
    u = scaled_by(v, {"mlp.*": 0.5, 3: -2.0})
    for name in v.names:
        factor = (0.5 if "mlp" in name else 1.0) * (-2.0 if ".3." in name else 1.0)
        assert torch.equal(u.delta(name), (factor * v).delta(name))
    assert scaled_by(scaled_by(u, {3: -0.5}), {"mlp.*": 2.0}) == v
    assert u.metadata["operations"] == ["scaled by module: mlp.* × 0.5, 3 × -2.0"]
    with pytest.raises(WeightsteerError, match="matches 'nothing'"):
        scaled_by(v, {"nothing": 2.0})
    with pytest.raises(WeightsteerError, match="scaled by nan"):
        scaled_by(v, {3: math.nan})


def test_lines_grow_with_depth(v):
    """Layer l of L gets a + b · l / L: an L or l off by one would scale every layer wrongly, and unseen."""
    u = lines(v, 0.5, 0.25)
    assert u == scaled_by(v, {layer: 0.5 + 0.25 * layer / 4 for layer in range(4)})
    assert lines(v, 1.0, 1.0, layers=8) == scaled_by(v, {layer: 1 + layer / 8 for layer in range(4)})
    with pytest.raises(WeightsteerError, match="none of the 3 layers"):
        lines(v, layers=3)
    with pytest.raises(WeightsteerError, match="pass layers=28"):
        lines(WeightVector(v.terms, {}))


def test_energy_is_shared_out(v):
    """Shares by layer and by kind are those of the squared norms, and whole."""
    frame = energy(v.norms())
    norms = v.norms()
    whole = sum(norm**2 for norm in norms.values())
    for by, group, modules, norm, share in frame.iter_rows():
        part = [n for n in norms if (f".{group}." in n if by == "layer" else n.endswith(group))]
        assert modules == len(part)
        assert math.isclose(share, sum(norms[n] ** 2 for n in part) / whole, rel_tol=1e-9)
        assert math.isclose(norm, math.sqrt(share * whole), rel_tol=1e-9)
    assert frame["group"].to_list()[:4] == ["0", "1", "2", "3"]
    assert len(frame) == 4 + 7
    assert energy((v - v).norms())["share"].null_count() == 11


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
    metadata = v.metadata
    assert (metadata["behavior"], metadata["adapter"], metadata["seed"], v.method) == ("honesty", "lora", 5, "weight")
    assert metadata["base"]["name"] == "tiny-qwen3"
    assert len(metadata["base"]["hash"]) == 32
    assert metadata["branches"]["negative"]["training"]["recipe"] == {"lr": 1e-3}
    assert metadata["branches"]["positive"]["config"]["r"] == 4
    assert str(tmp_path) not in json.dumps(metadata)
    metadata["base"]["name"] = "changed"
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

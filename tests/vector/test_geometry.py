import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import flat, vectors
from tiny import random_lora, tiny

from weightsteer.terms import Dense, Sum
from weightsteer.vector import WeightVector
from weightsteer.vector.geometry import geometry

UP, DOWN, HEAD = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj", "lm_head"


def task(**values: list[float]) -> dict[str, Sum]:
    """A task vector with a row of numbers in each module."""
    named = {"up": UP, "down": DOWN, "head": HEAD}
    return {named[key]: Sum((1, len(row)), [(1.0, Dense(torch.tensor([row])))]) for key, row in values.items()}


@settings(max_examples=30, deadline=None)
@given(vectors(2))
def test_numbers_are_those_of_the_dense_vectors(pair):
    """Every diagnostic by its formula over the flat task vectors, for any mix of forms and of modules."""
    plus, minus = pair
    found = geometry(plus.terms, minus.terms).total
    union = plus + minus
    a, b = flat(plus, union), flat(minus, union)
    mean, half = (a + b) / 2, (a - b) / 2
    size = float(a.norm() + b.norm())
    if min(float(x.norm()) for x in (a, b, mean, half)) < 1e-3 * size or not size:
        return
    assert math.isclose(found.cos_anti, float(-(a @ b) / (a.norm() * b.norm())), abs_tol=1e-5)
    assert math.isclose(found.asymmetry, float(a.norm() / b.norm()), rel_tol=1e-5)
    assert math.isclose(found.drift_ratio, float(mean.norm() / half.norm()), rel_tol=1e-3)
    cosine = float((2 * half @ mean).abs() / ((2 * half).norm() * mean.norm()))
    assert math.isclose(found.cos_dW_M, cosine, abs_tol=1e-3)
    assert math.isclose(
        found.drift_share, float(mean.norm() ** 2 / (mean.norm() ** 2 + half.norm() ** 2)), abs_tol=1e-4
    )
    assert math.isclose(found.contrast, float((a - b).norm()), rel_tol=1e-3)


@settings(max_examples=15, deadline=None)
@given(vectors(1), st.floats(0.1, 10))
def test_antipodal_branches(drawn, c):
    """Branches that moved in opposite directions have no drift; the same branch twice is nothing but drift."""
    (plus,) = drawn
    if plus.norm() == 0:
        return
    opposite = geometry(plus.terms, (-1.0 * plus).terms)
    assert math.isclose(opposite.total.cos_anti, 1.0, abs_tol=1e-12)
    assert (opposite.total.drift_ratio, opposite.total.asymmetry, opposite.total.drift_share) == (0.0, 1.0, 0.0)
    assert opposite.total.cos_dW_M is None
    assert "nearly opposite directions" in opposite.reading
    assert "0% of what they learned is common drift" in opposite.reading
    same = geometry(plus.terms, plus.terms)
    assert (same.total.drift_ratio, same.total.drift_share) == (None, 1.0)
    assert "nearly the same direction" in same.reading
    assert "more than what sets them apart" in same.reading
    unequal = geometry((c * plus).terms, (-1.0 * plus).terms).total
    assert math.isclose(unequal.asymmetry, c, rel_tol=1e-5)


def test_hand_case():
    """Orthogonal branches of lengths 3 and 4: dW is 5 long, half of what was learned is drift."""
    pair = geometry(task(up=[3.0, 0.0]), task(up=[0.0, 4.0]))
    record = pair.total.record()
    assert record["cos_anti"] == 0.0
    assert record["asymmetry"] == 0.75
    assert record["drift_ratio"] == 1.0
    assert record["drift_share"] == 0.5
    assert math.isclose(record["cos_dW_M"], 3.5 / (5 * 2.5))
    assert pair.total.contrast == 5.0
    assert "nearly unrelated" in pair.reading
    assert "The negative branch moved 1.3 times as far" in pair.reading


def test_layers_and_kinds_are_kept_apart():
    """A pair may be antipodal in one layer and drift in another, which the whole does not show."""
    pair = geometry(task(up=[2.0, 0.0], down=[1.0], head=[1.0]), task(up=[-2.0, 0.0], down=[1.0]))
    assert list(pair.by_layer) == ["0", "1", "outside"]
    assert (pair.by_layer["0"].cos_anti, pair.by_layer["1"].cos_anti) == (1.0, -1.0)
    assert pair.by_layer["outside"].cos_anti is None
    assert pair.by_kind["mlp.down_proj"].drift_share == 1.0
    assert pair.by_kind["lm_head"].drift_share == 0.5
    assert sum(part.positive for part in pair.by_layer.values()) == pair.total.positive
    assert json.loads(json.dumps(pair.record(), allow_nan=False)) == pair.record()


def test_a_branch_that_did_not_move():
    """A zero branch has no direction: a number for its angle would be made up."""
    pair = geometry(task(up=[1.0]), task(up=[0.0]))
    assert pair.total.cos_anti is None
    assert pair.total.asymmetry is None
    assert pair.total.drift_ratio == 1.0
    assert "did not move" in pair.reading
    json.dumps(pair.record(), allow_nan=False)


def test_vectors_of_pairs_carry_it(tmp_path):
    """It is measured once, where both branches are known, and then travels with the vector."""
    model, _ = tiny("qwen3")
    folders = [random_lora(model, tmp_path / side, seed=seed) for seed, side in enumerate(("plus", "minus"))]
    v = WeightVector.from_adapters(*folders, model)
    plus, minus = (WeightVector.from_branch(folder, model) for folder in folders)
    record = v.metadata["geometry"]
    assert record["cos_anti"] == pytest.approx(-plus.cosine(minus))
    assert record["norm_positive"] == pytest.approx(plus.norm())
    assert list(record["by_layer"]) == ["0", "1", "2", "3"]
    assert "mlp.down_proj" in record["by_kind"]
    assert record["reading"] in " ".join(repr(v).split())

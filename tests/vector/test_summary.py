import json

import peft
import pytest
import torch
from tiny import random_lora, tiny

import weightsteer
from weightsteer.controls import control
from weightsteer.terms import Dense, LowRank, Sum
from weightsteer.vector import WeightVector


def of_norms(norms: dict[str, float]) -> WeightVector:
    """A vector with these norms of its modules."""
    terms = {
        name: Sum((2, 2), [(norm, LowRank(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]])))])
        for name, norm in norms.items()
    }
    return WeightVector(terms, {})


def test_one_screen_tells_what_a_vector_is(tmp_path):
    """Behaviour, family, base, size, energy, recipe, versions, geometry: what tells two vectors in a notebook apart."""
    model, _ = tiny("qwen3", layers=12)
    for side, seed in (("positive", 1), ("negative", 2)):
        folder = random_lora(model, tmp_path / side, seed=seed)
        training = {"side": side, "behavior": "honesty", "seed": 5, "recipe": {"name": "paper", "lr": 1e-5, "rank": 4}}
        (folder / "training.json").write_text(json.dumps(training))
    v = WeightVector.from_adapters(tmp_path / "positive", tmp_path / "negative", model)
    lines = repr(v).splitlines()
    assert lines[0] == f"WeightVector(honesty, lora on tiny-qwen3, 84 modules, rank ≤ 8, norm {v.norm():.4g})"
    assert len(lines) < 12
    assert max(map(len, lines)) <= 110
    text = " ".join(repr(v).split())
    assert "seed 5, recipe paper (lr 1e-05 rank 4)" in text
    assert f"weightsteer {weightsteer.__version__}, PEFT {peft.__version__}" in text
    assert "mlp.down_proj" in text
    assert "common drift" in text
    for factor in range(6):
        v = (factor + 2) * v
    assert "then 2 more; scaled by 4.0; scaled by 5.0; scaled by 6.0; scaled by 7.0" in " ".join(repr(v).split())
    assert "lora-random" in repr(control("random", v, 0))
    assert "common drift" not in repr(control("random", v, 0))


@pytest.mark.parametrize(
    ("norms", "reading"),
    [
        ({"model.layers.8.a": 1.0, "model.layers.9.a": 2.0}, "8 ▃█ 9, most in layer 9 (80%)"),
        ({"model.layers.8.a": 1.0, "lm_head": 1.0}, "8 (50%), outside the layers 50%"),
        ({"lm_head": 1.0}, "outside the layers 100%"),
        ({f"model.layers.0.k{i}": 1.0 for i in range(9)}, "k6 11%, 2 more"),
    ],
)
def test_where_the_energy_is(norms, reading):
    """A bar drawn for the wrong layer sends the reader to the wrong ablation."""
    assert reading in repr(of_norms(norms))


def test_anything_can_be_shown():
    """A repr that raises hides the object that is to be debugged."""
    for v in (
        of_norms({"a": 1.0}) - of_norms({"a": 1.0}),
        WeightVector(
            {"a": Sum((2, 1), [(1.0, Dense(torch.ones(2, 1)))])}, {"base": {"name": None}, "branches": {"x": {}}}
        ),
        of_norms({"a": 1.0}).with_metadata(geometry=None, branches={"x": {"training": None}}),
    ):
        assert repr(v).startswith("WeightVector(unnamed, unknown on unknown base, 1 modules")
    assert "energy" not in repr(of_norms({"a": 0.0}))

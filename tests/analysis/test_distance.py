import json
import math

import pytest
import torch
from tiny import tiny
from vectors import made

from weightsteer.analysis.distance import base_distance
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Bias, Dense, Sum
from weightsteer.vector import WeightVector


def moved(model, v, c: float = 0.0, noise: float = 0.0):
    """A fine-tune that moved by c along the vector, and by noise everywhere."""
    other, _ = tiny("qwen3")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=generator)
        for name in v.names:
            other.get_submodule(name).weight += c * v.delta(name)
    return other


def test_numbers_are_those_of_the_weights(tmp_path):
    """Against the flat fp64 weights of both models, over the vector's modules and over everything."""
    model, whole = made(tmp_path)
    v = whole.keep("mlp.*")
    other = moved(model, v, c=-0.5, noise=0.02)
    report = base_distance(v, other, model)
    here, there = (
        torch.cat([one.get_submodule(name).weight.double().flatten() for name in v.names]) for one in (other, model)
    )
    delta = torch.cat([v.delta(name).double().flatten() for name in v.names])
    step = here - there
    assert math.isclose(report.total.relative, float(step.norm() / there.norm()), rel_tol=1e-6)
    assert math.isclose(report.total.in_vectors, float(step.norm() / delta.norm()), rel_tol=1e-6)
    assert math.isclose(report.total.cosine, float(step @ delta / (step.norm() * delta.norm())), abs_tol=1e-6)
    pairs = list(zip(other.parameters(), model.parameters(), strict=True))
    far = math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in pairs))
    size = math.sqrt(sum(float(b.double().square().sum()) for _, b in pairs))
    assert math.isclose(report.everywhere, far / size, rel_tol=1e-9)
    assert set(report.modules) == set(v.names)
    assert json.loads(json.dumps(report.record())) == report.record()
    assert "moved against the vector" in report.reading


def test_hand_cases(tmp_path):
    """The base itself is no distance away; a model that is the base steered is one length of the vector away."""
    model, v = made(tmp_path)
    same = base_distance(v, model, model)
    assert (same.total.relative, same.everywhere, same.total.cosine) == (0.0, 0.0, None)
    assert "does not differ anywhere" in same.reading
    steered = base_distance(v, moved(model, v, c=1.0), model)
    assert steered.total.in_vectors == pytest.approx(1.0, rel=1e-5)
    assert steered.total.cosine == pytest.approx(1.0, abs=1e-6)
    assert "already moved in the direction of the vector" in steered.reading
    assert "the vector itself is zero" in base_distance(v - v, moved(model, v, c=1.0), model).reading
    rest = v.drop("mlp.*")
    assert "in the modules of the vector" in base_distance(rest, moved(model, v.keep("mlp.*"), c=1.0), model).reading


def test_biases_norms_and_embeddings_count(tmp_path):
    """A full fine-tune changes more than matrices; leaving those out would make it look nearer."""
    model, _ = tiny("qwen2")
    other, _ = tiny("qwen2")
    with torch.no_grad():
        other.model.layers[0].self_attn.q_proj.bias += 3.0
        other.model.norm.weight += 2.0
        other.model.embed_tokens.weight += 1.0
    q, norm, table = "model.layers.0.self_attn.q_proj", "model.norm", "model.embed_tokens"
    rows, width = model.model.embed_tokens.weight.shape
    v = WeightVector(
        {
            q: Sum((32, 32), [(1.0, Bias(torch.ones(32), 32))]),
            norm: Sum((32, 1), [(1.0, Dense(torch.ones(32, 1)))]),
            table: Sum((rows, width), [(-1.0, Dense(torch.ones(rows, width)))]),
        },
        {},
    )
    report = base_distance(v, other, model)
    assert [report.modules[name].in_vectors for name in (q, norm, table)] == pytest.approx([3.0, 2.0, 1.0], rel=1e-5)
    assert [report.modules[name].cosine for name in (q, norm, table)] == pytest.approx([1.0, 1.0, -1.0], abs=1e-5)


def test_other_architectures_have_no_distance(tmp_path):
    """A number for two models of different layers would compare weights that have nothing to do with each other."""
    model, v = made(tmp_path)
    deeper, _ = tiny("qwen3", layers=5)
    for pair in ((deeper, model), (model, deeper)):
        with pytest.raises(WeightsteerError, match=r"fine-tunes of one model|lacks the parameter"):
            base_distance(v, *pair)

"""Making bases: the registry, subspaces of vectors, intersections, the example of the documentation."""

import re
from pathlib import Path

import pytest
import torch
from contrasts import random_vector
from tiny import tiny

from weightsteer.analysis import bases
from weightsteer.analysis.bases import Materials
from weightsteer.analysis.basis import Basis, random_columns
from weightsteer.analysis.projection import complement, project
from weightsteer.errors import WeightsteerError
from weightsteer.models import weight_hash
from weightsteer.terms import Bias, Dense, Sum
from weightsteer.vector import WeightVector
from weightsteer.vector.recompress import recompress

DOCS = Path(__file__).parent.parent.parent / "docs"
O_PROJ = "model.layers.0.self_attn.o_proj"


def trained():
    model, _ = tiny("qwen3")
    return model, random_vector(model)


def share(v, basis):
    part = project(v, basis)
    return part.norm() ** 2 / v.keep(part.names).norm() ** 2


def near(first, second):
    return float(torch.linalg.svdvals(first.T.double() @ second.double()).min())


def test_every_kind_says_what_it_is(tmp_path):
    """A stored basis must tell from what it was made, and on which weights."""
    model, v = trained()
    other = random_vector(model, seed=5)
    materials = Materials(model, vector=v, vectors=[v, other])
    assert len(bases.names()) >= 20
    for name, kind in bases.kinds().items():
        if "pairs" in kind.needs:
            continue
        basis = bases.from_materials(name, materials, rank=3)
        assert basis.name == name
        assert basis.side == kind.sides[0]
        assert basis.origin == kind.origin.replace("{seed}", "0") + " of tiny-qwen3"
        assert basis.base["hash"] == weight_hash(model)
        assert {basis.rank(module) for module in basis.names} == {3}
        assert Basis.load(basis.save(tmp_path / "basis.safetensors")).digest == basis.digest
        assert bool(basis.made_from) == bool({"vector", "vectors"} & set(kind.needs))


@pytest.mark.parametrize("side", ["output", "input"])
def test_the_own_subspace_holds_the_leading_singular_values(side):
    """It is the ceiling every other basis of that rank is compared with; all of its rank holds the vector whole."""
    model, v = trained()
    top = project(v, bases.make("own", model, vector=v, rank=2, side=side))
    best, _ = recompress(v, rank=2)
    assert (top - best).norm() <= 1e-5 * v.norm()
    whole = project(v, bases.make("own", vector=v, rank=8, side=side))
    assert (whole - v).norm() <= 1e-5 * v.norm()


def test_the_own_subspace_of_other_forms():
    """A full-rank delta, one with a bias, and one that is zero."""
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    names = ["layers.0.up", "layers.1.up", "layers.2.up"]
    v = WeightVector(
        {
            names[0]: Sum((6, 4), [(2.0, Dense(values))]),
            names[1]: Sum((6, 4), [(1.0, Bias(torch.arange(6.0), 4))]),
            names[2]: Sum((6, 4)),
        },
        {},
    )
    basis = bases.make("own", vector=v, rank=2)
    assert basis.names == names[:2]
    left = torch.linalg.svd(values.double()).U[:, :2]
    assert near(left, basis.vectors[names[0]]) > 1 - 1e-6
    assert near(torch.arange(6.0)[:, None] / torch.arange(6.0).norm(), basis.vectors[names[1]]) > 1 - 1e-6
    with pytest.raises(WeightsteerError, match="no direction at any module"):
        bases.make("own", vector=v.keep("layers.2.up"))


def test_one_subspace_for_all_writers_is_a_ceiling():
    """No fixed basis of the stream can hold more, or the ceiling in the tables would be none."""
    model, v = trained()
    materials = Materials(model, vector=v)
    ceiling = bases.from_materials("own-stream", materials, rank=4)
    assert len(ceiling.groups) == 1
    best = share(v, ceiling)
    others = ["residual-read", "residual-write", "readout", "random", "write-not-read"]
    assert all(share(v, bases.from_materials(name, materials, rank=4)) < best for name in others)
    assert all(share(v, ceiling.matched_random(seed)) < best for seed in range(5))
    with pytest.raises(WeightsteerError, match="no module that writes"):
        bases.make("own-stream", model, vector=v.keep("q_proj"))


def test_shared_subspaces_weigh_families_equally():
    """Unnormalised, the vector with the largest norm is the basis; unweighted, the family with most seeds."""
    model, _ = tiny("qwen3", layers=1)
    v, u = (random_vector(model, seed=seed, rank=1) for seed in (1, 5))
    u = u.with_metadata(adapter="dora")
    plain = bases.make("shared", model, vectors=[v, u], rank=2)
    loud = bases.make("shared", model, vectors=[v * 1000.0, u], rank=2)
    crowded = bases.make("shared", model, vectors=[v, v * 0.5, v * 2.0, u], rank=2)
    for name in plain.names:
        assert near(plain.vectors[name], loud.vectors[name]) > 1 - 1e-5
        assert near(plain.vectors[name], crowded.vectors[name]) > 1 - 1e-5
    assert abs(share(v, plain) - share(u, plain)) < 0.15
    with pytest.raises(WeightsteerError, match="at least two"):
        bases.make("shared", model, vectors=[v])
    with pytest.raises(WeightsteerError, match="no module in common"):
        bases.make("shared", model, vectors=[v.keep("q_proj"), u.keep("k_proj")])


def test_what_vectors_share_is_found():
    """A direction both have, under larger ones of their own that differ."""
    generator = torch.Generator().manual_seed(0)
    common, first, second = torch.linalg.qr(torch.randn(16, 3, generator=generator)).Q.T
    rows = torch.eye(8)

    def vector(own, adapter):
        dense = Dense(torch.outer(common, rows[0]) + 1.2 * torch.outer(own, rows[1]))
        return WeightVector({"layers.0.up": Sum((16, 8), [(1.0, dense)])}, {"adapter": adapter})

    basis = bases.make("shared", vectors=[vector(first, "lora"), vector(second, "oft")], rank=1)
    assert abs(float(common @ basis.vectors["layers.0.up"][:, 0])) > 0.95


def test_an_intersection_finds_what_both_hold():
    """Planted in two subspaces that are random otherwise."""
    generator = torch.Generator().manual_seed(0)
    planted = random_columns(40, 1, generator)

    def holding(name):
        columns = torch.linalg.qr(torch.cat([planted, random_columns(40, 4, generator)], dim=1)).Q
        return Basis(name, "output", "planted", dict.fromkeys([O_PROJ, "model.layers.1.self_attn.o_proj"], columns))

    both = bases.intersection(holding("a"), holding("b"), 1)
    assert both.name == "a&b"
    assert len(both.groups) == 1
    assert near(planted, both.vectors[O_PROJ]) > 0.999


def test_intersections_are_made_by_name():
    """Each part at twice the rank, so that there is something to choose from."""
    model, v = trained()
    materials = Materials(model, vector=v)
    basis = bases.from_materials("residual-write & readout-weak", materials, rank=2)
    parts = [bases.from_materials(name, materials, rank=4) for name in ("residual-write", "readout-weak")]
    assert basis.digest == bases.intersection(*parts, 2).digest
    assert basis.rank(O_PROJ) == 2
    with pytest.raises(WeightsteerError, match="only bases of one side"):
        bases.intersection(parts[0], bases.from_materials("readout", materials, side="input"), 2)


def test_random_bases_differ_by_seed():
    """And not by call, or no result could be repeated."""
    model, _ = tiny("qwen3", layers=1)
    one, again, other = (bases.make("random", model, seed=seed) for seed in (0, 0, 1))
    assert one.digest == again.digest != other.digest


def test_mistakes_are_named():
    """Each message must say what to pass."""
    model, v = trained()
    for call, message in [
        (lambda: bases.make("residual-writ", model), "did you mean 'residual-write"),
        (lambda: bases.make("residual-write"), "made from model"),
        (lambda: bases.make("activation-pca", model), "made from pairs=… and tokenizer=…"),
        (lambda: bases.make("own", model), "made from vector=…"),
        (lambda: bases.make("own-stream", model, vector=v, side="input"), "exists on the output side only"),
        (lambda: bases.make("residual-write", model, rank=0), "rank 0"),
        (lambda: bases.make("residual-write", model, rank=33), "no subspace of rank 33 in 32 dimensions"),
        (lambda: bases.make("own", tiny("qwen3", seed=3)[0], vector=v), "other weights"),
    ]:
        with pytest.raises(WeightsteerError, match=re.escape(message)):
            call()


def test_ranks_stop_at_what_a_module_has():
    """k_proj of a model with grouped heads is narrower than the rank of a sweep: it must not stop the others."""
    model, _ = tiny("qwen3", layers=1)
    basis = bases.make("weights-top", model, rank=20)
    assert basis.rank("model.layers.0.self_attn.k_proj") == 16
    assert basis.rank("model.layers.0.self_attn.q_proj") == 20


def test_the_example_of_the_documentation_works():
    """Whoever copies it gets a basis under its name that the vector can be projected on."""
    code = re.search(r"```python\n(.*?)```", (DOCS / "add-a-basis.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code is not None
    assert len(code[1].splitlines()) <= 40
    model, _ = tiny("qwen3")
    v = random_vector(model)
    try:
        exec(code[1], {"__name__": "layer_norms"})
        with torch.no_grad():
            for block in model.model.layers:
                block.input_layernorm.weight[5] = 7.0
        for side in ("output", "input"):
            basis = bases.make("layer-norms", model, rank=1, side=side)
            assert abs(float(basis.vectors[basis.names[0]][5, 0])) > 0.999
            part = Basis(basis.name, basis.side, basis.origin, basis.vectors)
            assert project(v, part) + complement(v, part) == v
    finally:
        bases.registry.remove("layer-norms")

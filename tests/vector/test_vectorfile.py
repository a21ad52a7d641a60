import json
import math
import os
import pickle
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from mixed import FORMS, NAMES, Model, module, term, vectors
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import random_lora, tiny
from vectors import batch, logits, made, vector_of

from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.terms import LowRank, RowScale, Sum
from weightsteer.vector import WeightVector
from weightsteer.vector import file as vectorfile
from weightsteer.vector.energy import energy
from weightsteer.vector.recompress import recompress

WEIGHT = "model.layers.1.mlp.down_proj"


def header(path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["weightsteer"])


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The modules that are read from files, in order."""
    seen: list[str] = []
    original = vectorfile._File.read

    def read(self, name, module):
        seen.append(name)
        return original(self, name, module)

    monkeypatch.setattr(vectorfile._File, "read", read)
    return seen


@settings(max_examples=25, deadline=None)
@given(vectors(2))
def test_saved_is_loaded(tmp_path_factory, pair):
    """Bit for bit, coefficients and metadata included, and saving again gives the same file; for every form."""
    folder = tmp_path_factory.mktemp("saved")
    for v in (pair[0], 0.1 * pair[0] - 3 * pair[1], pair[0] - pair[0]):
        v.save(folder / "v.safetensors")
        loaded = WeightVector.load(folder / "v.safetensors")
        assert loaded == v
        assert loaded.digest == v.digest
        assert loaded.metadata == v.metadata
        assert (loaded - v).norm() == 0.0
        loaded.save(folder / "again.safetensors")
        assert (folder / "again.safetensors").read_bytes() == (folder / "v.safetensors").read_bytes()
        bound = loaded.bind(Model(v))
        assert bound == v
        for name in v.names:
            assert torch.equal(bound.delta(name), v.delta(name))


def test_factors_keep_their_bits(tmp_path):
    """Rounding at every save would make a vector depend on its history."""
    _, v = made(tmp_path)
    loaded = WeightVector.load(v.save(tmp_path / "new" / "v.safetensors"))
    for name in v.names:
        for (c, one), (d, other) in zip(v.terms[name].terms, loaded.terms[name].terms, strict=True):
            assert c == d
            assert torch.equal(one.A.view(torch.int32), other.A.view(torch.int32))
            assert torch.equal(one.B.view(torch.int32), other.B.view(torch.int32))
    stored = header(tmp_path / "new" / "v.safetensors")
    assert {tensor.dtype for tensor in load_file(tmp_path / "new" / "v.safetensors").values()} == {torch.float32}
    assert stored["norm"] == v.norm()
    assert [module["name"] for module in stored["modules"]] == v.names
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["v.safetensors"]


def test_another_base_is_refused_unless_asked_for(tmp_path):
    """A vector on other weights is another experiment: both bases are named, and the way on."""
    model, v = made(tmp_path)
    path = v.save(tmp_path / "v.safetensors")
    assert WeightVector.load(path, model) == v
    other, _ = tiny("qwen3", seed=1)
    other.name_or_path = "fine-tuned"
    theirs = made(tmp_path / "other")[1].metadata["base"]["hash"][:12]
    with pytest.raises(WeightsteerError, match=rf"tiny-qwen3 .weights {theirs}.*fine-tuned .*other_base"):
        WeightVector.load(path, other)
    assert WeightVector.load(path, other, other_base=True) == v
    shallow, _ = tiny("qwen3", layers=2)
    with pytest.raises(WeightsteerError, match=r"no module model\.layers\.2.*made for tiny-qwen3"):
        WeightVector.load(path, shallow, other_base=True)
    wide, _ = tiny("qwen3")
    wide.model.layers[0].mlp.up_proj = torch.nn.Linear(32, 65)
    with pytest.raises(WeightsteerError, match="64×32, the model's is 65×32"):
        WeightVector.load(path, wide, other_base=True)


def test_other_files_are_explained(tmp_path):
    """What is no vector must not become one."""
    model, v = made(tmp_path)
    good = v.save(tmp_path / "v.safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    for content in (b"", b"text", good[:200], good[:-4]):
        bad.write_bytes(content)
        with pytest.raises(WeightsteerError, match="damaged"):
            WeightVector.load(bad)
    with pytest.raises(WeightsteerError, match="no file"):
        WeightVector.load(tmp_path / "nothing.safetensors")
    adapter = random_lora(model, tmp_path / "adapter", seed=0) / "adapter_model.safetensors"
    with pytest.raises(WeightsteerError, match=r"no weight vector.*from_adapters"):
        WeightVector.load(adapter)
    for text, reason in [
        ('{"version": 99}', "version 99"),
        ("{", "damaged"),
        ('{"version": 1}', "damaged"),
        ('{"version": 1, "modules": [{"name": "a", "shape": [1, 1], "parts": [{"form": "x"}]}]}', "damaged"),
        (json.dumps(header(tmp_path / "v.safetensors")), "lacks the tensor"),
    ]:
        save_file({"a": torch.ones(1)}, bad, {"weightsteer": text})
        with pytest.raises(WeightsteerError, match=reason):
            WeightVector.load(bad)


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failed_save_leaves_the_old_file(step, tmp_path, monkeypatch):
    """A full disk must not cost the vector that was there; the new one takes its place in one step."""
    model, v = made(tmp_path)
    path = v.save(tmp_path / "v.safetensors")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with pytest.raises(WeightsteerError, match="No space left on device"):
        vector_of(model, tmp_path, seed=9).save(path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*partial"))


def test_a_file_is_read_module_by_module(tmp_path, reads):
    """Looking at a vector of a large model, or at one layer of it, must not load all of it."""
    model, v = made(tmp_path)
    path = v.save(tmp_path / "v.safetensors")
    loaded = WeightVector.load(path, model)
    assert "norm" in repr(loaded)
    assert (loaded.norms(), loaded.rank(WEIGHT)) == (v.norms(), 8)
    assert energy(loaded.norms()).equals(energy(v.norms()))
    part = loaded.with_metadata(behavior="b").keep("mlp.*").drop(0).keep(WEIGHT)
    assert part.norm() == v.keep(WEIGHT).norm()
    assert not reads
    assert torch.equal(loaded.delta(WEIGHT), v.delta(WEIGHT))
    loaded.delta(WEIGHT)
    assert reads == [WEIGHT]
    assert part.keep(WEIGHT).cosine(v.keep(WEIGHT)) == 1.0
    with steer(model, loaded.keep(2), 1.0):
        pass
    assert reads[1:] == [WEIGHT, *(name for name in v.names if ".2." in name)]


def test_the_file_may_go_away(tmp_path):
    """What is open stays what it was when its file is replaced or deleted; what is written into is noticed."""
    model, v = made(tmp_path)
    path = v.save(tmp_path / "v.safetensors")
    first, second, third = (WeightVector.load(path) for _ in range(3))
    vector_of(model, tmp_path, seed=9).save(path)
    assert first == v
    path.unlink()
    assert second == v
    v.save(path)
    changed = WeightVector.load(path)
    content = bytearray(path.read_bytes())
    content[-400:] = bytes(400)
    path.write_bytes(content)
    os.utime(path, ns=(0, 0))
    with pytest.raises(WeightsteerError, match="changed since it was opened"):
        changed.delta(WEIGHT)
    assert third == v


def test_a_loaded_vector_can_be_sent_elsewhere(tmp_path):
    """Workers get copies of vectors: these cannot share an open file."""
    _, v = made(tmp_path)
    path = v.save(tmp_path / "v.safetensors")
    for copied in (pickle.loads(pickle.dumps(WeightVector.load(path))), deepcopy(WeightVector.load(path))):
        assert copied == v
        assert copied.norms() == v.norms()


def test_damaged_tensors_are_noticed(tmp_path):
    """A flipped bit in a factor would be another vector with the same name."""
    _, v = made(tmp_path)
    path = v.save(tmp_path / "v.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    loaded = WeightVector.load(path)
    with pytest.raises(WeightsteerError, match="not those that were saved"):
        assert loaded == v


def test_what_is_shared_is_stored_once(tmp_path):
    """The initial factors of PiSSA, say, are in both branches: twice in the file would be twice its size."""
    generator = torch.Generator().manual_seed(0)
    shared = LowRank(torch.randn(40, 8, generator=generator), torch.randn(8, 30, generator=generator))
    tied = LowRank(shared.B * 2, shared.A)
    v = WeightVector({"a": Sum((40, 30), [(1.0, shared), (2.0, tied)]), "b": Sum((40, 30), [(-3.0, shared)])}, {})
    path = v.save(tmp_path / "v.safetensors")
    assert len(load_file(path)) == 4
    loaded = WeightVector.load(path)
    assert loaded == v
    assert {id(t) for _, t in loaded.terms["a"].terms} >= {id(t) for _, t in loaded.terms["b"].terms}
    assert torch.equal(loaded.delta("b"), v.delta("b"))


def test_files_of_the_first_version_are_read(tmp_path):
    """Vectors that were published must not be lost with a release."""
    _, v = made(tmp_path)
    stored = header(v.save(tmp_path / "v.safetensors")) | {"version": 1}
    for entry in stored["modules"]:
        entry.pop("rank")
        entry["parts"] = [{key: part[key] for key in ("form", "coefficient")} for part in entry["parts"]]
    save_file(load_file(tmp_path / "v.safetensors"), tmp_path / "old.safetensors", {"weightsteer": json.dumps(stored)})
    loaded = WeightVector.load(tmp_path / "old.safetensors")
    assert loaded.rank(WEIGHT) == 8
    assert loaded == v
    assert loaded.norm() == v.norm()


@pytest.mark.parametrize("form", FORMS)
def test_vectors_without_their_base_can_be_looked_at(form, tmp_path):
    """Their norms are in the file; what needs the base weight says so, and is there once it is bound."""
    linear = module(NAMES[0], (6, 12))
    v = WeightVector({NAMES[0]: Sum((6, 12), [(0.5, term(form, linear, torch.Generator().manual_seed(0)))])}, {})
    loaded = WeightVector.load(v.save(tmp_path / "v.safetensors"))
    needs = form in ("row_scale", "column_scale", "rotated", "butterfly")
    assert loaded.norm() == v.norm()
    assert math.isclose((-2.0 * loaded).norm(), 2 * v.norm(), rel_tol=1e-12)
    assert f"norm {2 * v.norm():.4g}" in repr(2.0 * loaded.keep("*"))
    total = WeightVector.sum([loaded, loaded])
    assert total == 2 * v
    assert ("norm unknown" in repr(total)) == needs
    if needs:
        for use in (loaded.delta, lambda name: loaded.inner(v - 2 * v), lambda name: recompress(loaded, rank=1)):
            with pytest.raises(WeightsteerError, match="base"):
                use(NAMES[0])
    model = Model(v)
    bound = loaded.bind(model)
    assert torch.equal(bound.delta(NAMES[0]), v.delta(NAMES[0]))
    assert (2.0 * loaded).bind(model) == 2.0 * v
    assert bound.cosine(v) == pytest.approx(1.0)
    again = bound.save(tmp_path / "again.safetensors").read_bytes()
    assert again == (tmp_path / "v.safetensors").read_bytes()


def scaled(model, behavior: str = "b") -> WeightVector:
    """A vector that is part of the weights of a model: the rows of one of them, scaled."""
    from weightsteer.models import model_name, weight_hash
    from weightsteer.terms import BaseWeight

    base = BaseWeight.of(model.get_submodule(WEIGHT))
    rows = RowScale(torch.linspace(-1, 1, base.shape[0]), base)
    metadata = {"adapter": "ia3", "base": {"name": model_name(model), "hash": weight_hash(model)}}
    return WeightVector({WEIGHT: Sum(base.shape, [(1.0, rows)])}, metadata)


def test_part_of_the_base_steers_a_fine_tune(tmp_path):
    """θ_ft + α·dW with dW of the vector's own base: the fine-tune's weights in its place would be another vector."""
    model, _ = tiny("qwen3")
    other, _ = tiny("qwen3", seed=1)
    other.name_or_path = "fine-tuned"
    v = scaled(model)
    path = v.save(tmp_path / "v.safetensors")
    assert torch.equal(WeightVector.load(path, model).delta(WEIGHT), v.delta(WEIGHT))
    with pytest.raises(WeightsteerError, match="other_base"):
        WeightVector.load(path, other)
    with pytest.raises(WeightsteerError, match=r"part of the weights of its own base, tiny-qwen3 .*base=\.\.\."):
        WeightVector.load(path, other, other_base=True)
    with pytest.raises(WeightsteerError, match=r"fine-tuned .*other weights"):
        WeightVector.load(path, model, base=other)
    loaded = WeightVector.load(path, other, base=model, other_base=True)
    assert torch.equal(loaded.delta(WEIGHT), v.delta(WEIGHT))
    ids = batch()
    with steer(other, loaded, 0.5, other_base=True):
        steered = logits(other, ids)
    with torch.no_grad():
        other.get_submodule(WEIGHT).weight += 0.5 * v.delta(WEIGHT)
    assert torch.allclose(steered, logits(other, ids), atol=1e-4)


def test_a_lora_vector_is_a_tenth_of_its_dense_form(tmp_path):
    """Rank 32 on 14 layers of Qwen3-0.6B, here with all sizes a quarter: shipping dense deltas is what it replaces."""
    shapes = {
        "self_attn.q_proj": (512, 256),
        "self_attn.k_proj": (256, 256),
        "self_attn.v_proj": (256, 256),
        "self_attn.o_proj": (256, 512),
        "mlp.gate_proj": (768, 256),
        "mlp.up_proj": (768, 256),
        "mlp.down_proj": (256, 768),
    }
    generator = torch.Generator().manual_seed(0)

    def branch(shape: tuple[int, int]) -> LowRank:
        return LowRank(torch.randn(shape[0], 8, generator=generator), torch.randn(8, shape[1], generator=generator))

    terms = {
        f"model.layers.{layer}.{kind}": Sum(shape, [(2.0, branch(shape)), (-2.0, branch(shape))])
        for layer in range(8, 22)
        for kind, shape in shapes.items()
    }
    path = WeightVector(terms, {}).save(tmp_path / "v.safetensors")
    dense = sum(4 * math.prod(total.shape) for total in terms.values())
    assert path.stat().st_size < dense / 10


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["modules"][0]["parts"][0].update(coefficient=2.0),
        lambda header: header["modules"][0]["parts"][0].update(digest=None),
        lambda header: header["modules"][0].update(norm=0.0),
        lambda header: header["metadata"].update(behavior="another"),
        lambda header: header.pop("digest"),
    ],
)
def test_the_header_is_covered_by_its_digest(tmp_path, change):
    """An edited coefficient scales what is measured; a term without a digest could have any tensors."""
    path = tmp_path / "v.safetensors"
    made(tmp_path)[1].save(path)
    told = header(path)
    change(told)
    save_file(load_file(path), path, {"weightsteer": json.dumps(told)})
    with pytest.raises(WeightsteerError, match=r"header is not the one that was saved.*Copy or make it again"):
        WeightVector.load(path)

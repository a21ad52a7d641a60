import json

import pytest
import torch
from hypothesis import given, settings
from safetensors import safe_open
from safetensors.torch import save_file
from test_vector import vectors
from tiny import random_lora, tiny
from vectors import made, vector_of

from weightsteer.errors import WeightsteerError
from weightsteer.vector import WeightVector


@settings(max_examples=25, deadline=None)
@given(vectors(2))
def test_saved_is_loaded(tmp_path_factory, pair):
    """Bit for bit, coefficients and metadata included, and saving again gives the same file."""
    folder = tmp_path_factory.mktemp("saved")
    for v in (pair[0], 0.1 * pair[0] - 3 * pair[1], pair[0] - pair[0]):
        v.save(folder / "v.safetensors")
        loaded = WeightVector.load(folder / "v.safetensors")
        assert loaded == v
        assert loaded.metadata == v.metadata
        assert (loaded - v).norm() == 0.0
        loaded.save(folder / "again.safetensors")
        assert (folder / "again.safetensors").read_bytes() == (folder / "v.safetensors").read_bytes()


def test_factors_keep_their_bits(tmp_path):
    """Rounding at every save would make a vector depend on its history."""
    _, v = made(tmp_path)
    loaded = WeightVector.load(v.save(tmp_path / "new" / "v.safetensors"))
    for name in v.names:
        for (c, term), (d, other) in zip(v.terms[name].parts, loaded.terms[name].parts, strict=True):
            assert c == d
            assert torch.equal(term.A.view(torch.int32), other.A.view(torch.int32))
            assert torch.equal(term.B.view(torch.int32), other.B.view(torch.int32))
    with safe_open(tmp_path / "new" / "v.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["weightsteer"])
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float32}  # noqa: SIM118
    assert header["norm"] == v.norm()
    assert [module["name"] for module in header["modules"]] == v.names
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["v.safetensors"]


def test_another_base_is_refused_unless_asked_for(tmp_path):
    """A vector on other weights is another experiment: both bases are named, and the way on."""
    model, v = made(tmp_path)
    path = v.save(tmp_path / "v.safetensors")
    assert WeightVector.load(path, model) == v
    other, _ = tiny("qwen3", seed=1)
    other.name_or_path = "fine-tuned"
    theirs = made(tmp_path / "other")[1].metadata["base"]["hash"][:12]
    with pytest.raises(WeightsteerError, match=rf"tiny-qwen3 .weights {theirs}.*fine-tuned .*allow_other_base"):
        WeightVector.load(path, other)
    assert WeightVector.load(path, other, allow_other_base=True) == v
    shallow, _ = tiny("qwen3", layers=2)
    with pytest.raises(WeightsteerError, match=r"no module model\.layers\.2.*made for tiny-qwen3"):
        WeightVector.load(path, shallow, allow_other_base=True)
    wide, _ = tiny("qwen3")
    wide.model.layers[0].mlp.up_proj = torch.nn.Linear(32, 65)
    with pytest.raises(WeightsteerError, match="64×32, the model's is 65×32"):
        WeightVector.load(path, wide, allow_other_base=True)


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
    for header, reason in [
        ('{"version": 99}', "version 99"),
        ("{", "damaged"),
        ('{"version": 1}', "damaged"),
        ('{"version": 1, "modules": [{"name": "a", "shape": [1, 1], "parts": [{"form": "x"}]}]}', "damaged"),
    ]:
        save_file({"a": torch.ones(1)}, bad, {"weightsteer": header})
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

"""GGUF control vectors: the layout other programs read and write, layer for layer."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from captured import hidden_states
from tiny import tiny
from vectors import batch

import weightsteer as ws
from weightsteer.activation import ActivationVector
from weightsteer.activation import gguf as control
from weightsteer.errors import WeightsteerError


def vector(layers: tuple[int, ...] = (1, 3)) -> ActivationVector:
    generator = torch.Generator().manual_seed(0)
    directions = {f"model.layers.{layer}": torch.randn(32, generator=generator) for layer in layers}
    return ActivationVector(directions, {"behavior": "honesty", "adapter": "diffmean", "base": {"model_type": "qwen3"}})


def others_file(path: Path, tensors: dict[str, np.ndarray], architecture: str = "controlvector") -> Path:
    """A file as llama.cpp's generator writes it: a signed count, and no key of ours."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("controlvector.model_hint", "qwen3")
    writer.add_int32("controlvector.layer_count", len(tensors))
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_layout(tmp_path: Path) -> None:
    """What llama.cpp checks when it loads a file: the names, from 1 on, and one-dimensional fp32 tensors."""
    v = vector()
    path = v.to_gguf(tmp_path / "v.gguf")
    assert path.read_bytes()[:4] == b"GGUF"
    reader = gguf.GGUFReader(path)
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "qwen3"
    assert reader.get_field("controlvector.layer_count").contents() == 2
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.3"]
    for tensor, direction in zip(reader.tensors, v.directions.values(), strict=True):
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert tensor.shape.tolist() == [32]
        assert np.array_equal(tensor.data, direction.numpy())


def test_round_trip(tmp_path: Path) -> None:
    """Through the file and back to the last bit, with all provenance."""
    model, _ = tiny("qwen3")
    v = vector()
    loaded = ActivationVector.from_gguf(v.to_gguf(tmp_path / "v.gguf"), model)
    assert loaded == v
    assert loaded.metadata.items() >= v.metadata.items()
    assert loaded.metadata["gguf"] == {"file": "v.gguf", "model_hint": "qwen3"}


def test_layers_of_others_files(tmp_path: Path) -> None:
    """direction.l is added to the output of block l, counted from 0: one off steers a layer too late."""
    model, _ = tiny("qwen3")
    planted = np.linspace(-1, 1, 32, dtype=np.float32)
    v = ActivationVector.from_gguf(others_file(tmp_path / "v.gguf", {"direction.2": planted}), model)
    assert (v.metadata["adapter"], v.names) == ("gguf", ["model.layers.2"])
    ids = batch()
    before = hidden_states(model, ids)
    with ws.steer(model, v, 1.0):
        after = hidden_states(model, ids)
    assert torch.equal(after[2], before[2])
    assert torch.equal(after[3], before[3] + torch.from_numpy(planted))


@pytest.mark.parametrize(
    ("tensors", "architecture", "says"),
    [
        ({"direction.1": np.zeros(16, np.float32)}, "controlvector", "16 entries"),
        ({"direction.9": np.zeros(32, np.float32)}, "controlvector", r"no decoder layer model\.layers\.9"),
        ({"direction.0": np.zeros(32, np.float32)}, "controlvector", "'direction.0'"),
        ({"output.weight": np.zeros(32, np.float32)}, "controlvector", "'output.weight'"),
        ({"direction.1": np.zeros((2, 32), np.float32)}, "controlvector", "F32 of shape"),
        ({"direction.1": np.zeros(32, np.float32)}, "llama", "not a control vector"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, tensors: dict, architecture: str, says: str) -> None:
    """A file of another model or kind must not steer this one by accident."""
    model, _ = tiny("qwen3")
    with pytest.raises(WeightsteerError, match=says):
        ActivationVector.from_gguf(others_file(tmp_path / "v.gguf", tensors, architecture), model)


def test_layer_zero_cannot_be_written(tmp_path: Path) -> None:
    """llama.cpp refuses such a file only when it is loaded; an older file of the name must survive."""
    path = vector().to_gguf(tmp_path / "v.gguf")
    before = path.read_bytes()
    with pytest.raises(WeightsteerError, match="layer 0"):
        vector((0, 1)).to_gguf(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_package_and_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is an extra: without it the message names what to install."""
    model, _ = tiny("qwen3")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF?")
    with pytest.raises(WeightsteerError, match="damaged or no GGUF"):
        ActivationVector.from_gguf(broken, model)
    with pytest.raises(WeightsteerError, match="no file"):
        ActivationVector.from_gguf(tmp_path / "none.gguf", model)

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(control, "import_module", absent)
    with pytest.raises(WeightsteerError, match=r"weightsteer\[gguf\]"):
        vector().to_gguf(tmp_path / "v.gguf")

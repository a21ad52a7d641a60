"""GGUF control vectors, in the layout that llama.cpp and repeng read and write.

``general.architecture`` is "controlvector"; ``controlvector.model_hint`` names the architecture of the model
and ``controlvector.layer_count`` counts the tensors; ``direction.<l>`` (d,) in fp32 is added to the output of
block l, counted from 0 as in the model's own list of layers. llama.cpp has no place for block 0 (its loader
refuses ``direction.0``), and repeng's numbers are the same. Neither reads other keys, so what this package
knows about the vector travels in one of its own.

llama.cpp adds ``scale · direction`` at every position, as `weightsteer.steer` does:
``--control-vector-scaled FILE SCALE`` takes the place of α.
"""

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightsteer.errors import WeightsteerError

ARCHITECTURE = "controlvector"
_METADATA = "weightsteer.metadata"


def write(path: Path, directions: Mapping[int, Tensor], model_hint: str, metadata: Mapping[str, Any]) -> Path:
    """Write directions (d,) by block; an older file is replaced only at the end.

    Raises:
        WeightsteerError: block 0 is among them, the ``gguf`` package is missing, or the file cannot be written.
    """
    gguf = _gguf()
    if 0 in directions:
        raise WeightsteerError(
            "this vector steers layer 0, for which GGUF control vectors have no place: llama.cpp steers from "
            "layer 1 on. Keep the other layers (vector.keep(range(1, …))), or fit it there."
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            writer = gguf.GGUFWriter(partial, ARCHITECTURE)
            writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint)
            writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(directions))
            writer.add_string(_METADATA, json.dumps(metadata, sort_keys=True, ensure_ascii=False))
            for layer, direction in sorted(directions.items()):
                writer.add_tensor(f"direction.{layer}", direction.numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsteerError(f"cannot write {path}: {error.strerror or error}. Choose another place.") from error
    return path


def read(path: Path) -> tuple[dict[int, Tensor], str, dict[str, Any]]:
    """Directions (d,) fp32 by block, the model hint, and the metadata of this package (empty in others' files).

    Raises:
        WeightsteerError: there is no such file, it is damaged, it is no control vector, or its tensors are not
            plain vectors in floating point.
    """
    gguf = _gguf()
    if not path.is_file():
        raise WeightsteerError(f"there is no file {path}; give a GGUF control vector.")
    try:
        reader = gguf.GGUFReader(path)
    # the reader raises whatever its parsing stumbles over
    except Exception as error:
        raise WeightsteerError(f"{path} is damaged or no GGUF file ({error}). Get it again.") from error

    def text(key: str) -> str | None:
        field = reader.get_field(key)
        return None if field is None else str(field.contents())

    if text("general.architecture") != ARCHITECTURE:
        raise WeightsteerError(
            f"{path} is a GGUF file of the architecture {text('general.architecture')!r}, not a control vector "
            f"({ARCHITECTURE!r})."
        )
    directions = {}
    for tensor in reader.tensors:
        prefix, _, number = tensor.name.partition(".")
        if prefix != "direction" or not number.isdigit() or int(number) < 1:
            raise WeightsteerError(
                f"{path} holds a tensor {tensor.name!r}; a control vector has direction.1, direction.2 …"
            )
        if tensor.data.dtype not in (np.float32, np.float16) or len(tensor.shape) != 1:
            raise WeightsteerError(
                f"{path}: {tensor.name} is {tensor.tensor_type.name} of shape {tensor.shape.tolist()}; a direction is "
                "one vector in F32."
            )
        # the reader maps the file: a copy outlives it
        directions[int(number)] = torch.from_numpy(np.array(tensor.data, dtype=np.float32))
    return directions, text(f"{ARCHITECTURE}.model_hint") or "", json.loads(text(_METADATA) or "{}")


def _gguf() -> Any:
    try:
        return import_module("gguf")
    except ImportError as error:
        raise WeightsteerError("GGUF files need the `gguf` package: pip install 'weightsteer[gguf]'.") from error

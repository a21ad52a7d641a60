"""The file of an activation vector: one safetensors file, no pickle.

Tensors: the direction (d,) of each steered block, in fp32, under the block's module path. Metadata: one entry,
``weightsteer.activation``, with a JSON object ``{"version": 1, "metadata": {…}}``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from weightsteer.errors import WeightsteerError
from weightsteer.vector.file import replace

VERSION = 1
_ENTRY = "weightsteer.activation"


def write(path: Path, directions: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write a vector; equal vectors and metadata give equal bytes. An older file is replaced only at the end."""
    header = json.dumps({"version": VERSION, "metadata": metadata}, sort_keys=True, ensure_ascii=False)
    replace(path, save({name: direction.contiguous() for name, direction in directions.items()}, {_ENTRY: header}))
    return path


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Directions by module path, and the metadata.

    Raises:
        WeightsteerError: there is no such file, it is damaged, or it is no activation vector of a known version.
    """
    if not path.is_file():
        raise WeightsteerError(f"there is no file {path}; give the safetensors file of a saved activation vector.")
    try:
        with safe_open(path, framework="pt") as file:
            entries = file.metadata() or {}
            if _ENTRY not in entries:
                kind = "a weight vector: use WeightVector.load" if "weightsteer" in entries else "no activation vector"
                raise WeightsteerError(
                    f"{path} is {kind}. Activation vectors are made by weightsteer.fit_activation, or read from GGUF "
                    "control vectors by ActivationVector.from_gguf."
                )
            header = json.loads(entries[_ENTRY])
            if header["version"] != VERSION:
                raise WeightsteerError(
                    f"{path} has format version {header['version']}, this release reads {VERSION}: "
                    "use the release of weightsteer that wrote it."
                )
            return {name: file.get_tensor(name) for name in file.keys()}, header["metadata"]  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsteerError(f"{path} is damaged or no activation vector ({error}). Make it again.") from error

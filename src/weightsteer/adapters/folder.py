"""Read a PEFT adapter folder: its configuration, its tensors, and our training record when there is one."""

import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from weightsteer.errors import WeightsteerError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
OLD_WEIGHTS = "adapter_model.bin"
RECORD = "training.json"

# PEFT wraps the model twice, and the names in its files say so.
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterFolder:
    """What a PEFT adapter folder holds.

    Attributes:
        path: the folder.
        config: ``adapter_config.json`` as it is.
        tensors: by parameter path in the base model (``model.layers.0.mlp.up_proj.lora_A.weight``), on the
            CPU.
        training: ``training.json``, which `weightsteer train` writes; None for adapters made elsewhere.
        digest: blake2b-128 (hex) of the file of tensors.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    training: dict[str, Any] | None
    digest: str

    @classmethod
    def read(cls, path: str | Path) -> "AdapterFolder":
        """Read a folder written by PEFT's ``save_pretrained`` (or a local copy of one from the hub).

        Raises:
            WeightsteerError: it is no adapter folder, or a file in it is damaged or holds non-finite numbers.
        """
        path = Path(path)
        if not path.is_dir():
            raise WeightsteerError(
                f"{path} is not a folder. Give the folder of a trained PEFT adapter (it holds {CONFIG}); "
                "one that lies on the hub must be downloaded first."
            )
        if not (path / CONFIG).is_file():
            raise WeightsteerError(f"{path} holds no {CONFIG}, so it is not a PEFT adapter folder.")
        config = _json(path / CONFIG)
        training = _json(path / RECORD) if (path / RECORD).is_file() else None
        raw, digest = _tensors(path)
        tensors = {}
        for key, tensor in raw.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise WeightsteerError(
                    f"{path}: the tensor {key} holds NaN or infinity: the training diverged. "
                    "Train this branch again with a lower learning rate."
                )
            tensors[key.removeprefix(_PREFIX)] = tensor
        return cls(path, config, tensors, training, digest)

    @property
    def base_name(self) -> str | None:
        """What the adapter says it was trained on: a hub id, or the last part of a local path."""
        name = self.config.get("base_model_name_or_path")
        if not name:
            return None
        return Path(name).name if Path(name).is_absolute() else str(name)


def _tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    file = path / WEIGHTS if (path / WEIGHTS).is_file() else path / OLD_WEIGHTS
    if not file.is_file():
        raise WeightsteerError(
            f"{path} holds no {WEIGHTS}: the adapter was not saved to the end, or only its configuration was copied."
        )
    try:
        # weights_only: a pickle from elsewhere must not run code
        old = file.name == OLD_WEIGHTS
        tensors = torch.load(file, map_location="cpu", weights_only=True) if old else load_file(file)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise WeightsteerError(f"cannot read {file}: {error}. Copy or train the adapter again.") from error
    return tensors, hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsteerError(f"cannot read {file}: {error}. Copy or train the adapter again.") from error
    if not isinstance(content, dict):
        raise WeightsteerError(f"{file} should hold one JSON object, not a {type(content).__name__}.")
    return content

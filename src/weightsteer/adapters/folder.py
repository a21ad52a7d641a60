"""Read the folder of a trained branch: configuration, tensors, and our training record when there is one.

A branch is a PEFT adapter, or the checkpoint of a full fine-tune; of a checkpoint only the configuration is read here.
"""

import hashlib
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from weightsteer.errors import WeightsteerError
from weightsteer.files import parse_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
OLD_WEIGHTS = "adapter_model.bin"
INITIAL = "initial_model.safetensors"
"""Tensors of the adapter before it was trained, where its delta depends on them."""
RECORD = "training.json"

CHECKPOINT = "config.json"
CHECKPOINT_WEIGHTS = "model.safetensors"
CHECKPOINT_INDEX = "model.safetensors.index.json"

# PEFT wraps the model twice, and the names in its files say so; so do torch.compile and FSDP, and the name of the
# adapter is in those of a file that was written without PEFT's save_pretrained.
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module)\.")
_PREFIX = "base_model.model."
_ADAPTER_NAME = re.compile(r"\.default(?=\.weight$|$)")


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{text!r:.60} is no regular expression ({error})") from error
    return text


Pattern = Annotated[StrictStr, AfterValidator(_expression)]
"""A name or a regular expression, which PEFT matches module paths with."""


@dataclass(frozen=True)
class AdapterFolder:
    """What the folder of a trained branch holds.

    Attributes:
        path: the folder.
        config: ``adapter_config.json`` as it is; ``config.json`` for a checkpoint.
        tensors: by parameter path in the base model (``model.layers.0.mlp.up_proj.lora_A.weight``), on the
            CPU; none for a checkpoint.
        training: ``training.json``, which `weightsteer train` writes; None for branches made elsewhere.
        digest: blake2b-128 (hex) of the files of tensors.
        initial: the tensors of the untrained adapter, where the folder has them, named as in ``tensors``.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    training: dict[str, Any] | None
    digest: str
    initial: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> "AdapterFolder":
        """Read a folder written by ``save_pretrained`` of PEFT or of a model (or a local copy of one from the hub).

        Raises:
            WeightsteerError: it is neither, or a file in it is damaged or holds non-finite numbers.
        """
        path = Path(path)
        if not path.is_dir():
            raise WeightsteerError(
                f"{path} is not a folder. Give the folder of a trained PEFT adapter (it holds {CONFIG}); "
                "one on the hub must be downloaded first."
            )
        training = _checked(_Training, path / RECORD) if (path / RECORD).is_file() else None
        if not (path / CONFIG).is_file():
            if not (path / CHECKPOINT).is_file():
                raise WeightsteerError(f"{path} holds no {CONFIG}, so it is not a PEFT adapter folder.{_inside(path)}")
            return cls(path, _json(path / CHECKPOINT), {}, training, _digest(sorted(path.glob("*.safetensors"))))
        config = _checked(_Config, path / CONFIG)
        file = path / WEIGHTS if (path / WEIGHTS).is_file() else path / OLD_WEIGHTS
        if not file.is_file():
            raise WeightsteerError(
                f"{path} holds no {WEIGHTS}: the adapter was not saved to the end, or only its configuration was "
                "copied."
            )
        initial = path / INITIAL
        return cls(
            path,
            config,
            _tensors(file),
            training,
            _digest([file]),
            _tensors(initial) if initial.is_file() else {},
        )

    @property
    def base_name(self) -> str | None:
        """What the adapter says it was trained on: a hub id, or the last part of a local path."""
        name = self.config.get("base_model_name_or_path")
        if not name:
            return None
        return Path(name).name if Path(name).is_absolute() else str(name)


class _Config(BaseModel):
    """The kinds of the settings of ``adapter_config.json`` that are computed with here."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    peft_type: StrictStr | None = None
    base_model_name_or_path: StrictStr | None = None
    bias: StrictStr = "none"
    r: StrictInt | None = None
    lora_alpha: StrictInt | StrictFloat | None = None
    rank_pattern: dict[Pattern, StrictInt] | None = None
    alpha_pattern: dict[Pattern, StrictInt | StrictFloat] | None = None
    target_modules: Pattern | list[StrictStr] | None = None
    exclude_modules: Pattern | list[StrictStr] | None = None
    layers_to_transform: StrictInt | list[StrictInt] | None = None
    layers_pattern: Pattern | list[Pattern] | None = None
    init_lora_weights: StrictBool | StrictStr | None = None
    num_cayley_neumann_terms: StrictInt | None = None
    eps: float | None = None


class _Origin(BaseModel):
    name: StrictStr | None = None
    hash: StrictStr | None = None


class _Training(BaseModel):
    """The same for what is read of ``training.json``."""

    model_config = ConfigDict(extra="allow")

    side: StrictStr | None = None
    behavior: StrictStr | None = None
    seed: StrictInt | None = None
    base: _Origin | None = None
    recipe: dict[str, Any] | None = None


def _checked(kind: type[BaseModel], file: Path) -> dict[str, Any]:
    """The object in a file as it is, once it is known that its fields have the kinds they should have."""
    content = _json(file)
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise WeightsteerError(
            f"{file}, {place}: {first['msg'].removeprefix('Value error, ')}. Copy or train the adapter again."
        ) from error
    return content


def _tensors(file: Path) -> dict[str, Tensor]:
    """Tensors by parameter path in the base model."""
    try:
        # weights_only: a pickle from elsewhere must not run code
        old = file.name == OLD_WEIGHTS
        raw = torch.load(file, map_location="cpu", weights_only=True) if old else load_file(file)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise WeightsteerError(f"cannot read {file}: {error}. Copy or train the adapter again.") from error
    tensors = {}
    for key, tensor in raw.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise WeightsteerError(
                f"{file.parent}: the tensor {key} holds NaN or infinity: the training diverged. "
                "Train this branch again with a lower learning rate."
            )
        tensors[_ADAPTER_NAME.sub("", _WRAPPERS.sub("", key).removeprefix(_PREFIX))] = tensor
    return tensors


def _digest(files: Sequence[Path]) -> str:
    content = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as opened:
            while chunk := opened.read(1 << 24):
                content.update(chunk)
    return content.hexdigest()


def _inside(path: Path) -> str:
    """Where the adapter might be: repositories often have one in each of several folders."""
    found = sorted(file.parent.name for file in path.glob(f"*/{CONFIG}"))
    return f" It holds folders that are: {', '.join(found)}." if found else ""


def _json(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsteerError(f"cannot read {file}: {error}. Copy or train the adapter again.") from error
    if not isinstance(content, dict):
        raise WeightsteerError(f"{file} should hold one JSON object, not a {type(content).__name__}.")
    return content

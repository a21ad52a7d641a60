"""Which model this is: its name, whether it is one of the embedded ones, and whether it is the base of a vector.

A base model is recorded in the metadata of a vector as ``{"name", "hash"}``, the hash that of
`weightsteer.models.weight_hash`. Of dequantised weights the record also says which GGUF file they come from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError
from weightsteer.models.hashing import weight_hash


def model_name(model: PreTrainedModel) -> str:
    """``pocket``, the hub id, or the name of the folder the model came from."""
    name = str(model.name_or_path or model.config.model_type)
    path = Path(name)
    return path.resolve().name if path.is_absolute() or path.is_dir() else name


def family(model: PreTrainedModel) -> str:
    """``pocket`` for the embedded models (they know only their own world), ``general`` for any other."""
    return "pocket" if isinstance(getattr(model.config, "weightsteer_pocket", None), str) else "general"


def base_record(model: PreTrainedModel) -> dict[str, Any]:
    """What metadata record of a base model: ``name`` and ``hash``; for a GGUF base also ``gguf``.

    ``gguf`` holds the name and the SHA-256 of the file, its architecture, and how many tensors it has of each type. The
    hash is that of the dequantised weights, on which the vector was made.
    """
    gguf = getattr(model, "weightsteer_gguf", None)
    return {"name": model_name(model), "hash": weight_hash(model), **({"gguf": gguf} if gguf else {})}


def described(base: Mapping[str, Any]) -> str:
    """A recorded base model for a message: its name and the beginning of its weight hash."""
    return f"{base.get('name') or 'an unnamed model'} (weights {str(base.get('hash') or 'unknown')[:12]})"


def check_base(metadata: Mapping[str, Any], model: PreTrainedModel) -> None:
    """Refuse a model with other weights than those an intervention is known to have been made on.

    Args:
        metadata: that of the intervention; without ``base`` and its hash there is nothing to compare.
        model: the model to be steered.

    Raises:
        WeightsteerError: the weight hashes differ.
    """
    base = metadata.get("base") or {}
    if not base.get("hash") or base["hash"] == (found := weight_hash(model)):
        return
    raise WeightsteerError(
        f"the vector was made on {described(base)}, but the model is "
        f"{described({'name': model_name(model), 'hash': found})}: other weights. Load the vector's own base; or, to "
        "steer another fine-tune of it, or the same checkpoint in a smaller dtype, pass other_base=True."
    )

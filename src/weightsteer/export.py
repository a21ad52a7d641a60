"""Ship a vector: summed into the weights of a model, or as an adapter that plain PEFT loads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from weightsteer.errors import WeightsteerError
from weightsteer.vectorfile import replace

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector


@torch.no_grad()
def merge_into(vector: "WeightVector", model: nn.Module, alpha: float = 1.0) -> None:
    """Write ``W + α·dW`` into the model, in place: the sum in fp32, then one cast to the dtype of W.

    For models that will be saved or served. There is no way back but the original checkpoint, and in bf16 the
    cast eats small vectors: to steer, `weightsteer.steer` is exact and leaves the weights alone.

    Raises:
        WeightsteerError: a module is missing, has another shape, is quantised, or shares its weight with
            another (tied embeddings), which would be changed with it. The model is unchanged then.
    """
    modules = dict(model.named_modules())
    vector.check_fits(model)
    weights: dict[str, Tensor] = {}
    for name in vector.names:
        weight = _weight(modules[name])
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            raise WeightsteerError(
                f"the weight of {name} is quantised, so nothing can be added to it. Steer unmerged with "
                "weightsteer.steer, or load the model unquantised."
            )
        if sharing := [other for other in modules if other != name and _weight(modules[other]) is weight]:
            raise WeightsteerError(
                f"{name} shares its weight with {sharing[0]}, which would change too. Steer unmerged with "
                "weightsteer.steer, leave it out with v.drop(...), or untie the two."
            )
        weights[name] = weight
    for name, weight in weights.items():
        delta = vector.delta(name).to(weight.device)
        if isinstance(modules[name], Conv1D):
            delta = delta.T
        weight.copy_(weight.float() + alpha * delta)


def export_peft(vector: "WeightVector", folder: Path) -> Path:
    """Write a PEFT LoRA folder that is the vector at α = 1; rank 2r for two branches of rank r.

    The scale is 1 (``lora_alpha = r``), the same rank everywhere (smaller ones are padded with zeros), every
    module named in full: nothing is left to patterns, which not every runtime reads. Same vector, same bytes.

    Raises:
        WeightsteerError: the vector is not of low rank, or the folder cannot be written to.
    """
    factors = {name: term.low_rank() for name, term in vector.terms.items()}
    rank = max(1, *(term.rank for term in factors.values()))
    tensors: dict[str, Tensor] = {}
    for name, term in factors.items():
        padding = rank - term.rank
        key = f"base_model.model.{name}"
        tensors[f"{key}.lora_A.weight"] = functional.pad(term.A, (0, 0, 0, padding)).contiguous()
        tensors[f"{key}.lora_B.weight"] = functional.pad(term.B, (0, padding)).contiguous()
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=vector.names,
        task_type="CAUSAL_LM",
        base_model_name_or_path=vector.metadata.get("base", {}).get("name"),
        inference_mode=True,
    )
    settings = {key: _plain(value) for key, value in config.to_dict().items()}
    replace(folder / "adapter_model.safetensors", save(tensors, {"format": "pt"}))
    replace(folder / "adapter_config.json", _json(settings))
    replace(folder / "weightsteer.json", _json({"digest": vector.digest, "metadata": vector.metadata}))
    return folder


def _weight(module: nn.Module) -> Any:
    return getattr(module, "weight", None)


def _plain(value: Any) -> Any:
    """Sets in a fixed order: the order of a set of strings changes from run to run."""
    return sorted(value) if isinstance(value, set | frozenset) else value


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

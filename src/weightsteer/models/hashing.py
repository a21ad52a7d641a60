"""The hash of a model's base weights, remembered until they change."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError
from weightsteer.models.fingerprint import fingerprint


def weight_hash(model: PreTrainedModel) -> str:
    """blake2b-128 (hex) over name, shape and little-endian fp32 bytes of the unique base parameters, by name.

    A bf16 checkpoint has the same hash whether it is loaded as bf16 or fp32. The parameters of attached PEFT
    adapters are left out, so that a model has the same hash with and without them. The hash of a model is
    remembered until a parameter changes (`weightsteer.models.fingerprint` says how that is noticed).

    Raises:
        WeightsteerError: parameters are not in memory (offloaded).
    """
    parameters = sorted(_base_parameters(model), key=lambda entry: entry[0])
    if absent := [name for name, tensor in parameters if tensor.is_meta]:
        raise WeightsteerError(
            f"{absent[0]} is not in memory (offloaded), so the weights cannot be hashed. Load the model without "
            "offloading; to steer without a check of the base, pass other_base=True."
        )
    seen = (tuple(name for name, _ in parameters), *fingerprint(tensor for _, tensor in parameters))
    cached = _hashes.get(model)
    if cached is None or cached[0] != seen:
        cached = (seen, _hash(parameters))
        _hashes[model] = cached
    return cached[1]


# by model: the fingerprint of its base parameters when they were hashed, and the hash
_hashes: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


def _hash(parameters: list[tuple[str, torch.Tensor]]) -> str:
    def digest(entry: tuple[str, torch.Tensor]) -> bytes:
        name, tensor = entry
        values = tensor.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        hashed = hashlib.blake2b(f"{name}\0{tuple(tensor.shape)}\0".encode(), digest_size=16)
        hashed.update(values.data)
        return hashed.digest()

    # hashlib releases the interpreter lock, so threads bring a 0.6 B model from seconds to the memory's speed
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = list(pool.map(digest, parameters))
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def _base_parameters(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Unique parameters of the base model under the names they have without PEFT and ``torch.compile``."""
    added: set[int] = set()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            holders = [getattr(module, name) for name in module.adapter_layer_names]
        elif isinstance(module, ModulesToSaveWrapper):
            holders = [module.modules_to_save]
        else:
            continue
        for holder in holders:
            if isinstance(holder, nn.Module):
                added.update(map(id, holder.parameters()))
    for name, parameter in model.named_parameters():
        if id(parameter) not in added:
            name = name.replace("_orig_mod.", "").removeprefix("base_model.model.")
            yield name.replace(".base_layer.", ".").replace(".original_module.", "."), parameter

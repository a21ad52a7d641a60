"""Cheap fingerprints of tensors, to notice that a weight is no longer what it was when it was hashed.

Hashing a model of 0.6 B parameters takes seconds, and every `weightsteer.steer` wants to know whether the model is
the vector's base. So hashes are cached, and a fingerprint tells whether the cached one still holds.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# values read of each tensor
_SAMPLED = 16


def fingerprint(tensors: Iterable[Tensor]) -> tuple[Any, ...]:
    """What changes when a tensor is replaced, moved, cast or written to.

    PyTorch counts writes, but not those through ``tensor.data``, which is how PEFT merges an adapter. Sixteen
    values of each tensor, evenly spread, are read as well: a merge changes practically all of them. A write through
    ``.data`` to a few rows can go unnoticed.
    """
    seen: list[Any] = []
    sampled: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        version = -1 if tensor.is_inference() else tensor._version
        seen.append((tensor.data_ptr(), version, tensor.dtype, tensor.device, tensor.shape))
        flat = tensor.detach().reshape(-1)
        sampled.setdefault((tensor.device, tensor.dtype), []).append(flat[:: max(1, len(flat) // _SAMPLED)])
    # one transfer for each device and dtype; as bytes, because NaN is not equal to itself
    values = [torch.cat(parts).view(torch.uint8).cpu().numpy().tobytes() for parts in sampled.values()]
    return (*seen, *values)

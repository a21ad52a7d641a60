"""Copies of the tensors of a term in the dtype and on the device where a module needs them."""

import torch
from torch import Tensor, nn


class Copies:
    """Tensors where they are needed; those made for the last dtype and device are remembered.

    With ``wide`` they are kept in the precision of alpha: fp32, or fp64 for a module in fp64.
    """

    def __init__(self, *tensors: Tensor, wide: bool = False) -> None:
        self._stored = tensors
        self._placed: tuple[Tensor, ...] = tensors
        self._wide = wide

    def __call__(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        if self._placed[0].dtype != dtype or self._placed[0].device != device:
            # the copies outlive the caller's mode, and its graph
            with torch.inference_mode(False), torch.no_grad():
                self._placed = tuple(tensor.to(device, dtype) for tensor in self._stored)
        return self._placed

    def prepare(self, module: nn.Module) -> None:
        """Make the copies a module will ask for, so that compiled code finds them made."""
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.is_floating_point():
            wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
            self(wide if self._wide else weight.dtype, weight.device)

"""What modifiers share: copies of tensors where a module needs them, strengths per row, a product that is added."""

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


def add_product(y: Tensor, x: Tensor, transposed: Tensor) -> Tensor:
    """``y + x Wᵀ`` for x (…, d_in), y (…, d_out) and Wᵀ (d_in, d_out); half precision rounds once."""
    if y.dtype != x.dtype:  # autocast
        return y + (x @ transposed).to(y.dtype)
    return torch.addmm(y.flatten(0, -2), x.flatten(0, -2), transposed).view(y.shape)


def per_row(alpha: Tensor, like: Tensor) -> Tensor:
    """alpha, () or (b,), against a tensor of b rows: (b, 1, …).

    It has at least one dimension: a 0-d tensor would be rounded to the dtype of what it multiplies.
    """
    return alpha.view(-1, *(1,) * (like.dim() - 1))

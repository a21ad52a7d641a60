"""The arithmetic modifiers share: strengths per row, and a product that is added."""

import torch
from torch import Tensor


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

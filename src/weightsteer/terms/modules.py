"""What a module's weight is as a matrix (d_out, d_in), whichever way the module stores it."""

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def matrix_shape(module: nn.Module) -> tuple[int, int] | None:
    """The shape a module's delta has, or None when the module has no one weight.

    - linear, also quantised, and GPT-2's ``Conv1D``: (d_out, d_in);
    - embedding: its table (num_embeddings, dim);
    - a norm, or whatever else has a 1-d ``weight``: (d, 1).
    """
    if (linear := linear_shape(module)) is not None:
        return linear
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    return (len(weight), 1) if isinstance(weight, Tensor) and weight.dim() == 1 else None


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(d_out, d_in) of a module that computes ``W x + b``, also quantised; None for any other."""
    if isinstance(module, Conv1D):
        d_in, d_out = module.weight.shape
        return int(d_out), int(d_in)
    d_out, d_in = getattr(module, "out_features", None), getattr(module, "in_features", None)
    return (d_out, d_in) if isinstance(d_out, int) and isinstance(d_in, int) else None

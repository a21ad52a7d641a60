"""Dense: a parameter's delta given in full, for what has no structure (full fine-tunes)."""

from collections.abc import Sequence
from copy import copy
from inspect import Parameter, signature
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from weightsteer.errors import WeightsteerError
from weightsteer.terms.modifiers import Copies, per_row
from weightsteer.terms.modules import linear_shape
from weightsteer.terms.term import Modifier, Term, stored, total


class Dense(Term):
    """The delta of a module's ``weight``, all of it.

    Values are (d_out, d_in) for a linear module (whichever way it stores its weight), (num_embeddings, dim) for the
    table of an embedding, and (d, 1) for the gain of a norm.
    """

    form = "dense"
    keys = ("values",)

    def __init__(self, values: Tensor) -> None:
        if values.dim() != 2:
            raise ValueError(f"values of shape {tuple(values.shape)} instead of (d_out, d_in); a 1-d gain is (d, 1)")
        self.values = stored(values)
        self.shape = (values.shape[0], values.shape[1])
        self._copies = Copies(self.values)

    @classmethod
    def fuse(cls, terms: Sequence[tuple[float, "Dense"]]) -> Self:
        return cls(total(terms, "values"))

    def columns(self, start: int, stop: int) -> Tensor:
        return self.values[:, start:stop].double()

    def delta(self) -> Tensor:
        return self.values

    def randomized(self, generator: torch.Generator) -> "Dense":
        """Rows and columns permuted and with random signs, which keeps every singular value."""
        drawn = self.values
        for dim in (0, 1):
            size = self.shape[dim]
            signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
            order = torch.randperm(size, generator=generator)
            drawn = drawn.index_select(dim, order) * signs.view(-1, *(1,) * (1 - dim))
        return Dense(drawn)

    def modifier(self, module: nn.Module) -> Modifier:
        """``y' = y + α · D x`` for a linear module; for any other one, whose output f is affine in its weight,
        ``y' = y + α · (f(x; D) − f(x; 0))``."""
        if linear_shape(module) is None:
            return self._affine(module)
        self._copies.prepare(module)

        def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            (values,) = self._copies(x.dtype, x.device)
            return torch.addcmul(y, functional.linear(x, values), per_row(alpha, y)).to(y.dtype)

        return modify

    def _affine(self, module: nn.Module) -> Modifier:
        """Embeddings and norms, of whatever class: Gemma scales its embedding, and has gains of 1 + w.

        The module's own code runs, with other weights and in fp32 (fp64 for a module in fp64): ``(1 + w) x − x`` in
        half precision would lose a small w.
        """
        _check_one_input(module)
        assert isinstance(module.weight, Tensor)
        dtype = torch.float64 if module.weight.dtype == torch.float64 else torch.float32
        values = self.values.to(module.weight.device, dtype).view(module.weight.shape)
        with_values, with_zero = _twin(module, values), _twin(module, torch.zeros_like(values))
        run = type(module).forward  # not a call, which would run the hooks of the module, and its steering, again

        def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            wide = x.to(dtype) if x.is_floating_point() else x
            change = run(with_values, wide) - run(with_zero, wide)
            return torch.addcmul(y, change, per_row(alpha, y)).to(y.dtype)

        return modify


def _twin(module: nn.Module, weight: Tensor) -> nn.Module:
    twin = copy(module)
    others = {
        name: None if parameter is None else nn.Parameter(parameter.detach().to(weight), requires_grad=False)
        for name, parameter in module._parameters.items()
    }
    twin._parameters = others | {"weight": nn.Parameter(weight, requires_grad=False)}
    return twin


def _check_one_input(module: nn.Module) -> None:
    parameters: list[Any] = list(signature(type(module).forward).parameters.values())[1:]
    needed = [
        one for one in parameters if one.default is Parameter.empty and one.kind is Parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(needed) != 1:
        raise WeightsteerError(
            f"a {type(module).__name__} takes {len(needed)} inputs, so the change of its weight cannot be applied to "
            "its output. Merge the vector into a copy of the model, or leave the module out with v.drop(...)."
        )

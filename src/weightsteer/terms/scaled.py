"""RowScale and ColumnScale: the base weight with its rows or columns scaled (IA3, and the magnitudes of DoRA)."""

from collections.abc import Hashable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from weightsteer.terms.base_weight import BaseWeight
from weightsteer.terms.modifiers import Copies, add_product, per_row
from weightsteer.terms.term import InputModifier, Modifier, Term, agreed_base, rescaled, stored, total


class RowScale(Term):
    """``T = diag(s) W`` with s (d_out,) and the base weight W.

    With ``bias=True`` the bias of the module is scaled as well, which is what IA3 does where it scales outputs:
    ``α · s ∘ (W x + b)`` is added. For a module without a bias the two are the same.
    """

    form = "row_scale"
    keys = ("scale",)
    base: BaseWeight

    def __init__(self, scale: Tensor, base: BaseWeight, bias: bool = False) -> None:
        if tuple(scale.shape) != base.shape[:1]:
            raise ValueError(f"a scale of shape {tuple(scale.shape)} for the rows of a {base.shape} weight")
        self.scale = stored(scale)
        self.base = base
        self.shape = base.shape
        self.bias = bool(bias) and not (base.bound and base.bias is None)
        self._copies = Copies(self.scale, wide=True)

    @property
    def kind(self) -> Hashable:
        return self.bias

    @property
    def options(self) -> dict[str, Any]:
        return {"bias": True} if self.bias else {}

    @classmethod
    def fuse(cls, terms: Sequence[tuple[float, "RowScale"]]) -> Self:
        return cls(total(terms, "scale"), agreed_base(terms), terms[0][1].bias)

    def columns(self, start: int, stop: int) -> Tensor:
        return self.scale.double()[:, None] * self.base.columns(start, stop)

    def bias_delta(self) -> Tensor | None:
        if not self.bias:
            return None
        assert self.base.bias is not None
        return self.scale * self.base.bias.detach().to("cpu", torch.float32)

    def randomized(self, generator: torch.Generator) -> "RowScale":
        """The scales permuted and with random signs, times one number that keeps the norm of the matrix."""
        drawn = _shuffled(self.scale, generator)
        return rescaled(self, lambda c: RowScale(c * drawn, self.base, self.bias))

    def modifier(self, module: nn.Module) -> Modifier:
        """``y' = y + α · s ∘ W x``; W x is the module's own output less its bias, if W is its own weight."""
        copies, base = self._copies, self.base.serve(module)
        copies.prepare(module)
        shift = base.bias
        if not base.owned:

            def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
                (scale,), (weight,) = copies(alpha.dtype, y.device), base.weight(x.dtype, x.device)
                product = functional.linear(x, weight)
                if self.bias and shift is not None:
                    product = product + shift.to(y.device, alpha.dtype)
                return torch.addcmul(y, product, per_row(alpha, y) * scale).to(y.dtype)

        elif self.bias or shift is None:

            def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
                (scale,) = copies(alpha.dtype, y.device)
                return torch.addcmul(y, own, per_row(alpha, y) * scale).to(y.dtype)

        else:

            def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
                (scale,) = copies(alpha.dtype, y.device)
                return torch.addcmul(y, own - shift.to(alpha.dtype), per_row(alpha, y) * scale).to(y.dtype)

        return modify


class ColumnScale(Term):
    """``T = W diag(s)`` with s (d_in,) and the base weight W: IA3 where it scales inputs."""

    form = "column_scale"
    keys = ("scale",)
    base: BaseWeight

    def __init__(self, scale: Tensor, base: BaseWeight) -> None:
        if tuple(scale.shape) != base.shape[1:]:
            raise ValueError(f"a scale of shape {tuple(scale.shape)} for the columns of a {base.shape} weight")
        self.scale = stored(scale)
        self.base = base
        self.shape = base.shape
        self._copies = Copies(self.scale, wide=True)

    @classmethod
    def fuse(cls, terms: Sequence[tuple[float, "ColumnScale"]]) -> Self:
        return cls(total(terms, "scale"), agreed_base(terms))

    def columns(self, start: int, stop: int) -> Tensor:
        return self.base.columns(start, stop) * self.scale[start:stop].double()

    def randomized(self, generator: torch.Generator) -> "ColumnScale":
        """The scales permuted and with random signs, times one number that keeps the norm of the matrix."""
        drawn = _shuffled(self.scale, generator)
        return rescaled(self, lambda c: ColumnScale(c * drawn, self.base))

    def modifier(self, module: nn.Module) -> Modifier:
        """``y' = y + W (α · s ∘ x)``."""
        base = self.base.serve(module)
        self._copies.prepare(module)

        def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            (scale,), (weight,) = self._copies(alpha.dtype, x.device), base.weight(x.dtype, x.device)
            return add_product(y, (x * (per_row(alpha, x) * scale)).to(x.dtype), weight.T)

        return modify

    def input_modifier(self, module: nn.Module) -> InputModifier | None:
        """``x' = x + α · s ∘ x``."""
        if not self.base.belongs_to(module):
            return None

        def modify(x: Tensor, alpha: Tensor) -> Tensor:
            (scale,) = self._copies(alpha.dtype, x.device)
            return torch.addcmul(x, x, per_row(alpha, x) * scale).to(x.dtype)

        return modify


def _shuffled(scale: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, scale.shape, generator=generator) * 2 - 1
    return scale.double()[torch.randperm(len(scale), generator=generator)] * signs

"""Bias: a vector added to the output of a module."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from weightsteer.terms.modifiers import Copies, per_row
from weightsteer.terms.term import Modifier, Term, stored, total


class Bias(Term):
    """``y' = y + α · b`` with b (d_out,); the matrix part (d_out, d_in) is zero."""

    form = "bias"
    keys = ("vector",)

    def __init__(self, vector: Tensor, d_in: int) -> None:
        if vector.dim() != 1:
            raise ValueError(f"a bias of shape {tuple(vector.shape)} instead of (d_out,)")
        self.vector = stored(vector)
        self.shape = (len(vector), int(d_in))
        self._copies = Copies(self.vector, wide=True)

    @property
    def options(self) -> dict[str, Any]:
        return {"d_in": self.shape[1]}

    @property
    def rank(self) -> int:
        return 0

    @classmethod
    def fuse(cls, terms: Sequence[tuple[float, "Bias"]]) -> Self:
        return cls(total(terms, "vector"), terms[0][1].shape[1])

    def columns(self, start: int, stop: int) -> Tensor:
        return torch.zeros(self.shape[0], stop - start, dtype=torch.float64)

    def bias_delta(self) -> Tensor:
        return self.vector

    def randomized(self, generator: torch.Generator) -> "Bias":
        """A random direction of the same norm."""
        drawn = torch.randn(self.vector.shape, generator=generator, dtype=torch.float64)
        return Bias(drawn * (self.vector.double().norm() / drawn.norm()), self.shape[1])

    def modifier(self, module: nn.Module) -> Modifier:
        self._copies.prepare(module)

        def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            (vector,) = self._copies(alpha.dtype, y.device)
            return (y + per_row(alpha, y) * vector).to(y.dtype)

        return modify

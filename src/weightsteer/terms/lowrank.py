"""LowRank: ``T = B A``, what LoRA adds to a weight."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from weightsteer.terms.dense import Dense
from weightsteer.terms.modifiers import Copies, add_product, per_row
from weightsteer.terms.modules import linear_shape
from weightsteer.terms.term import Modifier, Term, stored


class LowRank(Term):
    """``T = B A`` with B (d_out, r) and A (r, d_in): what LoRA adds to a weight, without its scale."""

    form = "low_rank"
    keys = ("A", "B")

    def __init__(self, B: Tensor, A: Tensor) -> None:
        if B.dim() != 2 or A.dim() != 2 or B.shape[1] != A.shape[0]:
            raise ValueError(f"factors of shapes {tuple(B.shape)} and {tuple(A.shape)} do not multiply")
        self.B = stored(B)
        self.A = stored(A)
        self.shape = (B.shape[0], A.shape[1])
        self._copies = Copies(self.B.T, self.A)

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    @classmethod
    def fuse(cls, terms: Sequence[tuple[float, "LowRank"]]) -> "LowRank":
        """``[c_1 B_1, c_2 B_2, …]`` (d_out, Σr) and ``[A_1; A_2; …]`` (Σr, d_in)."""
        return cls(*stacked(terms, terms[0][1].shape))

    def columns(self, start: int, stop: int) -> Tensor:
        return self.B.double() @ self.A[:, start:stop].double()

    def randomized(self, generator: torch.Generator) -> "LowRank":
        """The same singular values between random orthonormal frames.

        With ``B = Q R`` and ``Aᵀ = P S`` (QR) the matrix is ``Q (R Sᵀ) Pᵀ``; Q and P are replaced.
        """
        core = torch.linalg.qr(self.B.double()).R @ torch.linalg.qr(self.A.double().T).R.T
        left, right = (
            torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64)).Q
            for d, k in zip(self.shape, core.shape, strict=True)
        )
        return LowRank(left @ core, right.T)

    def modifier(self, module: nn.Module) -> Modifier:
        """``y' = y + α · B (A x)`` for the module's input x (b, …, d_in) and output y (b, …, d_out).

        α multiplies the r-dimensional product, in fp32 (in bf16 an α of 0.3 would be 0.3008); y is added
        inside the last matrix product, so that half precision rounds once.
        """
        if linear_shape(module) is None:  # an embedding, say: there is no x to multiply
            return Dense(self.delta()).modifier(module)
        self._copies.prepare(module)

        def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            up, down = self._copies(x.dtype, x.device)
            inner = (functional.linear(x, down) * per_row(alpha, x)).to(x.dtype)
            return add_product(y, inner, up)

        return modify


def stacked(terms: Sequence[tuple[float, LowRank]], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """B (d_out, Σr) and A (Σr, d_in) of ``Σ_i c_i B_i A_i``, in fp64."""
    none = torch.zeros(shape[0], 0, dtype=torch.float64), torch.zeros(0, shape[1], dtype=torch.float64)
    left = torch.cat([none[0], *(term.B.double() * coefficient for coefficient, term in terms)], dim=1)
    return left, torch.cat([none[1], *(term.A.double() for _, term in terms)])

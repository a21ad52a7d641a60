"""The structured forms a weight delta is made of.

The delta of one module is a formal sum ``dW = Σ_i c_i T_i``. The terms T_i are immutable and hold fp32
tensors; the coefficients c_i are Python floats, and the algebra of vectors touches nothing else. So ``v − v``
cancels to nothing (not to rounding), ``(v·2)·½`` is v itself, and no dense matrix is formed unless
``delta()`` is called.

Another form is another subclass of `Term`: it is then saved, loaded, added to the others and applied. A form
that depends on the base weight takes that weight when it is made.

Letters: d_out and d_in are the features of the module, r a rank, b the rows of a batch.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from weightsteer.errors import WeightsteerError

Modifier = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(x, y, alpha) -> y'``: the module's input, its output, the strength (scalar, or one per row of x)."""


class Term(ABC):
    """One primitive form of a delta, immutable."""

    form: ClassVar[str]
    """The name of the form in files."""

    keys: ClassVar[tuple[str, ...]]
    """Attributes that hold the fp32 tensors of the term; the class makes an equal term from them."""

    forms: ClassVar[dict[str, type["Term"]]] = {}

    shape: tuple[int, int]
    """(d_out, d_in), whichever way the module stores its weight."""

    def __init_subclass__(cls) -> None:
        Term.forms[cls.form] = cls

    @classmethod
    @abstractmethod
    def fuse(cls, parts: Sequence[tuple[float, Any]]) -> Self:
        """``Σ_i c_i T_i`` over terms of this form as one term of this form."""

    @abstractmethod
    def delta(self) -> Tensor:
        """The dense matrix, fp32 (d_out, d_in)."""

    @abstractmethod
    def modifier(self, module: nn.Module) -> Modifier:
        """How a steered module's output changes: ``y' = y + α · T x``."""

    @abstractmethod
    def randomized(self, generator: torch.Generator) -> Self:
        """A term of the same norm and rank in random directions."""

    @property
    def rank(self) -> int:
        """An upper bound of the rank."""
        return min(self.shape)

    @classmethod
    def inner(cls, parts: Sequence[tuple[float, Any]], others: Sequence[tuple[float, Any]]) -> float:
        """``<Σ_i c_i T_i, Σ_j c_j T_j>`` (Frobenius); the T_i are of this form, the T_j of any one form."""
        left, right = (sum(c * term.delta().double() for c, term in side) for side in (parts, others))
        return float((left * right).sum())

    def tensors(self) -> dict[str, Tensor]:
        return {key: getattr(self, key) for key in self.keys}

    @cached_property
    def digest(self) -> str:
        """blake2b-128 (hex) of form and content: two terms are the same when these are."""
        content = hashlib.blake2b(self.form.encode(), digest_size=16)
        for key, tensor in sorted(self.tensors().items()):
            content.update(f"\0{key}{tuple(tensor.shape)}\0".encode())
            content.update(tensor.numpy().astype("<f4", copy=False).data)
        return content.hexdigest()


class LowRank(Term):
    """``T = B A`` with B (d_out, r) and A (r, d_in): what LoRA adds to a weight, without its scale."""

    form = "low_rank"
    keys = ("A", "B")

    def __init__(self, B: Tensor, A: Tensor) -> None:
        if B.dim() != 2 or A.dim() != 2 or B.shape[1] != A.shape[0]:
            raise ValueError(f"factors of shapes {tuple(B.shape)} and {tuple(A.shape)} do not multiply")
        self.B = B.detach().to("cpu", torch.float32).contiguous()
        self.A = A.detach().to("cpu", torch.float32).contiguous()
        self.shape = (B.shape[0], A.shape[1])
        self._cast: tuple[Tensor, Tensor] | None = None

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    @classmethod
    def fuse(cls, parts: Sequence[tuple[float, "LowRank"]]) -> "LowRank":
        """``[c_1 B_1, c_2 B_2, …]`` (d_out, Σr) and ``[A_1; A_2; …]`` (Σr, d_in); rounded once."""
        return cls(*cls._stacked(parts))

    @staticmethod
    def _stacked(parts: Sequence[tuple[float, "LowRank"]]) -> tuple[Tensor, Tensor]:
        """The factors of a sum, in fp64."""
        left = torch.cat([term.B.double() * coefficient for coefficient, term in parts], dim=1)
        return left, torch.cat([term.A.double() for _, term in parts])

    def delta(self) -> Tensor:
        return self.B @ self.A

    @classmethod
    def inner(cls, parts: Sequence[tuple[float, "LowRank"]], others: Sequence[tuple[float, Any]]) -> float:
        """``<B₁A₁, B₂A₂> = tr((B₁ᵀB₂)(A₂A₁ᵀ))``, by r × r Gram matrices in fp64."""
        if not all(isinstance(term, LowRank) for _, term in others):
            return super().inner(parts, others)
        (B1, A1), (B2, A2) = cls._stacked(parts), cls._stacked(others)
        return float(((B1.T @ B2) * (A1 @ A2.T)).sum())

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

        def modify(x: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            up, down = self._factors(x.dtype, x.device)
            inner = functional.linear(x, down)
            # at least one dimension: a 0-d tensor would be rounded to x's dtype before the product
            inner = (inner * alpha.view(-1, *(1,) * (x.dim() - 1))).to(x.dtype)
            if y.dtype != x.dtype:  # autocast
                return y + (inner @ up).to(y.dtype)
            return torch.addmm(y.flatten(0, -2), inner.flatten(0, -2), up).view(y.shape)

        return modify

    def _factors(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Bᵀ (r, d_out) and A (r, d_in) where they are needed; the last place is remembered."""
        if self._cast is None or self._cast[0].dtype != dtype or self._cast[0].device != device:
            self._cast = (self.B.to(device, dtype).T, self.A.to(device, dtype))
        return self._cast


class Sum:
    """``dW = Σ_i c_i T_i`` of one module. Immutable; without parts it is exactly zero.

    Parts of equal content are joined and those with coefficient 0 dropped; their order is that of their
    content, so that u + v and v + u are the same, to the byte.
    """

    def __init__(self, shape: tuple[int, int], parts: Iterable[tuple[float, Term]] = ()) -> None:
        self.shape = shape
        joined: dict[str, tuple[float, Term]] = {}
        for coefficient, term in parts:
            if term.shape != shape:
                raise ValueError(f"a term of shape {term.shape} in a sum of shape {shape}")
            before = joined[term.digest][0] if term.digest in joined else 0.0
            joined[term.digest] = (before + coefficient, term)
        if not all(math.isfinite(coefficient) for coefficient, _ in joined.values()):
            raise WeightsteerError("the coefficient of a weight vector became infinite or NaN: scale it by less.")
        self.parts = tuple(joined[digest] for digest in sorted(joined) if joined[digest][0] != 0.0)

    @property
    def key(self) -> tuple[tuple[int, int], tuple[tuple[float, str], ...]]:
        """What the sum is: its shape, and every coefficient with the digest of its term."""
        return self.shape, tuple((coefficient, term.digest) for coefficient, term in self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def scaled(self, c: float) -> "Sum":
        return Sum(self.shape, [(c * coefficient, term) for coefficient, term in self.parts])

    def plus(self, other: "Sum") -> "Sum":
        return Sum(self.shape, [*self.parts, *other.parts])

    @cached_property
    def by_form(self) -> dict[type[Term], list[tuple[float, Term]]]:
        """The parts, sorted by the form of their terms."""
        sorted_parts: dict[type[Term], list[tuple[float, Term]]] = {}
        for part in self.parts:
            sorted_parts.setdefault(type(part[1]), []).append(part)
        return sorted_parts

    @cached_property
    def fused(self) -> tuple[Term, ...]:
        """The sum as one term of each form, coefficients included."""
        return tuple(form.fuse(parts) for form, parts in self.by_form.items())

    @property
    def rank(self) -> int:
        """An upper bound of the rank: 2r for the difference of two LoRAs of rank r."""
        return sum(term.rank for term in self.fused)

    def delta(self) -> Tensor:
        """The dense matrix, fp32 (d_out, d_in)."""
        return sum((term.delta() for term in self.fused), torch.zeros(self.shape))

    def inner(self, other: "Sum") -> float:
        """The Frobenius inner product."""
        return math.fsum(
            form.inner(parts, others) for form, parts in self.by_form.items() for others in other.by_form.values()
        )

    def norm(self) -> float:
        """The Frobenius norm."""
        return math.sqrt(max(self.inner(self), 0.0))

    def randomized(self, generator: torch.Generator) -> "Sum":
        """Random directions, each form's norm and rank kept."""
        return Sum(self.shape, [(1.0, term.randomized(generator)) for term in self.fused])

    def low_rank(self) -> LowRank:
        """The sum as one pair of factors.

        Raises:
            WeightsteerError: it has parts of another form, whose factors would not be exact.
        """
        if not self.parts:
            return LowRank(torch.zeros(self.shape[0], 0), torch.zeros(0, self.shape[1]))
        if not isinstance(self.fused[0], LowRank) or len(self.fused) > 1:
            raise WeightsteerError(
                f"the delta of a module has parts of the form {', '.join(t.form for t in self.fused)}, which "
                "are no product of two small matrices: merge the vector instead."
            )
        return self.fused[0]

    def modifier(self, module: nn.Module) -> Modifier:
        """``y' = y + α · dW x`` for the module's input x (b, …, d_in) and output y (b, …, d_out)."""
        steps = [term.modifier(module) for term in self.fused]
        if len(steps) == 1:
            return steps[0]

        def modify(x: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            for step in steps:
                y = step(x, y, alpha)
            return y

        return modify


def matrix_shape(module: nn.Module) -> tuple[int, int] | None:
    """(d_out, d_in) of a linear module, also a quantised one or GPT-2's ``Conv1D``; else None."""
    if isinstance(module, Conv1D):
        d_in, d_out = module.weight.shape
        return int(d_out), int(d_in)
    d_out, d_in = getattr(module, "out_features", None), getattr(module, "in_features", None)
    return (d_out, d_in) if isinstance(d_out, int) and isinstance(d_in, int) else None

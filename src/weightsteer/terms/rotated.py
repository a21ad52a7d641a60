"""Rotated and Butterfly: the base weight times block matrices on its input side (OFT, BOFT)."""

import math
from collections.abc import Hashable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from weightsteer.terms.base_weight import BaseWeight
from weightsteer.terms.dense import Dense
from weightsteer.terms.modifiers import Copies, add_product, per_row
from weightsteer.terms.term import InputModifier, Modifier, Term, agreed_base, rescaled, stored

SMALL = 2**18
"""Entries of a matrix so small that one product with it takes less time than several with its blocks: such a delta is
applied in full. A module of a language model of any use is larger."""


class Rotated(Term):
    """``T = W M`` with the base weight W and ``M = blockdiag(M_1, …, M_n)``, blocks (n, s, s) and n · s = d_in.

    Blocks (1, s, s) stand for one block that is repeated along the whole diagonal. OFT turns the inputs of a module
    by a block rotation R: its delta is ``W (R − I)``, so the blocks are those of R − I, and those of R⁺ − R⁻ in the
    difference of two.
    """

    form = "rotated"
    keys = ("blocks",)
    base: BaseWeight

    def __init__(self, blocks: Tensor, base: BaseWeight) -> None:
        d_in = base.shape[1]
        if blocks.dim() != 3 or blocks.shape[1] != blocks.shape[2]:
            raise ValueError(f"blocks of shape {tuple(blocks.shape)} instead of (n, s, s)")
        n, size = blocks.shape[:2]
        if n * size != d_in and not (n == 1 and d_in % size == 0):
            raise ValueError(f"{n} blocks of size {size} do not make a matrix of width {d_in}")
        self.blocks = stored(blocks)
        self.base = base
        self.shape = base.shape
        self._copies = Copies(self.blocks)

    @classmethod
    def fuse(cls, terms: Sequence[tuple[float, "Rotated"]]) -> Self:
        """The blocks added; those of different sizes on their least common multiple."""
        size = math.lcm(*(term.blocks.shape[1] for _, term in terms))
        shared = all(len(term.blocks) == 1 and term.blocks.shape[1] != term.shape[1] for _, term in terms)
        count = 1 if shared else terms[0][1].shape[1] // size
        blocks = torch.zeros(count, size, size, dtype=torch.float64)
        for coefficient, term in terms:
            blocks += coefficient * _regrouped(term.blocks.double(), count, size)
        return cls(blocks, agreed_base(terms))

    def columns(self, start: int, stop: int) -> Tensor:
        size = self.blocks.shape[1]
        low, high = start // size * size, -(-stop // size) * size
        blocks = self.blocks if len(self.blocks) == 1 else self.blocks[low // size : high // size]
        # (W M) = (Mᵀ Wᵀ)ᵀ, row by row of W
        product = multiplied(self.base.columns(low, high), blocks.double().transpose(1, 2))
        return product[:, start - low : stop - low]

    def randomized(self, generator: torch.Generator) -> "Rotated":
        """Each block between two random orthogonal matrices, times one number that keeps the norm of the matrix."""
        left, right = (_orthogonal(self.blocks.shape, generator) for _ in range(2))
        return rescaled(self, lambda c: Rotated(c * (left @ self.blocks.double() @ right), self.base))

    def modifier(self, module: nn.Module) -> Modifier:
        """``y' = y + W (α · M x)``."""
        if math.prod(self.shape) <= SMALL:
            return Dense(self.delta()).modifier(module)
        base = self.base.serve(module)
        self._copies.prepare(module)

        def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            (blocks,), (weight,) = self._copies(x.dtype, x.device), base.weight(x.dtype, x.device)
            return add_product(y, (multiplied(x, blocks) * per_row(alpha, x)).to(x.dtype), weight.T)

        return modify

    def input_modifier(self, module: nn.Module) -> InputModifier | None:
        """``x' = x + α · M x``."""
        if math.prod(self.shape) <= SMALL or not self.base.belongs_to(module):
            return None

        def modify(x: Tensor, alpha: Tensor) -> Tensor:
            (blocks,) = self._copies(x.dtype, x.device)
            return torch.addcmul(x, multiplied(x, blocks), per_row(alpha, x)).to(x.dtype)

        return modify


class Butterfly(Term):
    """``T = Σ_k diag(s_k) W R_k`` with scales s_k (d_out,), and R_k a product of m permuted block matrices.

    Shapes: scales (k, d_out), factors (k, m, n, s, s) with n · s = d_in, and

    ``R_k = F_k0 F_k1 … F_k(m−1)``,  ``F_ki = P_i blockdiag(factors[k, i]) P_iᵀ``.

    P_0 = I. For i > 0 (s even), P_iᵀ deals, within each of the consecutive segments of s · 2^i features, groups of
    s/2 features like cards: group g of the first half and group g of the second half become neighbours and
    are what one block of size s sees. So F_ki mixes features that are s · 2^(i−1) apart.

    BOFT (arXiv 2311.06243) in PEFT turns the rows x of a batch to x R', with R' = F'_(m−1) … F'_0 of blocks B'_i under
    the same permutations, and scales W (x R')ᵀ by s: its merged weight is ``diag(s) W R'ᵀ``. So its blocks
    *transposed*, in PEFT's own order, are the factors here: ``factors[k, i] = B'_i.transpose(−1, −2)``. The −W of its
    branch delta ``diag(s) W R'ᵀ − W`` is a `RowScale` of −1, or a summand (−1, identity blocks): either costs no
    product, and cancels in the difference of two branches.
    """

    form = "butterfly"
    keys = ("scales", "factors")
    base: BaseWeight

    def __init__(self, scales: Tensor, factors: Tensor, base: BaseWeight) -> None:
        d_out, d_in = base.shape
        if factors.dim() != 5 or factors.shape[3] != factors.shape[4]:
            raise ValueError(f"factors of shape {tuple(factors.shape)} instead of (k, m, n, s, s)")
        k, m, n, size, _ = factors.shape
        if tuple(scales.shape) != (k, d_out):
            raise ValueError(f"scales of shape {tuple(scales.shape)} instead of {(k, d_out)}")
        if m < 1 or n * size != d_in or d_in % (size << (m - 1)) or (m > 1 and size % 2):
            raise ValueError(f"{m} butterfly factors of {n} blocks of size {size} do not fit a width of {d_in}")
        self.scales = stored(scales)
        self.factors = stored(factors)
        self.base = base
        self.shape = base.shape
        self._copies = Copies(self.factors)
        self._scale_copies = Copies(self.scales, wide=True)

    @property
    def kind(self) -> Hashable:
        return self.factors.shape[3]

    @classmethod
    def fuse(cls, terms: Sequence[tuple[float, "Butterfly"]]) -> Self:
        """All summands side by side; those with the same factors are added, and left out when they cancel."""
        m = max(term.factors.shape[1] for _, term in terms)
        found: list[tuple[Tensor, Tensor]] = []
        for coefficient, term in terms:
            for scale, factors in zip(coefficient * term.scales.double(), _padded(term.factors, m), strict=True):
                same = next((i for i, (_, other) in enumerate(found) if torch.equal(other, factors)), None)
                if same is None:
                    found.append((scale, factors))
                else:
                    found[same] = (found[same][0] + scale, factors)
        kept = [(scale, factors) for scale, factors in found if bool(scale.any())]
        return cls(
            torch.stack([scale for scale, _ in kept]) if kept else torch.zeros(0, terms[0][1].shape[0]),
            torch.stack([factors for _, factors in kept]) if kept else found[0][1][None][:0],
            agreed_base(terms),
        )

    def columns(self, start: int, stop: int) -> Tensor:
        m, _, size = self.factors.shape[1:4]
        # R is block-diagonal in segments of this size: the other columns of W do not matter
        segment = size << (m - 1)
        low, high = start // segment * segment, -(-stop // segment) * segment
        weight = self.base.columns(low, high)
        unit = torch.eye(high - low, dtype=torch.float64)[start - low : stop - low]
        result = torch.zeros(self.shape[0], stop - start, dtype=torch.float64)
        for scale, factors in zip(self.scales.double(), self.factors[:, :, low // size : high // size], strict=True):
            result += scale[:, None] * (weight @ _butterfly(unit, factors.double()).T)
        return result

    def randomized(self, generator: torch.Generator) -> "Butterfly":
        """Each block between two random orthogonal matrices, times one number that keeps the norm of the matrix."""
        left, right = (_orthogonal(self.factors.shape, generator) for _ in range(2))
        factors = left @ self.factors.double() @ right
        return rescaled(self, lambda c: Butterfly(c * self.scales.double(), factors, self.base))

    def modifier(self, module: nn.Module) -> Modifier:
        """``y' = y + Σ_k α · s_k ∘ W (R_k x)``; for R_k = I, W x is the module's own output, if W is its own weight."""
        if math.prod(self.shape) <= SMALL:
            return Dense(self.delta()).modifier(module)
        base = self.base.serve(module)
        self._copies.prepare(module)
        self._scale_copies.prepare(module)
        from_own = [base.owned and bool((factors == torch.eye(factors.shape[-1])).all()) for factors in self.factors]

        def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            (factors,), (weight,) = self._copies(x.dtype, x.device), base.weight(x.dtype, x.device)
            (scales,) = self._scale_copies(alpha.dtype, x.device)
            strength = per_row(alpha, y)
            result = y
            for k, unturned in enumerate(from_own):
                if unturned:
                    product = own if base.bias is None else own - base.bias.to(alpha.dtype)
                else:
                    product = functional.linear(_butterfly(x, factors[k]), weight)
                result = torch.addcmul(result, product, strength * scales[k])
            return result.to(y.dtype)

        return modify


def multiplied(x: Tensor, blocks: Tensor) -> Tensor:
    """``blockdiag(blocks) x`` for x (…, d), blocks (d/s, s, s) or one block (1, s, s) for all."""
    n, size = blocks.shape[:2]
    if n == 1:
        return (x.reshape(-1, size) @ blocks[0].T).view(x.shape)
    groups = x.reshape(-1, n, size).transpose(0, 1)
    return torch.bmm(groups, blocks.transpose(1, 2)).transpose(0, 1).reshape(x.shape)


def _butterfly(x: Tensor, factors: Tensor) -> Tensor:
    """``F_0 F_1 … F_(m−1) x`` for x (…, d) and factors (m, n, s, s)."""
    half = factors.shape[2] // 2
    for i in range(len(factors) - 1, 0, -1):
        dealt = x.reshape(-1, 2, 1 << i, half).transpose(1, 2).reshape(x.shape)
        mixed = multiplied(dealt, factors[i])
        x = mixed.view(-1, 1 << i, 2, half).transpose(1, 2).reshape(x.shape)
    return multiplied(x, factors[0])


def _padded(factors: Tensor, m: int) -> Tensor:
    """Factors (k, …, n, s, s) with identities appended, which leave R as it is."""
    k, have, n, size, _ = factors.shape
    identity = torch.eye(size, dtype=factors.dtype).expand(k, m - have, n, size, size)
    return torch.cat([factors, identity], dim=1)


def _regrouped(blocks: Tensor, count: int, size: int) -> Tensor:
    """The same block-diagonal matrix (or, for count 1, its period) as `count` blocks of a larger size."""
    small = blocks.shape[1]
    each = size // small
    flat = blocks.expand(count * each, small, small) if len(blocks) == 1 else blocks
    result = torch.zeros(count, each, small, each, small, dtype=blocks.dtype)
    index = torch.arange(each)
    # advanced indices come first: (each, count, small, small)
    result[:, index, :, index, :] = flat.reshape(count, each, small, small).transpose(0, 1)
    return result.view(count, size, size)


def _orthogonal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Random orthogonal matrices (…, s, s) in fp64."""
    return torch.linalg.qr(torch.randn(*shape, generator=generator, dtype=torch.float64)).Q

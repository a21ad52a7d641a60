"""Random terms of every form, beside what their definitions say, written out in fp64."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from peft.tuners.boft.layer import BOFTLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from weightsteer.terms import BaseWeight, Bias, Butterfly, ColumnScale, Dense, LowRank, Rotated, RowScale, Sum, Term

FORMS = ("low_rank", "row_scale", "row_scale_bias", "column_scale", "rotated", "butterfly", "bias", "dense")
BASED = ("row_scale", "row_scale_bias", "column_scale", "rotated", "butterfly")


@dataclass
class Case:
    """A term, the module it belongs to, and its matrix and bias by definition."""

    module: nn.Module
    term: Term
    matrix: Tensor
    bias: Tensor


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(d_out: int, d_in: int, seed: int = 0, bias: bool = True, conv: bool = False) -> nn.Module:
    module = Conv1D(d_out, d_in) if conv else nn.Linear(d_in, d_out, bias=bias)
    module.requires_grad_(False)
    module.weight.copy_(random(*module.weight.shape, seed=seed))
    if module.bias is not None:
        module.bias.copy_(random(d_out, seed=seed + 1))
    return module


def oriented(module: nn.Module) -> Tensor:
    weight = module.weight.detach().double()
    return weight.T if isinstance(module, Conv1D) else weight


def permutation(width: int, size: int, i: int) -> Tensor:
    """P_i as PEFT builds it."""
    perm = BOFTLayer.block_butterfly_perm(None, width, width // size // 2**i, size // 2, 1) if i else range(width)
    return BOFTLayer.perm2mat(None, list(perm)).double()


def product(factors: Tensor) -> Tensor:
    """``F_0 F_1 …`` for (m, n, s, s), matrix by matrix."""
    result = torch.eye(factors.shape[1] * factors.shape[2], dtype=torch.float64)
    for i, blocks in enumerate(factors.double()):
        P = permutation(len(result), factors.shape[2], i)
        result = result @ P @ torch.block_diag(*blocks) @ P.T
    return result


def case(form: str, module: nn.Module, seed: int = 0, size: int = 2, rank: int = 2) -> Case:
    """A random term; ``size`` is that of blocks, ``rank`` also the number of summands or factors."""
    W = oriented(module)
    d_out, d_in = W.shape
    base = BaseWeight.of(module)
    bias = torch.zeros(d_out, dtype=torch.float64)
    if form == "low_rank":
        B, A = random(d_out, rank, seed=seed), random(rank, d_in, seed=seed + 1)
        return Case(module, LowRank(B, A), B.double() @ A.double(), bias)
    if form in ("row_scale", "row_scale_bias"):
        s = random(d_out, seed=seed)
        if form == "row_scale_bias" and module.bias is not None:
            bias = s.double() * module.bias.double()
        return Case(module, RowScale(s, base, bias=form == "row_scale_bias"), s.double()[:, None] * W, bias)
    if form == "column_scale":
        s = random(d_in, seed=seed)
        return Case(module, ColumnScale(s, base), W * s.double(), bias)
    if form == "rotated":
        n = 1 if rank == 1 else d_in // size
        blocks = random(n, size, size, seed=seed)
        M = torch.block_diag(*blocks.double().expand(d_in // size, size, size))
        return Case(module, Rotated(blocks, base), W @ M, bias)
    if form == "butterfly":
        m = rank if size % 2 == 0 and d_in % (size << (rank - 1)) == 0 else 1
        scales, factors = random(2, d_out, seed=seed), random(2, m, d_in // size, size, size, seed=seed + 1)
        terms = [s.double()[:, None] * (W @ product(f)) for s, f in zip(scales, factors, strict=True)]
        return Case(module, Butterfly(scales, factors, base), terms[0] + terms[1], bias)
    if form == "bias":
        vector = random(d_out, seed=seed)
        return Case(module, Bias(vector, d_in), torch.zeros_like(W), vector.double())
    values = random(d_out, d_in, seed=seed)
    return Case(module, Dense(values), values.double(), bias)


SHAPES = ((1, 4), (3, 8), (8, 4), (6, 12), (12, 24))


@st.composite
def cases(draw, form: str) -> Case:
    """One term of a form on a random module."""
    d_out, d_in = draw(st.sampled_from(SHAPES))
    module = linear(d_out, d_in, draw(st.integers(0, 3)), bias=draw(st.booleans()), conv=draw(st.booleans()))
    size = draw(st.sampled_from([s for s in (1, 2, 3, 4) if d_in % s == 0]))
    return case(form, module, draw(st.integers(0, 3)), size, draw(st.integers(1, 3)))


@dataclass
class Total:
    """A sum of terms, and its matrix and bias by definition."""

    module: nn.Module
    sum: Sum
    matrix: Tensor
    bias: Tensor


@st.composite
def totals(draw, count: int = 1, forms: tuple[str, ...] = FORMS) -> list[Total]:
    """Sums of terms of random forms on one module; now and then they share a term."""
    d_out, d_in = draw(st.sampled_from(SHAPES))
    module = linear(d_out, d_in, bias=draw(st.booleans()))
    pool = [case(form, module, seed, size=2, rank=1 + seed) for form in forms for seed in (0, 1)]
    result = []
    for _ in range(count):
        terms = draw(st.lists(st.tuples(st.sampled_from((-3.0, -1.0, 0.25, 2.0)), st.sampled_from(pool)), max_size=4))
        zero = torch.zeros(d_out, d_in, dtype=torch.float64)
        result.append(
            Total(
                module,
                Sum((d_out, d_in), [(c, one.term) for c, one in terms]),
                sum((c * one.matrix for c, one in terms), zero),
                sum((c * one.bias for c, one in terms), zero[:, 0]),
            )
        )
    return result


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    """Relative to the largest value."""
    a, b = a.detach().double(), b.detach().double()
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))

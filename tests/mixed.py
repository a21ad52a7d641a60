"""Random vectors over a mix of all forms, and what they are in full: for property tests of the algebra."""

from functools import lru_cache

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from weightsteer.terms import BaseWeight, Bias, Butterfly, ColumnScale, Dense, LowRank, Rotated, RowScale, Sum, Term
from weightsteer.vector import WeightVector

NAMES = ["model.layers.0.mlp.up_proj", "model.layers.2.self_attn.q_proj", "model.layers.10.mlp.down_proj"]
FORMS = ["low_rank", "row_scale", "column_scale", "rotated", "butterfly", "bias", "dense"]
SHAPES = [(1, 4), (3, 8), (8, 4), (6, 12)]

finite = st.floats(-100, 100).filter(lambda c: c == 0 or abs(c) > 1e-3)


@lru_cache
def module(name: str, shape: tuple[int, int]) -> nn.Linear:
    """The base module that the forms of ``name`` depend on."""
    generator = torch.Generator().manual_seed(NAMES.index(name))
    linear = nn.Linear(shape[1], shape[0]).requires_grad_(False)
    for parameter in linear.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return linear


def term(form: str, linear: nn.Linear, generator: torch.Generator, rank: int = 2) -> Term:
    """A random term of one form on one module."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    (d_out, d_in), base = linear.weight.shape, BaseWeight.of(linear)
    if form == "low_rank":
        return LowRank(random(d_out, rank), random(rank, d_in))
    if form == "row_scale":
        return RowScale(random(d_out), base, bias=rank % 2 == 0)
    if form == "column_scale":
        return ColumnScale(random(d_in), base)
    if form == "rotated":
        return Rotated(random(1 if rank == 1 else d_in // 2, 2, 2), base)
    if form == "butterfly":
        return Butterfly(random(1, d_out), random(1, 2, d_in // 2, 2, 2), base)
    return Bias(random(d_out), d_in) if form == "bias" else Dense(random(d_out, d_in))


@st.composite
def vectors(draw, count: int, forms: tuple[str, ...] = tuple(FORMS)):
    """Vectors of one base model over random subsets of modules, every delta of one to three random forms."""
    shapes = {name: draw(st.sampled_from(SHAPES)) for name in NAMES}
    drawn = []
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        terms = {}
        for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)):
            chosen = draw(st.lists(st.sampled_from(forms), min_size=1, max_size=3, unique=True))
            linear, rank = module(name, shapes[name]), draw(st.integers(1, 3))
            several = [(draw(finite), term(form, linear, generator, rank)) for form in chosen]
            terms[name] = Sum(shapes[name], several)
        drawn.append(WeightVector(terms, {"behavior": "b", "adapter": "lora", "seed": index}))
    return drawn


def flat(v: WeightVector, like: WeightVector) -> Tensor:
    """Matrices and biases in one row of fp64, over the modules of ``like``; missing ones are zero."""
    pieces = []
    for name in like.names:
        d_out, d_in = like.terms[name].shape
        total = v.terms.get(name, Sum((d_out, d_in)))
        bias = total.bias_delta()
        pieces += [total.columns(0, d_in).flatten(), torch.zeros(d_out).double() if bias is None else bias.double()]
    return torch.cat(pieces)


class Model(nn.Module):
    """A model that has the base modules of a vector under their names."""

    def __init__(self, v: WeightVector) -> None:
        super().__init__()
        for name in v.names:
            here: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(here, part):
                    here.add_module(part, nn.Module())
                here = getattr(here, part)
            here.add_module(last, module(name, v.terms.shape(name)))

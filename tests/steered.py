"""Vectors that mix every form on one model, and what steering with them must equal: weights added in fp32."""

from copy import deepcopy

import torch
from mixed import term
from torch import nn

from weightsteer.models import weight_hash
from weightsteer.terms import Dense, Sum, matrix_shape
from weightsteer.vector import WeightVector

FORMS = {
    "q_proj": ["butterfly", "row_scale"],
    "k_proj": ["row_scale"],
    "v_proj": ["rotated"],
    "o_proj": ["rotated", "column_scale"],
    "gate_proj": ["row_scale", "low_rank"],
    "up_proj": ["dense", "bias"],
    "down_proj": ["column_scale"],
}


def mixture(model, seed=0, shift=0, suffixes=tuple(FORMS), size=0.05):
    """A vector of every form: those of a module are the next ones for the next shift; also the table and norms."""
    generator, terms, forms = torch.Generator().manual_seed(seed), {}, list(FORMS.values())
    for name, module in model.named_modules():
        suffix = name.split(".")[-1]
        shape = matrix_shape(module)
        if suffix in suffixes and suffix in FORMS:
            chosen = forms[(list(FORMS).index(suffix) + shift) % len(forms)]
            terms[name] = Sum(shape, [(size, term(form, module, generator)) for form in chosen])
        elif suffix in suffixes and shape:
            terms[name] = Sum(shape, [(size, Dense(torch.randn(shape, generator=generator)))])
    return WeightVector(terms, {"base": {"name": "tiny", "hash": weight_hash(model)}})


def summed(model, *pairs):
    """A copy with the matrices and biases added in fp32: what steering must equal."""
    copy = deepcopy(model)
    for v, alpha in pairs:
        for name, total in v.terms.items():
            module = copy.get_submodule(name)
            module.weight += alpha * total.delta().view(module.weight.shape)
            if (bias := total.bias_delta()) is not None:
                before = 0 if module.bias is None else module.bias
                module.bias = nn.Parameter(before + alpha * bias, requires_grad=False)
    return copy

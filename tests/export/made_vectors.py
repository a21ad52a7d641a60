"""Vectors of every form, made by hand on tiny models; and the model with its weights changed the plain way."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from tiny import tiny
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.models import model_name, weight_hash
from weightsteer.terms import BaseWeight, Bias, ColumnScale, Dense, LowRank, RowScale, Sum, Term, matrix_shape
from weightsteer.vector import WeightVector

Q, K, DOWN = "model.layers.1.self_attn.q_proj", "model.layers.2.self_attn.k_proj", "model.layers.2.mlp.down_proj"
FEW = ["q_proj", "down_proj"]
EMBEDDING, HEAD, NORM = "model.embed_tokens", "lm_head", "model.layers.0.input_layernorm"


def drawn(*shape: int, seed: int = 0, scale: float = 0.1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def low_rank(model: nn.Module, name: str, rank: int = 3, seed: int = 1) -> LowRank:
    d_out, d_in = matrix_shape(model.get_submodule(name))
    return LowRank(drawn(d_out, rank, seed=seed), drawn(rank, d_in, seed=seed + 1))


def dense(model: nn.Module, name: str, seed: int = 3) -> Dense:
    return Dense(drawn(*matrix_shape(model.get_submodule(name)), seed=seed, scale=0.02))


def scales(model: nn.Module) -> dict[str, Sequence[Term]]:
    """What IA3 and DoRA leave: both depend on the base weight."""
    q, down = (model.get_submodule(name) for name in (Q, DOWN))
    return {
        Q: [RowScale(drawn(q.out_features, seed=4), BaseWeight.of(q)), low_rank(model, Q)],
        DOWN: [ColumnScale(drawn(down.in_features, seed=5), BaseWeight.of(down))],
    }


def bias(model: nn.Module, name: str, scale: float = 0.1) -> Bias:
    d_out, d_in = matrix_shape(model.get_submodule(name))
    return Bias(drawn(d_out, seed=6, scale=scale), d_in)


def quick(arch: str = "qwen3", rank: int = 8, seed: int = 0) -> tuple[PreTrainedModel, WeightVector]:
    """A model and a low-rank vector of it, without the detour over two adapter folders."""
    model, _ = tiny(arch)
    names = [name for name, _ in model.named_modules() if name.endswith(tuple(FEW))]
    parts = {name: [low_rank(model, name, rank, seed=seed + 10 * k)] for k, name in enumerate(names)}
    return model, vector(parts, model)


def vector(parts: Mapping[str, Sequence[Term]], model: PreTrainedModel | None = None, **metadata) -> WeightVector:
    """A vector of these terms, each with coefficient 1."""
    if model is not None:
        metadata = {"base": {"name": model_name(model), "hash": weight_hash(model)}, **metadata}
    terms = {name: Sum(several[0].shape, [(1.0, term) for term in several]) for name, several in parts.items()}
    return WeightVector(terms, metadata)


@torch.no_grad()
def changed(model: PreTrainedModel, deltas: Mapping[str, Tensor]) -> PreTrainedModel:
    """A copy of the model with these added to its parameters."""
    copy = deepcopy(model)
    for name, delta in deltas.items():
        parameter = copy.get_parameter(name)
        parameter += delta.reshape(parameter.shape)
    return copy

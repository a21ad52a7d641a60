"""The null of random directions: what a random vector with the norms of a given one does to an evaluation.

For dW uniformly random with the given norm of each tensor, an effect E at strength α has, to first order in α, mean 0
and the standard deviation

    sd = |α| · √( Σ_t ‖g_t‖² ‖dW_t‖² / numel_t ),        g_t = ∂E / ∂W_t at α = 0,

since E⟨g, R⟩² = ‖g‖² ‖R‖² / numel for R uniform on a sphere, and also for R with given singular values and uniformly
random singular vectors. The same gradient gives the slope of the vector itself, Σ_t ⟨g_t, dW_t⟩, the largest slope of
any direction with these norms, Σ_t ‖g_t‖ ‖dW_t‖, and the share of each module. For an activation vector the tensors are
its directions, and g is the gradient of a shift at every position.

A random direction of low rank with few large singular values is not normal: given the singular values s of R and σ of
g, ⟨g, R⟩ has to leading order the excess kurtosis 6 Σ s⁴ Σ σ⁴ / (Σ s² Σ σ²)². `weightsteer.stats.null` takes it and the
terms of second order into account in the tails that p values come from.

One forward and backward pass over the rows serves all vectors. E is the discrimination ½ (mean y over g = +1 − mean y
over g = −1) or the bias ½ (mean + mean) of `weightsteer.stats.summarize`, so the rows of the two labels are passed
separately, and their gradients subtracted and added.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from weightsteer.activation import ActivationVector
from weightsteer.data.evals.base import Evaluation, Item, rows_of
from weightsteer.inference.answers import choice_table
from weightsteer.inference.gradients import SHIFT, WEIGHT, Key, NoGradient, logratio_gradients
from weightsteer.measure.rows import check_distinct, identity
from weightsteer.measure.strengths import rendered
from weightsteer.models import check_base, decoder_layers, layer_index, model_name
from weightsteer.progress import progress
from weightsteer.stats.null import EFFECTS, SCHEMA
from weightsteer.vector import WeightVector

Vector = WeightVector | ActivationVector

LEAST_MEMORY = 2**31
"""Bytes of gradients that are held in any case, even where the adapted weights are smaller."""


def random_null(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vectors: Vector | Sequence[Vector],
    evaluation: Evaluation | Sequence[Item],
    *,
    memory: int | None = None,
    other_base: bool = False,
    shown: bool = True,
) -> pl.DataFrame:
    """The null of each vector on an evaluation, its slope, and what each of its modules contributes.

    Args:
        vectors: weight vectors (controls too) and activation vectors.
        evaluation: an `Evaluation`, or its rows. Rows of one label alone have no null: neither effect exists there.
        memory: bytes for gradients. By default as much as the adapted weights take in fp32, and at least 2 GiB; when
            the gradients of both labels do not fit, the modules are taken in several passes.
        other_base: as in `weightsteer.steer`.
        shown: show progress.

    Returns:
        One line per vector and effect with ``module`` null, then one per module, with the columns

        * of a sweep that say whose line it is, and ``eval``; ``effect``: ``discrimination`` or ``bias``;
        * ``module`` and its ``layer`` (−1: outside the decoder), null for the whole vector;
        * ``slope``: ∂E/∂α at 0, nats; ``null_sd``: the standard deviation of the slope of a random direction with the
          same norms, and ``kurtosis``, its excess kurtosis; ``z``: slope / null_sd; ``largest``: the largest slope of
          any direction with these norms; ``efficiency``: slope / largest, in [−1, 1];
        * ``alpha`` (null: the line holds at every α, to first order), and ``draws`` (null: from a gradient).

    Raises:
        WeightsteerError: a vector does not belong to the model.
        NoGradient: rows that ask for a thought first; weights without a gradient of their own
            (`weightsteer.inference.gradients.check_differentiable`). Sweep draws of the control ``random`` and use
            `weightsteer.stats.null_of_draws` there.
    """
    chosen = list(vectors) if isinstance(vectors, Sequence) else [vectors]
    check_distinct(chosen)
    name, items = rows_of(evaluation, model)
    if guided := next((item.item for item in items if item.thinking_tokens), None):
        raise NoGradient(
            f"row {guided!r} asks for a thought before its answer, which has no gradient. Sweep draws of the control "
            "'random' and use weightsteer.stats.null_of_draws."
        )
    for vector in chosen:
        if isinstance(vector, ActivationVector):
            vector.check_compatible(model)
        if not other_base:
            check_base(vector.metadata, model)
    bound = [vector.bind(model) if isinstance(vector, WeightVector) and not other_base else vector for vector in chosen]
    positive = [item.label > 0 for item in items]
    if all(positive) or not any(positive):
        return pl.DataFrame(schema=SCHEMA)
    rows = [rendered(tokenizer, chosen[0], item.messages, 0.0, answer_prefix=item.answer_prefix) for item in items]
    choices = choice_table(tokenizer, [item.choices for item in items]).to(model.device)
    tensors = {key: None for vector in bound for key, _ in _tensors(vector)}
    modules = dict(model.named_modules())
    sizes = {key: _entries(modules[key[0]], key[1], model) for key in tensors}
    limit = memory // 4 if memory is not None else max(sum(sizes.values()), LEAST_MEMORY // 4)
    groups = split(list(tensors), {key: 2 * size for key, size in sizes.items()}, limit)  # one gradient for each label
    found: dict[int, list[dict[str, Any]]] = {at: [] for at in range(len(bound))}
    with progress(f"null {name}", len(groups) * len(items), shown=shown) as advance:
        for group in groups:
            gradients = []
            for sign in (True, False):
                held = [at for at, label in enumerate(positive) if label is sign]
                of_them = [rows[at] for at in held], choices[held], [1 / len(held)] * len(held)
                gradients.append(logratio_gradients(model, *of_them, group, advance))
            for at, vector in enumerate(bound):
                for key, delta in _tensors(vector, set(group)):
                    plus, minus = (_matrix(each[key], modules[key[0]]) for each in gradients)
                    found[at] += _measured(key, delta, plus, minus)
    prefix, _ = decoder_layers(model)
    lines = []
    for at, vector in enumerate(chosen):
        known = {"model": model_name(model), **identity(vector), "eval": name}
        lines += [{**known, **line} for line in _lines(found[at], prefix)]
    return pl.DataFrame(lines, schema=SCHEMA)


def split(keys: Sequence[Key], sizes: dict[Key, int], limit: int) -> list[list[Key]]:
    """Groups of keys, in their order, of at most ``limit`` entries; a key that has more is a group by itself."""
    groups: list[list[Key]] = []
    held = 0
    for key in keys:
        if not groups or held + sizes[key] > limit:
            groups.append([])
            held = 0
        groups[-1].append(key)
        held += sizes[key]
    return groups


def _tensors(vector: Vector, wanted: set[Key] | None = None) -> Iterator[tuple[Key, Tensor]]:
    """What a vector adds, tensor by tensor; those of ``wanted`` are made, all others left out."""
    if isinstance(vector, ActivationVector):
        for name, direction in vector.directions.items():
            if wanted is None or (name, SHIFT) in wanted:
                yield (name, SHIFT), direction
        return
    for name in vector.names:
        if wanted is None or (name, WEIGHT) in wanted:
            yield (name, WEIGHT), torch.empty(0) if wanted is None else vector.delta(name)
        bias = vector.bias_delta(name)
        if bias is not None and (wanted is None or (name, SHIFT) in wanted):
            yield (name, SHIFT), bias


def _entries(module: torch.nn.Module, part: str, model: PreTrainedModel) -> int:
    weight = module.weight if part == WEIGHT else None
    return weight.numel() if isinstance(weight, Tensor) else int(model.config.get_text_config().hidden_size)


def _matrix(gradient: Tensor, module: torch.nn.Module) -> Tensor:
    """The gradient in the shape of a delta: (d_out, d_in), or (d, 1) of a norm."""
    if gradient.dim() == 2 and isinstance(module, Conv1D):
        return gradient.T
    return gradient


def _measured(key: Key, delta: Tensor, plus: Tensor, minus: Tensor) -> Iterator[dict[str, Any]]:
    """Slope, variance and largest slope of one tensor for both effects, from the gradients of the two labels."""
    change = delta.to(plus.device, torch.float32).reshape(plus.shape)
    norm, fourth = float(change.double().norm()), _fourth(change)
    for effect, gradient in (("discrimination", (plus - minus) / 2), ("bias", (plus + minus) / 2)):
        size = float(gradient.double().norm())
        variance = size**2 * norm**2 / change.numel()
        yield {
            "effect": effect,
            "module": key[0],
            "slope": float((gradient.double() * change.double()).sum()),
            "variance": variance,
            "cumulant": 6 * fourth * _fourth(gradient) / change.numel() ** 2,
            "largest": size * norm,
        }


def _fourth(matrix: Tensor) -> float:
    """Σ σ⁴ over the singular values, ``‖A A'‖²``; of a vector, which has no rank to speak of, 0."""
    if matrix.dim() < 2 or 1 in matrix.shape:
        return 0.0
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return float((small @ small.T).double().norm()) ** 2


def _lines(tensors: Sequence[dict[str, Any]], prefix: str) -> Iterator[dict[str, Any]]:
    """For each effect the line of the whole vector, then one for each module."""
    for effect in EFFECTS:
        own = [each for each in tensors if each["effect"] == effect]
        yield {"effect": effect, **_summed(own)}
        for name in dict.fromkeys(each["module"] for each in own):
            layer = layer_index(name, prefix)
            known = {"effect": effect, "module": name, "layer": -1 if layer is None else layer}
            yield {**known, **_summed([each for each in own if each["module"] == name])}


def _summed(tensors: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Slopes, variances, fourth cumulants and largest slopes add over tensors."""
    names = ("slope", "variance", "cumulant", "largest")
    slope, variance, cumulant, largest = (math.fsum(each[name] for each in tensors) for name in names)
    sd = math.sqrt(variance)
    return {
        "slope": slope,
        "null_sd": sd,
        "kurtosis": cumulant / variance**2 if variance else None,
        "z": slope / sd if sd else None,
        "largest": largest,
        "efficiency": slope / largest if largest else None,
    }

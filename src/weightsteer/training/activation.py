"""Fit an activation vector to contrastive pairs: the split, the method at each layer, its length, the increments."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.activation import methods
from weightsteer.activation.methods import Contrast
from weightsteer.activation.vector import ActivationVector
from weightsteer.data.pairs import kept
from weightsteer.data.pairs.encoding import Pairs, check_columns, encode
from weightsteer.errors import WeightsteerError, unknown
from weightsteer.inference.capture import ReadAt, block_outputs, capture
from weightsteer.models import base_record, decoder_layers
from weightsteer.training.layer_choice import choose_layer
from weightsteer.training.rows import digest
from weightsteer.vector.provenance import common
from weightsteer.versions import __version__

# the strength at which layers are compared, as a share of the residual norm: enough to be seen, too little to break
CHOICE_ALPHA = 0.1

MIDDLE = (0.3, 0.8)
"""Of the depth: layers 8 to 21 of 28, where the published directions were added."""

Scale = Literal["residual", "raw", "unit"]
"""The length of a direction: ``residual``, the mean norm of the states at its layer, so that α is a share of that
norm; ``raw``, what the method gives (activation units for a difference of means); ``unit``, 1."""


def fit_activation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    *,
    method: str = "diffmean",
    layers: int | Iterable[int] | Literal["choose", "all", "middle"] | None = None,
    incremental: bool = False,
    at: ReadAt | None = None,
    personas: bool = True,
    scale: Scale | None = None,
    validation: float = 0.2,
    seed: int = 0,
    metadata: Mapping[str, Any] | None = None,
    shown: bool = True,
) -> ActivationVector:
    """An activation vector from contrastive pairs, the ones that branches are trained on.

    Args:
        pairs: as `weightsteer.data.pairs.generate` makes them: prompt, response_pos, response_neg, and with
            ``personas`` sys_prompt_pos and sys_prompt_neg.
        method: ``diffmean``, ``pca``, ``repe-centered``, ``probe``, ``repe-published``
            (`weightsteer.activation.methods`). It may bring settings of its own for ``layers``, ``at`` and ``scale``.
        layers: one decoder layer, several, "all", "middle" (from 30% to 80% of the depth), or "choose" (the default):
            the one that does best on held-out pairs (`weightsteer.training.layer_choice`).
        incremental: of several layers, add at each only what it differs by from the one below, so that the
            additions up to a depth sum to that depth's direction.
        at: read the mean over the "answer" (the default), its "last" token, or the last token of the "prompt".
        personas: read both sides under their own system prompts, as persona vectors are (Chen et al., arXiv
            2507.21509); without, the sides differ in the text of their answers only. No row is ever steered
            under a system prompt.
        scale: "residual" (the default): α is a share of the mean norm of the states at the layer; "raw" or "unit".
        validation: share of the questions that is held out when something is chosen (a layer, or the
            regularisation of a probe); nothing is held out otherwise.
        seed: of that split; it also stands for the vector in tables, where seeds are resampled, so give the seed
            of the pairs.
        metadata: added to (and winning over) what is recorded here.

    Raises:
        WeightsteerError: unknown names, layers that do not exist, or pairs that do not differ.
    """
    prefix, blocks = decoder_layers(model)
    own = {"layers": "choose", "at": "answer", "scale": "residual"} | dict(methods.load(method).settings)
    layers, scale = own["layers"] if layers is None else layers, scale or own["scale"]
    # without personas nothing differs in front of the answer
    at = at or ("last" if own["at"] == "prompt" and not personas else own["at"])
    wanted = _wanted(layers, len(blocks))
    if incremental and (layers == "choose" or len(wanted) < 2):
        raise WeightsteerError("incremental directions need several layers: give a range of them, or 'all'.")
    if scale not in get_args(Scale):
        raise unknown("scale", scale, get_args(Scale))
    validates = methods.load(method).validates
    check_columns(pairs, personas=personas)
    pairs = kept(pairs)
    train, held = split(pairs, validation, seed) if validates or layers == "choose" else (pairs, None)
    captured = capture_pairs(model, tokenizer, train, wanted, at=at, personas=personas, shown=shown)
    aside = None
    if validates and held is not None:
        aside = capture_pairs(model, tokenizer, held, wanted, at=at, personas=personas, shown=shown)
    found = directions(captured, method, aside)
    record: dict[str, Any] = {
        "adapter": method,
        "behavior": common(pairs["behavior"].unique().to_list()) if "behavior" in pairs.columns else "unnamed",
        "seed": seed,
        "base": {**base_record(model), "model_type": model.config.model_type},
        "fit": {
            "at": at,
            "personas": personas,
            "scale": scale,
            "incremental": incremental,
            "pairs": len(captured.pairs.positive),
            "without_answer": captured.pairs.empty,
            "held_out": 0 if held is None else len(held),
            "data": digest(pairs),
            "residual_norms": {str(layer): captured.norms[layer] for layer in wanted},
        },
        "weightsteer": __version__,
    }

    def vector(of: Mapping[int, Tensor]) -> ActivationVector:
        named = {f"{prefix}.{layer}": direction for layer, direction in of.items()}
        return ActivationVector(named, {**record, **(metadata or {})})

    if layers == "choose" and held is not None:
        comparable = scaled(found, captured.norms, "residual")
        candidates = {layer: vector({layer: direction}) for layer, direction in comparable.items()}
        choice = choose_layer(model, tokenizer, candidates, held, alpha=CHOICE_ALPHA, shown=shown)
        record["fit"]["choice"] = {"alpha": CHOICE_ALPHA, "scores": {str(k): v for k, v in choice.scores.items()}}
        found = {choice.layer: found[choice.layer]}
    final = scaled(found, captured.norms, scale)
    return vector(increments(final) if incremental else final)


@dataclass(frozen=True)
class Captured:
    """The states of both sides of n pairs, by layer, and the mean norm of all tokens read at a layer."""

    contrasts: dict[int, Contrast]
    norms: dict[int, float]
    pairs: Pairs


def capture_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    layers: Iterable[int],
    *,
    at: ReadAt = "answer",
    personas: bool = True,
    shown: bool = True,
) -> Captured:
    """The states of both sides of contrastive pairs behind decoder layers.

    Args:
        pairs: the frame that branches are trained on (prompt, response_pos, response_neg), without rejected pairs.
        layers: decoder layers, from 0.
        at: which tokens to read.
        personas: put each side's own system prompt (sys_prompt_pos, sys_prompt_neg) in front, as when the pair
            was made. Without, the sides differ in the text of their answers only.

    Raises:
        WeightsteerError: columns or layers that are not there, no pair with answers, or tokens that cannot differ
            between the sides.
    """
    if at == "prompt" and not personas:
        raise WeightsteerError(
            "without personas both sides have the same prompt, so nothing differs in front of the answer. "
            "Read at 'answer' or 'last', or set personas=True."
        )
    points = block_outputs(model, layers)
    rows = encode(model, tokenizer, pairs, personas=personas)
    found = capture(model, [*rows.positive, *rows.negative], points.values(), at=at, shown=shown)
    n = len(rows.positive)
    states = {layer: found[point] for layer, point in points.items()}
    return Captured(
        {layer: Contrast(own.values[:n], own.values[n:]) for layer, own in states.items()},
        {layer: float(own.norms.double().mean()) for layer, own in states.items()},
        rows,
    )


def split(pairs: pl.DataFrame, share: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Training and held-out pairs: whole questions, so that no question is on both sides.

    Raises:
        WeightsteerError: the share is not between 0 and 1, or there is only one question.
    """
    if not 0 < share < 1:
        raise WeightsteerError(f"validation is {share}; it is the held-out share of the questions, between 0 and 1.")
    questions = sorted(set(pairs["prompt"]))
    if len(questions) < 2:
        raise WeightsteerError(
            "nothing can be held out of pairs with a single question. Give more questions, or a layer and a "
            "method that chooses nothing on held-out pairs."
        )
    count = min(len(questions) - 1, max(1, round(share * len(questions))))
    order = np.random.default_rng([seed, 1]).permutation(len(questions))
    held = pl.col("prompt").is_in([questions[index] for index in order[:count]])
    return pairs.filter(~held), pairs.filter(held)


def directions(captured: Captured, method: str, held_out: Captured | None) -> dict[int, Tensor]:
    """The direction (d,) of every captured layer in fp64, as the method gives it.

    Raises:
        WeightsteerError: unknown method, or the two sides do not differ at a layer.
    """
    fit = methods.load(method).fit
    found = {}
    for layer, contrast in captured.contrasts.items():
        found[layer] = fit(contrast, held_out.contrasts[layer] if held_out else None).double()
        if not 0 < float(found[layer].norm()) < float("inf"):
            raise WeightsteerError(
                f"the method {method!r} finds no direction at layer {layer}: the activations of the two sides are "
                "the same, or not finite. Look at the pairs."
            )
    return found


def scaled(found: Mapping[int, Tensor], norms: Mapping[int, float], scale: Scale) -> dict[int, Tensor]:
    """Directions (d,) at the length that ``scale`` says.

    Args:
        found: by layer, as the method gives them.
        norms: the mean norm of the states at each layer.
        scale: "residual", "raw" or "unit", as in `fit_activation`.
    """
    if scale == "raw":
        return dict(found)
    lengths = norms if scale == "residual" else dict.fromkeys(found, 1.0)
    return {layer: direction * (lengths[layer] / direction.norm()) for layer, direction in found.items()}


def increments(found: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """``v_l = a_l − a_{l'}``, l' the steered layer below l.

    What is added stays in the residual stream, so the sum of all additions up to depth l is a_l: each depth
    gets its own direction, not the sum of all directions below it.
    """
    below: Tensor | None = None
    differences = {}
    for layer, direction in sorted(found.items()):
        differences[layer] = direction if below is None else direction - below
        below = direction
    return differences


def _wanted(layers: int | Iterable[int] | str, count: int) -> list[int]:
    if isinstance(layers, str):
        if layers not in ("choose", "all", "middle"):
            raise unknown("choice of layers", layers, ("choose", "all", "middle"))
        if layers == "middle":
            return list(range(round(MIDDLE[0] * count), max(1, round(MIDDLE[1] * count))))
        return list(range(count))
    return [layers] if isinstance(layers, int) else sorted(set(layers))

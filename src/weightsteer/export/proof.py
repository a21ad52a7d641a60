"""Prove an exported adapter: plain PEFT loads the folder, and must give the logits of the steered model.

Two checks. *Weights*: PEFT's own delta of every adapted module against ``α·dW``, so that a tensor PEFT passed
over is found however little it matters. *Logits*: on a few prompts, the model with the adapter against the
model steered unmerged.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from weightsteer.errors import WeightsteerError
from weightsteer.models import model_name, render_chat, weight_hash
from weightsteer.steering import steer
from weightsteer.terms import Sum
from weightsteer.versions import versions

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

Probe = Tensor | Sequence[Sequence[int]] | Sequence[Tensor]
"""Prompts as token ids, one row each; they may differ in length, for every row is run by itself."""

WEIGHT_TOLERANCE = 1e-5
"""Relative, per module: products of fp32 factors differ by a few units in the last place."""
LOGIT_TOLERANCE = 1e-4

_QUESTIONS = (
    "Is honesty always the best policy?",
    "Name three things one finds in a kitchen.",
    "My sister asked me to lie for her. What should I do?",
    "I think that the moon is made of cheese. Do you agree?",
)


@dataclass(frozen=True)
class Difference:
    """Between two models' logits on the probe: |Δlogit| over all tokens and the whole vocabulary."""

    max: float
    mean: float


@dataclass(frozen=True)
class Proof:
    """What was compared, and what came out.

    Attributes:
        weights: the largest relative error of a module's delta, ``‖PEFT's − α·dW‖ / ‖α·dW‖``.
        logits: the adapter in plain PEFT against the steered model.
        tolerance: what ``logits.max`` may be: 1e-4, or 16 times the dtype's epsilon times the largest logit where that
            is more (half precision, whose rounding adds up over the layers: there `weights` is what decides).
        effect: the steered model against the base model, to see what the tolerance means.
        probe: number of prompts and tokens, and a blake2b-128 of the ids.
        model: name, weight hash and dtype of the model it was proved on.
        versions: of the libraries it was proved with.
    """

    weights: float
    logits: Difference
    tolerance: float
    effect: Difference
    probe: Mapping[str, Any]
    model: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether weights and logits are within their tolerances."""
        # written so that NaN fails
        return self.weights <= WEIGHT_TOLERANCE and self.logits.max <= self.tolerance

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "passed": self.passed, "weight_tolerance": WEIGHT_TOLERANCE}


def default_probe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[list[int]]:
    """Four short chat prompts; random token ids (seed 0) when there is no tokenizer to render them."""
    if tokenizer is not None:
        return [render_chat(tokenizer, [{"role": "user", "content": question}]) for question in _QUESTIONS]
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (len(_QUESTIONS), 16), generator=generator).tolist()


@torch.no_grad()
def prove(folder: Path, vector: "WeightVector", model: PreTrainedModel, probe: Probe) -> Proof:
    """Load the adapter into a copy of the model that shares its tensors, and compare.

    Args:
        folder: the adapter.
        vector: what it should add, at α = 1.
        model: the base model. It is as before afterwards.
        probe: the prompts.

    Raises:
        WeightsteerError: PEFT adapts other modules than the vector, or the probe holds no tokens.
    """
    rows = _rows(probe)
    with _loaded(folder, model) as adapted:
        weights = _weight_error(adapted, vector.terms)
        base, found = logits(model, rows), logits(adapted, rows)
        with steer(model, vector, 1.0, other_base=True):
            expected = logits(model, rows)
    largest = max(float(each.abs().max()) for each in expected)
    epsilon = torch.finfo(model.dtype).eps
    return Proof(
        weights=weights,
        logits=between(found, expected),
        tolerance=max(LOGIT_TOLERANCE, 16 * epsilon * largest),
        effect=between(expected, base),
        probe=_described(rows),
        model={
            "name": model_name(model),
            "hash": weight_hash(model),
            "dtype": str(model.dtype).removeprefix("torch."),
        },
        versions=versions(),
    )


def compare(vector: "WeightVector", other: "WeightVector", model: PreTrainedModel, probe: Probe) -> Difference:
    """|Δlogit| (largest and mean) between the model steered by one vector and by the other, both at α = 1.

    Args:
        probe: the prompts, as token ids, on which logits are compared.
    """
    with steer(model, vector, 1.0, other_base=True):
        first = logits(model, probe)
    with steer(model, other, 1.0, other_base=True):
        return between(first, logits(model, probe))


@torch.no_grad()
def logits(model: nn.Module, probe: Probe) -> list[Tensor]:
    """Logits (s, vocabulary) of every prompt in fp32 on the CPU, each run by itself and without dropout."""
    device = next(model.parameters()).device
    with _evaluated(model):
        return [model(input_ids=row.to(device)).logits[0].float().cpu() for row in _rows(probe)]


def between(first: Sequence[Tensor], second: Sequence[Tensor]) -> Difference:
    """The largest and the mean |Δlogit|."""
    apart = torch.cat([(a - b).abs().flatten() for a, b in zip(first, second, strict=True)])
    return Difference(float(apart.max()), float(apart.mean(dtype=torch.float64)))


def _rows(probe: Probe) -> list[Tensor]:
    """Each prompt as ids (1, s)."""
    rows = [torch.as_tensor(row, dtype=torch.long).reshape(1, -1) for row in probe]
    if not rows or any(row.numel() == 0 for row in rows):
        raise WeightsteerError("the probe must hold at least one prompt, and every prompt at least one token id.")
    return rows


def _described(rows: Sequence[Tensor]) -> dict[str, Any]:
    ids = json.dumps([row[0].tolist() for row in rows])
    return {
        "prompts": len(rows),
        "tokens": sum(row.numel() for row in rows),
        "hash": hashlib.blake2b(ids.encode(), digest_size=16).hexdigest(),
    }


@contextmanager
def _loaded(folder: Path, model: PreTrainedModel) -> Iterator[PeftModel]:
    """The adapter in plain PEFT, on a copy of the modules around the same tensors: no second set of weights."""
    tensors = [*model.parameters(), *model.buffers()]
    trainable = [tensor.requires_grad for tensor in tensors]
    try:
        copy = deepcopy(model, {id(tensor): tensor for tensor in tensors})
        yield _with_adapter(copy, folder)
    finally:  # PEFT freezes the base, and these are its very parameters
        for tensor, flag in zip(tensors, trainable, strict=True):
            tensor.requires_grad_(flag)


def _with_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (ValueError, TypeError, RuntimeError, KeyError, NotImplementedError) as error:
        raise WeightsteerError(
            f"plain PEFT does not load the export, so it was not kept: {error} Leave the modules it names out with "
            "v.drop(...), or merge the vector into a checkpoint (--merged)."
        ) from error


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Without dropout, which would differ between two forward passes."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _weight_error(adapted: PeftModel, terms: Mapping[str, Sum]) -> float:
    """The largest relative error of what PEFT says it adds to a module; one dense delta at a time."""
    layers = {
        name: module for name, module in adapted.get_base_model().named_modules() if isinstance(module, LoraLayer)
    }
    if wrong := sorted(layers.keys() ^ terms.keys()):
        raise WeightsteerError(
            f"PEFT adapts other modules than the vector, {wrong[0]} for one. Export from the base model of the "
            "vector, unwrapped and without adapters of its own."
        )
    worst = torch.zeros(())
    for name, layer in layers.items():
        expected = terms[name].delta()
        delta = layer.get_delta_weight("default").float().cpu()
        if isinstance(layer.get_base_layer(), Conv1D):
            delta = delta.T
        apart = (delta - expected).norm()
        worst = torch.maximum(worst, apart / expected.norm() if apart else apart)
    return float(worst)

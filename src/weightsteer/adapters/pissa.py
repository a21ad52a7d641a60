"""PiSSA: ``θ_branch = W − s B₀ A₀ + s B A``, where B₀ A₀ is the truncated SVD of W that training starts from.

Meng et al., arXiv 2404.02948. PEFT writes the residual ``W − s B₀ A₀`` into the base when it makes the adapter, and
again whenever it loads it. In the difference of two branches the initial factors cancel, ``s (B⁺A⁺ − B⁻A⁻)``, and no
base weight is needed. One branch alone needs them:

- from the folder, where training saved them (`Pissa.initial`);
- else by the same SVD of the base weight as PEFT's, for ``init_lora_weights="pissa"``;
- not at all for ``pissa_niter_*``, whose SVD is randomised: such an adapter without its initial factors is refused.

An adapter saved with ``path_initial_model_for_weight_conversion`` is a plain LoRA of twice the rank, and is read as
one. On a base in half precision PEFT rounds the residual; that rounding is not part of the delta.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from weightsteer.adapters import lora
from weightsteer.adapters.base import register
from weightsteer.adapters.checks import check_config, refusal, some
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.adapters.peft_family import Adapted, Terms
from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank, Sum

# Cosine between the trained and the initial factors below which they do not belong together. Training moves the
# factors by a small part of the largest singular components of the weight.
_LEAST_COSINE = 0.5

# The truncated SVD of a module's weight, by digest of the weight and rank: both branches of a pair need the same one.
_svds: WeakKeyDictionary[nn.Module, tuple[tuple[str, int], LowRank]] = WeakKeyDictionary()


@register("pissa")
class Pissa(lora.Lora):
    form = "s·(B·A − B₀·A₀), B₀·A₀ from the SVD of W; a pair: s·(B⁺·A⁺ − B⁻·A⁻), rank 2r"
    changes_base = True
    # pocket: chosen by validation loss alone, see docs/recipes.md
    recipe: ClassVar = {"pocket": {"lr": 1e-3}}
    variant: ClassVar = {"init_lora_weights": "pissa"}

    def fit(self, config: Mapping[str, Any]) -> int:
        return 3 * (config.get("peft_type") == self.peft_type and _kind(config).startswith("pissa"))

    def check(self, adapter: AdapterFolder) -> None:
        check_config(adapter, self.known, self.refusals)

    def initial(self, adapted: nn.Module) -> dict[str, Tensor]:
        """The factors of a fresh adapter, named as in its file."""
        return {
            name.replace(".default.", ".").removeprefix("base_model.model."): parameter.detach().cpu().clone()
            for name, parameter in adapted.named_parameters()
            if name.endswith((".lora_A.default.weight", ".lora_B.default.weight"))
        }

    def terms(self, one: Adapted) -> Terms:
        s = lora.scale(one)
        # s B₀ A₀ is the truncated SVD itself, whatever s
        initial = (-s, _saved(one)) if one.adapter.initial else (-1.0, _truncated(one))
        return [(s, LowRank(one[lora.B], one[lora.A])), initial]

    def branch_delta(self, adapter: AdapterFolder, model: nn.Module) -> dict[str, Sum]:
        deltas = super().branch_delta(adapter, model)
        if not adapter.initial:
            _check_belongs(adapter, deltas)
        return deltas

    def pair_delta(self, plus: AdapterFolder, minus: AdapterFolder, model: nn.Module) -> dict[str, Sum]:
        """``s⁺ B⁺A⁺ − s⁻ B⁻A⁻``, when both started from the same factors."""
        if plus.initial and minus.initial:
            return super().pair_delta(plus, minus, model)
        for adapter in (plus, minus):
            _check_deterministic(adapter)
        positive, negative = self.read(plus, model), self.read(minus, model)
        if only := sorted(set(positive) ^ set(negative)):
            raise WeightsteerError(f"only one of {plus.path} and {minus.path} adapts {some(only)}; train both alike.")
        deltas = {}
        for name, one in positive.items():
            other = negative[name]
            if len(one.tensors[lora.A]) != len(other.tensors[lora.A]):
                raise WeightsteerError(
                    f"{plus.path} and {minus.path} have different ranks at {name}, so their initial factors do not "
                    "cancel. Train both branches with the same rank."
                )
            terms = [
                (lora.scale(one), LowRank(one[lora.B], one[lora.A])),
                (-lora.scale(other), LowRank(other[lora.B], other[lora.A])),
            ]
            deltas[name] = Sum(one.shape, terms)
        return deltas


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("init_lora_weights", True))


def _check_deterministic(adapter: AdapterFolder) -> None:
    if (kind := _kind(adapter.config)) != "pissa":
        raise refusal(
            adapter,
            f"init_lora_weights={kind!r} draws its initial factors at random, and the folder does not hold them. "
            "Save the adapter with PEFT's `path_initial_model_for_weight_conversion`, or train with 'pissa'",
        )


def _saved(one: Adapted) -> LowRank:
    """B₀ A₀ from the folder."""
    try:
        up, down = (one.adapter.initial[f"{one.name}.{key}"] for key in (lora.B, lora.A))
    except KeyError as error:
        raise WeightsteerError(
            f"{one.adapter.path}: the initial factors of {one.name} are missing. Copy the folder again."
        ) from error
    if (up.shape, down.shape) != (one.tensors[lora.B].shape, one.tensors[lora.A].shape):
        raise WeightsteerError(
            f"{one.adapter.path}: the initial factors of {one.name} have other shapes than the trained ones. "
            "Take both from the same training run."
        )
    return LowRank(up, down)


def _truncated(one: Adapted) -> LowRank:
    """The SVD of the base weight cut at the rank of the adapter, as PEFT computes it."""
    _check_deterministic(one.adapter)
    key = (one.base.digest, len(one.tensors[lora.A]))
    known = _svds.get(one.module)
    if known is None or known[0] != key:
        # in fp32, as PEFT does it: singular values that nearly coincide must be split alike
        U, S, Vh = (part.double() for part in torch.linalg.svd(one.weight.float(), full_matrices=False))
        root = S[: key[1]].sqrt()
        known = key, LowRank(U[:, : key[1]] * root, root[:, None] * Vh[: key[1]])
        _svds[one.module] = known
    return known[1]


def _check_belongs(adapter: AdapterFolder, deltas: Mapping[str, Sum]) -> None:
    """The trained factors must still resemble those that the base weight gives: else it is another base."""
    inner = trained = initial = 0.0
    for total in deltas.values():
        plus, minus = (Sum(total.shape, [part for part in total.terms if part[0] * sign > 0]) for sign in (1, -1))
        inner -= plus.inner(minus)
        trained += plus.norm() ** 2
        initial += minus.norm() ** 2
    if inner < _LEAST_COSINE * math.sqrt(trained * initial):
        raise WeightsteerError(
            f"{adapter.path}: the trained factors do not resemble the singular vectors of this model's weights, from "
            "which PiSSA starts: it was trained on another base, or with other initial factors. Load the base model "
            "the adapter was trained on."
        )

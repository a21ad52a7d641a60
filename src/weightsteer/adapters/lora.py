"""LoRA and rank-stabilised LoRA: ``θ_branch = W + s B A`` with s = α/r, or α/√r for rsLoRA.

Hu et al., arXiv 2106.09685; Kalajdzievski, arXiv 2312.03732. The delta ``s B A`` needs nothing of the base
weight, so it is exact for any base, quantised ones included. Variants that change the base, or add something
beside A and B, are refused with the reason: PEFT combines several of them without a word, and wrongly.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from weightsteer.adapters.base import AdapterFamily, register
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank, Sum, matrix_shape

# What the delta depends on and is read below, and what does not change it: training-time, bookkeeping, and
# the options of initialisations, which `_INITS` judges.
_KNOWN = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "peft_type",
    "peft_version",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
}
_REFUSED = {
    "use_dora": "DoRA rescales every row of the base weight, which B and A alone do not tell",
    "lora_bias": "lora_bias=True adds a trained bias that scales differently from the weight",
    "modules_to_save": "modules_to_save replaces whole modules by trained copies",
    "trainable_token_indices": "trainable_token_indices replaces rows of the embedding",
    "target_parameters": "target_parameters adapts bare parameters, which no module applies on its own",
    "layer_replication": "layer_replication changes the layers of the model itself",
    "alora_invocation_tokens": "Activated LoRA is on for some tokens only, so it is no change of the weights",
    "arrow_config": "Arrow routes between adapters token by token, so it is no change of the weights",
    "kasa_config": "KaSA truncates the base weight and has a diagonal between B and A",
    "monteclora_config": "MonteCLoRA samples its weights",
    "use_bdlora": "BD-LoRA stores block-diagonal factors",
    "use_qalora": "QA-LoRA pools its inputs",
    "ensure_weight_tying": "tied adapters also change the embedding",
}
_TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
# Which initialisations leave the base weight alone (peft 0.21, LoraLayer.update_layer).
_INITS = {True, False, "gaussian", "eva", "orthogonal", "mica"}

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


@register("lora")
class Lora(AdapterFamily):
    peft_type = "LORA"

    def peft_config(
        self,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        layers: Sequence[int] | None = None,
        *,
        rslora: bool = False,
        **options: Any,
    ) -> LoraConfig:
        """A LoRA without dropout and biases, on the given modules of the given layers."""
        return LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=list(target_modules),
            layers_to_transform=None if layers is None else list(layers),
            use_rslora=rslora,
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            **options,
        )

    def branch_delta(self, adapter: AdapterFolder, model: nn.Module) -> dict[str, Sum]:
        _check_config(adapter)
        factors = _factors(adapter)
        _check_coverage(adapter, factors, model)
        modules = dict(model.named_modules())
        deltas = {}
        for name, pair in factors.items():
            term = _term(adapter, name, pair, modules)
            deltas[name] = Sum(term.shape, [(_scale(adapter, name, term.rank), term)])
        return deltas


def _check_config(adapter: AdapterFolder) -> None:
    """Refuse whatever is not plainly LoRA.

    A field nobody here knows is harmless only at the value PEFT itself gives it, or when it is off.
    """
    config = adapter.config
    defaults = LoraConfig().to_dict()
    for key, value in config.items():
        if key in _REFUSED and value:
            raise _refusal(adapter, _REFUSED[key])
        if key not in _KNOWN and value and value != defaults.get(key):
            raise _refusal(
                adapter,
                f"its configuration sets {key}={value!r}, an option whose effect on the weights is not known",
            )
    if (bias := config.get("bias", "none")) != "none":
        raise _refusal(adapter, f"bias={bias!r} trains the biases of the base model too")
    if (init := config.get("init_lora_weights", True)) not in _INITS:
        raise _refusal(
            adapter,
            f"init_lora_weights={init!r} is not known to leave the base weight alone; most that are not change it when "
            "training starts, by an amount the folder does not hold. Save the adapter with PEFT's "
            "`path_initial_model_for_weight_conversion`, which makes it a plain LoRA of twice the rank",
        )


def _refusal(adapter: AdapterFolder, reason: str) -> WeightsteerError:
    return WeightsteerError(
        f"{adapter.path}: {reason}. Its weight difference would not be exact, so it is refused; "
        "use plain LoRA or rsLoRA for both branches."
    )


def _factors(adapter: AdapterFolder) -> dict[str, dict[str, Tensor]]:
    """A and B by module path; anything else in the file is refused by name."""
    factors: dict[str, dict[str, Tensor]] = {}
    extra = []
    for key, tensor in adapter.tensors.items():
        if (match := _FACTOR.fullmatch(key)) and tensor.dim() == 2:
            factors.setdefault(match["module"], {})[match["side"]] = tensor
        else:
            extra.append(key)
    if extra:
        raise _refusal(adapter, f"it holds more than LoRA's A and B matrices of linear modules: {_some(extra)}")
    if half := [name for name, pair in factors.items() if len(pair) < 2]:
        raise WeightsteerError(
            f"{adapter.path}: only one of A and B is there for {_some(half)}. "
            "The file is incomplete; save or copy the adapter again."
        )
    if not factors:
        raise WeightsteerError(f"{adapter.path} holds no LoRA matrices at all; save or copy the adapter again.")
    return factors


def _check_coverage(adapter: AdapterFolder, factors: Mapping[str, Any], model: nn.Module) -> None:
    """The file must hold exactly the modules that its configuration would have PEFT adapt in this model."""
    names = [name for name, _ in model.named_modules() if name]
    if missing := sorted(set(factors) - set(names)):
        raise WeightsteerError(
            f"{adapter.path}: the model has no module {_some(missing)}. The adapter was trained on another "
            f"architecture{f' ({adapter.base_name})' if adapter.base_name else ''}, or the model is wrapped: "
            "pass the base model itself."
        )
    if not adapter.config.get("target_modules"):
        return
    config = LoraConfig(**{key: adapter.config.get(key) for key in _TARGETS})
    expected = {name for name in names if check_target_module_exists(config, name)}
    if lost := sorted(expected - set(factors)):
        raise WeightsteerError(
            f"{adapter.path}: the configuration adapts {_some(lost)}, but the file holds no matrices for "
            "them. It is incomplete; save or copy the adapter again."
        )


def _term(adapter: AdapterFolder, name: str, pair: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> LowRank:
    shape = matrix_shape(modules[name])
    if shape is None:
        raise _refusal(adapter, f"{name} is a {type(modules[name]).__name__}, not a linear module")
    term = LowRank(pair["B"], pair["A"])
    if term.shape != shape:
        raise WeightsteerError(
            f"{adapter.path}: {name} is {term.shape[0]}×{term.shape[1]} in the adapter but "
            f"{shape[0]}×{shape[1]} in the model. Load the base model the adapter was trained on "
            f"({adapter.base_name or 'it names none'})."
        )
    return term


def _scale(adapter: AdapterFolder, name: str, rank: int) -> float:
    """α/r or α/√r of this module, with ``rank_pattern`` and ``alpha_pattern``.

    During training PEFT takes the first pattern that matches, but it saves them sorted: when several match
    with different values, the file does not tell which one it was. The rank shows in the matrices, α does
    not.
    """
    if rank not in (ranks := _matching(adapter.config, "rank_pattern", "r", name)):
        raise WeightsteerError(
            f"{adapter.path}: {name} has rank {rank} in the file but {ranks[0]} in the configuration, so its "
            "scale is unknown. Take adapter_config.json and the weights from the same training run."
        )
    alphas = _matching(adapter.config, "alpha_pattern", "lora_alpha", name)
    if len(set(alphas)) > 1:
        raise _refusal(
            adapter,
            f"several entries of alpha_pattern match {name} ({', '.join(map(str, alphas))}), and PEFT does "
            "not save which of them was used in training",
        )
    return float(alphas[0]) / (math.sqrt(rank) if adapter.config.get("use_rslora") else rank)


def _matching(config: Mapping[str, Any], patterns: str, default: str, name: str) -> list[float]:
    """The values of all patterns that match a module (by PEFT's own rule), or the general value."""
    by_pattern = config.get(patterns) or {}
    matching = [value for key, value in by_pattern.items() if get_pattern_key([key], name) == key]
    return matching or [config.get(default, getattr(LoraConfig, default))]


def _some(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

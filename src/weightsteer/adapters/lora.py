"""LoRA and rank-stabilised LoRA: ``θ_branch = W + s B A`` with s = α/r, or α/√r for rsLoRA.

Hu et al., arXiv 2106.09685; Kalajdzievski, arXiv 2312.03732. The delta ``s B A`` needs nothing of the base
weight, so it is exact for any base, also for a quantised one, on which it is applied unmerged. Variants that change
the base, or add something in addition to A and B, are refused with the reason: PEFT combines several of them without
a word, and wrongly.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from peft import LoraConfig
from peft.utils.other import get_pattern_key

from weightsteer.adapters.base import register
from weightsteer.adapters.checks import refusal
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.adapters.peft_family import Adapted, PeftFamily, Terms
from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank

A, B = "lora_A.weight", "lora_B.weight"

# Which initialisations leave the base weight alone (peft 0.21, LoraLayer.update_layer).
_INITS = {True, False, "gaussian", "eva", "orthogonal", "mica"}


@register("lora")
class Lora(PeftFamily):
    """LoRA: ``θ_branch = W + s B A`` with s = α/r."""

    peft_type = "LORA"
    form = "s·B·A, s = alpha/r; a pair: rank 2r"
    keys: ClassVar[tuple[str, ...]] = (A, B)
    known = frozenset(
        {
            "alpha_pattern",
            "lora_alpha",
            "lora_dropout",
            "r",
            "rank_pattern",
            "use_rslora",
            # initialisations, which `check` judges, and their options
            "init_lora_weights",
            "corda_config",
            "eva_config",
            "loftq_config",
            "lora_ga_config",
        }
    )
    refusals: ClassVar = {
        "use_dora": "DoRA rescales every row of the base weight, which B and A alone do not tell",
        "lora_bias": "lora_bias=True adds a trained bias that scales differently from the weight",
        "alora_invocation_tokens": "Activated LoRA is on for some tokens only, so it is no change of the weights",
        "arrow_config": "Arrow routes between adapters token by token, so it is no change of the weights",
        "kasa_config": "KaSA truncates the base weight and has a diagonal between B and A",
        "monteclora_config": "MonteCLoRA samples its weights",
        "use_bdlora": "BD-LoRA stores block-diagonal factors",
        "use_qalora": "QA-LoRA pools its inputs",
        "ensure_weight_tying": "tied adapters also change the embedding",
    }

    variant: ClassVar[dict[str, Any]] = {}
    """PEFT's settings that make a variant of LoRA."""

    def peft_config(
        self,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        layers: Sequence[int] | None = None,
        **options: Any,
    ) -> LoraConfig:
        """A LoRA without dropout and biases, on the given modules of the given layers."""
        return LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=list(target_modules),
            layers_to_transform=None if layers is None else list(layers),
            task_type="CAUSAL_LM",
            **{"lora_dropout": 0.0, "bias": "none", **self.variant, **options},
        )

    def terms(self, one: Adapted) -> Terms:
        return [(scale(one), LowRank(one[B], one[A]))]

    def check(self, adapter: AdapterFolder) -> None:
        super().check(adapter)
        if (init := adapter.config.get("init_lora_weights", True)) not in _INITS:
            raise refusal(
                adapter,
                f"init_lora_weights={init!r} is not known to leave the base weight alone; most that are not change it "
                "when training starts, by an amount the folder does not hold. Save the adapter with PEFT's "
                "`path_initial_model_for_weight_conversion`, which makes it a plain LoRA of twice the rank",
            )


@register("rslora")
class RsLora(Lora):
    """rsLoRA: LoRA with the scale s = α/√r."""

    form = "s·B·A, s = alpha/√r; a pair: rank 2r"
    variant: ClassVar = {"use_rslora": True}

    def fit(self, config: Mapping[str, Any]) -> int:
        return 2 * (super().fit(config) and bool(config.get("use_rslora")))


def scale(one: Adapted) -> float:
    """α/r or α/√r of a module, with ``rank_pattern`` and ``alpha_pattern``; checks the shapes of A and B.

    During training PEFT takes the first pattern that matches, but it saves them sorted: when several match
    with different values, the file does not tell which one it was. The rank shows in the matrices, α does
    not.
    """
    rank, config = len(one.tensors[A]), one.adapter.config
    one.check(A, rank, one.shape[1])
    one.check(B, one.shape[0], rank)
    check_rank(one, rank, LoraConfig.r)
    alphas = matching(one, "alpha_pattern", "lora_alpha", LoraConfig.lora_alpha)
    if len(set(alphas)) > 1:
        raise one.refused(
            f"several entries of alpha_pattern match {one.name} ({', '.join(map(str, alphas))}), and PEFT does "
            "not save which of them was used in training"
        )
    return float(alphas[0]) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def check_rank(one: Adapted, rank: int, default: int) -> None:
    """The scale depends on the rank, so the matrices and the configuration must tell the same."""
    if rank not in (ranks := matching(one, "rank_pattern", "r", default)):
        raise WeightsteerError(
            f"{one.adapter.path}: {one.name} has rank {rank} in the file but {ranks[0]} in the configuration, so its "
            "scale is unknown. Take adapter_config.json and the weights from the same training run."
        )


def matching(one: Adapted, patterns: str, general: str, default: float) -> list[float]:
    """The values of all patterns that match a module (by PEFT's own rule), or the general value."""
    by_pattern = one.adapter.config.get(patterns) or {}
    found = [value for key, value in by_pattern.items() if get_pattern_key([key], one.name) == key]
    return found or [one.adapter.config.get(general, default)]

"""DeLoRA: ``θ_branch = W + B diag(λ / (r ‖A_i‖ ‖B_i‖)) A diag(n)``, n the column norms of W.

Bini et al., arXiv 2503.18225. Rows of A and columns of B are normalised, so λ alone sets the size; it is trained too.
PEFT keeps n as a buffer in the file; where an older file lacks it, n is computed from the base weight, as PEFT does.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig

from weightsteer.adapters.base import register
from weightsteer.adapters.lora import check_rank
from weightsteer.adapters.peft_family import Adapted, PeftFamily, Terms
from weightsteer.adapters.release import config_class
from weightsteer.terms import LowRank

_A, _B, _LAMBDA, _NORMS = "delora_A", "delora_B", "delora_lambda", "delora_w_norm"

# PEFT clamps the norms it divides by (DeloraLayer._compute_delta).
_LEAST_NORM = 1e-4


@register("delora")
class DeLora(PeftFamily):
    peft_type = "DELORA"
    form = "B·diag(λ/(r·‖A_i‖·‖B_i‖))·A·diag(‖W_j‖); a pair: rank 2r"
    keys = (_A, _B, _LAMBDA, _NORMS)
    optional = (_NORMS,)
    known = frozenset({"delora_lambda", "lambda_pattern", "module_dropout", "r", "rank_pattern"})
    # paper: 10 to 100 times LoRA's rate, as its authors train it
    # pocket: chosen by validation loss alone, see docs/recipes.md
    recipe: ClassVar = {"paper": {"lr": 1e-3, "delora_lambda": 15}, "pocket": {"lr": 3e-3, "delora_lambda": 4}}

    def peft_config(
        self,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        layers: Sequence[int] | None = None,
        *,
        delora_lambda: float = 15,
        **options: Any,
    ) -> PeftConfig:
        """A DeLoRA that starts at the base. It has no ``alpha``.

        Args:
            delora_lambda: where λ starts: the bound of ‖dW‖, in column norms of the weight.
        """
        return config_class(self.peft_type)(
            r=rank,
            delora_lambda=delora_lambda,
            target_modules=list(target_modules),
            layers_to_transform=None if layers is None else list(layers),
            task_type="CAUSAL_LM",
            **{"bias": "none", **options},
        )

    def terms(self, one: Adapted) -> Terms:
        rank = len(one.tensors[_A])
        one.check(_A, rank, one.shape[1])
        one.check(_B, one.shape[0], rank)
        one.check(_LAMBDA, 1)
        check_rank(one, rank, PEFT_TYPE_TO_CONFIG_MAPPING[self.peft_type].r)
        if _NORMS in one:
            one.check(_NORMS, one.shape[1])
            norms = one[_NORMS]
        else:
            norms = torch.linalg.vector_norm(one.weight, dim=0)
        lengths = one[_A].norm(dim=1).clamp(min=_LEAST_NORM) * one[_B].norm(dim=0).clamp(min=_LEAST_NORM)
        return [(1.0, LowRank(one[_B] * (one[_LAMBDA] / rank / lengths), one[_A] * norms))]

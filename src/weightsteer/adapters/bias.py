"""bias: a vector b added to the output of a module, ``y' = W x + b``; the weight stays as it is.

The cheap variant of Fierro & Roger (arXiv 2511.05408), which trains a new bias of every ``mlp.down_proj``: a constant
steering vector per layer, found by fine-tuning. In PEFT it is BEFT (arXiv 2509.15974), which PEFT has since 0.20.
It needs nothing of the base weight.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from peft import PeftConfig
from torch import nn

from weightsteer.adapters.base import register
from weightsteer.adapters.peft_family import Adapted, PeftFamily, Terms
from weightsteer.adapters.release import config_class
from weightsteer.adapters.targets import FEED_FORWARD, named
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Bias

_BIAS = "beft_bias"


@register("bias")
class AddedBias(PeftFamily):
    peft_type = "BEFT"
    form = "+b on the outputs of mlp.down_proj; a pair: b⁺−b⁻"
    keys = (_BIAS,)
    # paper: as published; pocket: chosen by validation loss alone, see docs/recipes.md
    recipe: ClassVar = {"paper": {"lr": 1e-4}, "pocket": {"lr": 1.0}}

    def targets(self, layers: nn.ModuleList, chosen: Iterable[int]) -> list[str]:
        return named(layers, chosen, FEED_FORWARD, "bias")

    def peft_config(
        self,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        layers: Sequence[int] | None = None,
        **options: Any,
    ) -> PeftConfig:
        """Biases that start at 0. It has no ``rank`` and no ``alpha``.

        Raises:
            WeightsteerError: ``layers`` are given, or this release of PEFT has no BEFT.
        """
        if layers is not None:
            raise WeightsteerError(
                "PEFT's BEFT cannot be limited to layers. Give full module paths as target_modules: "
                "model.layers.8.mlp.down_proj …"
            )
        return config_class(self.peft_type)(target_modules=list(target_modules), task_type="CAUSAL_LM", **options)

    def terms(self, one: Adapted) -> Terms:
        one.check(_BIAS, 1, one.shape[0])
        return [(1.0, Bias(one[_BIAS].flatten(), one.shape[1]))]

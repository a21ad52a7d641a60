"""IA3: ``θ_branch = diag(l) W`` where it scales outputs (keys, values), ``W diag(l)`` where it scales inputs.

Liu et al., arXiv 2205.05638. On a module whose outputs it scales, the bias is scaled as well. The delta depends on the
base weight, so a quantised base is refused. PEFT's configuration knows no layers: a slice of them is chosen by full
module paths.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from peft import IA3Config
from torch import nn

from weightsteer.adapters.base import register
from weightsteer.adapters.peft_family import Adapted, PeftFamily, Terms
from weightsteer.adapters.targets import FEED_FORWARD, ends_with, named
from weightsteer.errors import WeightsteerError
from weightsteer.terms import ColumnScale, RowScale

_SCALE = "ia3_l"

# keys and values, or what has them in it, as the architectures call them
_ATTENTION = ("k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn")


@register("ia3")
class Ia3(PeftFamily):
    peft_type = "IA3"
    form = "diag(l−1)·W on keys and values, W·diag(l−1) on the feed-forward input; a pair: diag(l⁺−l⁻)"
    keys = (_SCALE,)
    # which modules are feed-forward shows in the shape of l
    known = frozenset({"feedforward_modules", "init_ia3_weights"})
    # scales start at 1: at the rates of other families they do not move
    # pocket: chosen by validation loss alone, see docs/recipes.md
    # fork: all layers, as published: PEFT's IA3 knows no slice of layers
    recipe: ClassVar = {"paper": {"lr": 5e-3}, "pocket": {"lr": 3e-2}, "fork": {"layers": (0.0, 1.0)}}

    def targets(self, layers: nn.ModuleList, chosen: Iterable[int]) -> list[str]:
        return named(layers, chosen, [*_ATTENTION, *FEED_FORWARD], "IA3")

    def peft_config(
        self,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        layers: Sequence[int] | None = None,
        **options: Any,
    ) -> IA3Config:
        """Scales of outputs, and of the inputs of feed-forward modules. It has no ``rank`` and no ``alpha``.

        Raises:
            WeightsteerError: ``layers`` are given.
        """
        if layers is not None:
            raise WeightsteerError(
                "PEFT's IA3 cannot be limited to layers. Give full module paths as target_modules: "
                "model.layers.8.self_attn.k_proj …"
            )
        forward = [name for name in target_modules if ends_with(name, FEED_FORWARD)]
        return IA3Config(
            target_modules=list(target_modules),
            task_type="CAUSAL_LM",
            **{"feedforward_modules": forward, **options},
        )

    def terms(self, one: Adapted) -> Terms:
        d_out, d_in = one.shape
        scale = one[_SCALE].flatten() - 1.0
        # PEFT makes a row for the modules that its configuration calls feed-forward, a column for the others
        if tuple(one.tensors[_SCALE].shape) == (1, d_in):
            return [(1.0, ColumnScale(scale, one.base))]
        one.check(_SCALE, d_out, 1)
        return [(1.0, RowScale(scale, one.base, bias=True))]

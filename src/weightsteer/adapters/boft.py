"""BOFT: ``θ_branch = diag(s) W Rᵀ``, R a product of m orthogonal butterfly factors.

Liu et al., arXiv 2311.06243. Each factor is block-diagonal under a permutation (`weightsteer.terms.Butterfly` has the
convention), and each block the Cayley transform of the skew part of a trained matrix. Written so that small rotations
stay small numbers, with ``Rᵀ = F_0 F_1 … F_(m−1)``:

    dW = diag(s − 1) W + diag(s) W (Rᵀ − I),   Rᵀ − I = Σ_i (F_i − I) F_(i+1) … F_(m−1)

It depends on the base weight, so a quantised base is refused. Without its CUDA extension PEFT trains m = 1 whatever the
configuration says; the file tells.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from peft import BOFTConfig

from weightsteer.adapters.base import register
from weightsteer.adapters.oft import cayley
from weightsteer.adapters.peft_family import Adapted, PeftFamily, Terms
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Butterfly, RowScale

_FACTORS, _SCALE = "boft_R", "boft_s"


@register("boft")
class Boft(PeftFamily):
    peft_type = "BOFT"
    form = "diag(s)·W·Rᵀ − W, R a product of m butterfly factors; a pair: diag(s⁺)·W·R⁺ᵀ − diag(s⁻)·W·R⁻ᵀ"
    keys = (_FACTORS, _SCALE)
    known = frozenset({"boft_block_num", "boft_block_size", "boft_dropout", "boft_n_butterfly_factor"})
    # pocket: chosen by validation loss alone, see docs/recipes.md
    recipe: ClassVar = {"paper": {"lr": 1e-4, "block_size": 8}, "pocket": {"lr": 3e-3, "block_size": 8}}

    def peft_config(
        self,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        layers: Sequence[int] | None = None,
        *,
        block_size: int = 8,
        **options: Any,
    ) -> BOFTConfig:
        """One butterfly factor of exact rotations in blocks. It has no ``rank`` and no ``alpha``.

        Args:
            block_size: size of the blocks; it must divide the inputs of every module.
        """
        return BOFTConfig(
            boft_block_size=block_size,
            target_modules=list(target_modules),
            layers_to_transform=None if layers is None else list(layers),
            task_type="CAUSAL_LM",
            **{"bias": "none", **options},
        )

    def terms(self, one: Adapted) -> Terms:
        d_out, d_in = one.shape
        found = one.tensors[_FACTORS]
        if found.dim() != 4 or found.shape[2] != found.shape[3] or found.shape[1] * found.shape[2] != d_in:
            raise WeightsteerError(
                f"{one.adapter.path}: the {_FACTORS} of {one.name} has shape {tuple(found.shape)}, which makes no "
                f"blocks for the {d_in} inputs of the module in this model. Load the base model the adapter was "
                f"trained on ({one.adapter.base_name or 'it names none'})."
            )
        one.check(_SCALE, d_out, 1)
        trained, scale = one[_FACTORS], one[_SCALE].flatten()
        skew = 0.5 * (trained - trained.transpose(-1, -2))
        factors = cayley(skew.flatten(0, 1)).view_as(trained).transpose(-1, -2)
        identity = torch.eye(trained.shape[-1], dtype=trained.dtype).expand_as(trained)
        summands = [
            torch.cat([identity[:i], factors[i : i + 1] - identity[i : i + 1], factors[i + 1 :]])
            for i in range(len(factors))
        ]
        turned = Butterfly(scale.expand(len(summands), d_out), torch.stack(summands), one.base)
        return [(1.0, RowScale(scale - 1.0, one.base)), (1.0, turned)]

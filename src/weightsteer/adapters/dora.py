"""DoRA: ``θ_branch = diag(g) (W + s B A)`` with g = m / ‖W + s B A‖ by rows.

Liu et al., arXiv 2402.09353. m is the trained magnitude of each row. The delta is the base weight with its rows
scaled, plus a low-rank part:

    diag(g − 1) W + s (g ∘ B) A

It depends on the base weight, so a quantised base is refused. α·dW is a straight line in weight space, not a path of
DoRA models.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from weightsteer.adapters import lora
from weightsteer.adapters.base import register
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.adapters.peft_family import Adapted, Terms
from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank, RowScale

_MAGNITUDE = "lora_magnitude_vector"


@register("dora")
class Dora(lora.Lora):
    form = "diag(g−1)·W + s·diag(g)·B·A, g = m/‖W + s·B·A‖ by rows; a pair: one row scale and rank 2r"
    keys = (lora.A, lora.B, _MAGNITUDE, f"{_MAGNITUDE}.weight")
    optional = (_MAGNITUDE, f"{_MAGNITUDE}.weight")
    known = lora.Lora.known | {"use_dora"}
    refusals: ClassVar = {key: reason for key, reason in lora.Lora.refusals.items() if key != "use_dora"}
    variant: ClassVar = {"use_dora": True}

    def fit(self, config: Mapping[str, Any]) -> int:
        # above PiSSA: both at once is DoRA on a base that PiSSA changed, which `check` refuses
        return 4 * (config.get("peft_type") == self.peft_type and bool(config.get("use_dora")))

    def check(self, adapter: AdapterFolder) -> None:
        super().check(adapter)
        if not adapter.config.get("use_dora"):
            raise WeightsteerError(f"{adapter.path} is no DoRA: its configuration does not set use_dora.")

    def terms(self, one: Adapted) -> Terms:
        s = lora.scale(one)
        magnitude = _magnitude(one)
        norms = torch.linalg.vector_norm(torch.addmm(one.weight, one[lora.B], one[lora.A], alpha=s), dim=1)
        if bool((norms == 0).any()):
            raise one.refused(f"{one.name} has a row of zeros, and DoRA divides by the norms of the rows")
        g = magnitude / norms
        return [(1.0, RowScale(g - 1.0, one.base)), (s, LowRank(g[:, None] * one[lora.B], one[lora.A]))]


def _magnitude(one: Adapted) -> Tensor:
    """m (d_out,), under either of the names that releases of PEFT have given it."""
    for key in (_MAGNITUDE, f"{_MAGNITUDE}.weight"):
        if key in one:
            one.check(key, one.shape[0])
            return one[key]
    raise WeightsteerError(
        f"{one.adapter.path}: the file lacks {one.name}.{_MAGNITUDE}. It is incomplete; save or copy the adapter again."
    )

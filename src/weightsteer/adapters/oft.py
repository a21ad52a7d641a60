"""OFT: ``θ_branch = W Rᵀ``, R block-diagonal and orthogonal.

Qiu et al., arXiv 2306.07280; Liu et al., 2506.19847 for the rotation of inputs. PEFT turns the input row x to ``x R``;
seen from the weight, that is W Rᵀ, and the delta is ``W (Rᵀ − I)``. Each block of R comes from a skew-symmetric Q:

- exactly, by the Cayley transform ``R = (I − Q)(I + Q)⁻¹``;
- or by a truncated Neumann series of ``(I + Q)(I − Q)⁻¹``: of the opposite sign, and orthogonal only nearly
  (`orthogonality_error` tells how nearly). The delta is what PEFT computes, either way.

It depends on the base weight, so a quantised base is refused. α·dW is a straight line in weight space, which leaves the
rotations.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from packaging.version import InvalidVersion, Version
from peft import PeftConfig
from torch import Tensor, nn

from weightsteer.adapters.base import register
from weightsteer.adapters.checks import refusal
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.adapters.peft_family import Adapted, PeftFamily, Terms
from weightsteer.adapters.release import config_class, if_known
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Rotated

_ROTATION = "oft_R.weight"

# The release of PEFT that changed the last coefficient of the truncated series.
_NEUMANN_SINCE = Version("0.18.0")


@register("oft")
class Oft(PeftFamily):
    peft_type = "OFT"
    form = "W·(Rᵀ−I), R block-diagonal, Cayley of skew blocks; a pair: W·(R⁺−R⁻)ᵀ"
    keys = (_ROTATION,)
    known = frozenset(
        {
            "block_share",
            "coft",
            "eps",
            "module_dropout",
            "num_cayley_neumann_terms",
            "oft_block_size",
            "r",
            "use_cayley_neumann",
        }
    )
    # pocket: chosen by validation loss alone, see docs/recipes.md
    recipe: ClassVar = {"paper": {"lr": 1e-4, "block_size": 32}, "pocket": {"lr": 3e-3, "block_size": 8}}

    def peft_config(
        self,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        layers: Sequence[int] | None = None,
        *,
        block_size: int = 32,
        **options: Any,
    ) -> PeftConfig:
        """Exact rotations in blocks. It has no ``rank`` and no ``alpha``.

        Args:
            block_size: size of the blocks; it must divide the inputs of every module.
        """
        kind = config_class(self.peft_type)
        return kind(
            r=0,
            oft_block_size=block_size,
            target_modules=list(target_modules),
            layers_to_transform=None if layers is None else list(layers),
            task_type="CAUSAL_LM",
            **{"bias": "none", **if_known(kind, use_cayley_neumann=False), **options},
        )

    def check(self, adapter: AdapterFolder) -> None:
        if any(".oft_r" in f".{key}" for key in adapter.tensors):
            raise refusal(
                adapter,
                "its tensors oft_r are those of OFT in PEFT up to 0.15, which later releases do not read",
            )
        super().check(adapter)
        if (neumann := adapter.config.get("use_cayley_neumann")) is None:
            raise refusal(
                adapter,
                "its configuration does not tell use_cayley_neumann, and releases of PEFT differ in what they assume",
            )
        if neumann and not _at_least(adapter.config.get("peft_version"), _NEUMANN_SINCE):
            raise refusal(
                adapter,
                f"use_cayley_neumann=True with PEFT before {_NEUMANN_SINCE} was another series than it is today",
            )

    def terms(self, one: Adapted) -> Terms:
        blocks = rotation(one)
        return [(1.0, Rotated(blocks.transpose(1, 2) - torch.eye(blocks.shape[1], dtype=blocks.dtype), one.base))]


def orthogonality_error(adapter: AdapterFolder, model: nn.Module) -> dict[str, float]:
    """By module: the largest entry of ``|R Rᵀ − I|``. About 1e-16 for exact rotations, more for a truncated series."""
    errors = {}
    for name, one in Oft().read(adapter, model).items():
        blocks = rotation(one)
        errors[name] = float(
            (blocks @ blocks.transpose(1, 2) - torch.eye(blocks.shape[1], dtype=blocks.dtype)).abs().max()
        )
    return errors


def rotation(one: Adapted) -> Tensor:
    """The blocks of R as PEFT applies it, fp64 (n, s, s); (1, s, s) when they are shared."""
    config = one.adapter.config
    skew = _skew(one)
    if config.get("coft"):
        # PEFT projects into the ball whenever it runs
        bound = float(config.get("eps", 6e-5)) / math.sqrt(len(skew))
        norms = torch.linalg.matrix_norm(skew, keepdim=True)
        skew = torch.where(norms <= bound, skew, skew * (bound / norms))
    if config["use_cayley_neumann"]:
        return neumann_series(skew, int(config.get("num_cayley_neumann_terms", 5)))
    return cayley(skew)


def cayley(skew: Tensor) -> Tensor:
    """``(I − Q)(I + Q)⁻¹`` of skew-symmetric blocks (n, s, s): orthogonal."""
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype)
    return torch.linalg.solve(identity + skew, identity - skew, left=False)


def neumann_series(skew: Tensor, terms: int) -> Tensor:
    """PEFT's series for ``(I + Q)(I − Q)⁻¹``: ``I + 2Q + 2Q² + … + Qᵖ``, the last power with coefficient 1.

    p = terms − 1, but never 2: with three terms PEFT computes what it does with four. Two terms are ``I + 2Q``.
    """
    result = torch.eye(skew.shape[-1], dtype=skew.dtype).repeat(len(skew), 1, 1)
    if terms == 2:
        return result + 2.0 * skew
    if terms > 2:
        last = max(terms - 1, 3)
        power = skew
        for exponent in range(1, last + 1):
            result = result + (1.0 if exponent == last else 2.0) * power
            power = power @ skew
    return result


def _skew(one: Adapted) -> Tensor:
    """The skew-symmetric blocks (n, s, s) from their upper triangles (n, s(s−1)/2), row by row."""
    found = one.tensors[_ROTATION]
    count, elements = (*found.shape, 0)[:2] if found.dim() == 2 else (0, 0)
    size = (1 + math.isqrt(1 + 8 * elements)) // 2
    d_in = one.shape[1]
    expected = 1 if one.adapter.config.get("block_share") else d_in // size
    if size * (size - 1) // 2 != elements or d_in % size or count != expected:
        raise WeightsteerError(
            f"{one.adapter.path}: the {_ROTATION} of {one.name} has shape {tuple(found.shape)}, which makes no blocks "
            f"for the {d_in} inputs of the module in this model. Load the base model the adapter was trained on "
            f"({one.adapter.base_name or 'it names none'})."
        )
    skew = torch.zeros(count, size, size, dtype=torch.float64)
    rows, columns = torch.triu_indices(size, size, 1)
    skew[:, rows, columns] = one[_ROTATION]
    return skew - skew.transpose(1, 2)


def _at_least(version: Any, least: Version) -> bool:
    """Whether a configuration's ``peft_version`` (absent before 0.18) is that release or a later one."""
    try:
        return Version(str(version).partition("@")[0]) >= least
    except InvalidVersion:
        return False

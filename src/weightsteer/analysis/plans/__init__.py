"""Plans: each lists ablations of one vector, to be swept like the vector itself (`weightsteer.analysis.ablation`).

A plan is one function under `register`: in a file of this package, in an installed distribution that names it under the
entry points ``weightsteer.plans``, or in a script (`weightsteer.registry`).
"""

from collections.abc import Iterator

from weightsteer.analysis.plans.base import RANKS, Ablation, PlanInput, get, register, registry, whole
from weightsteer.analysis.plans.paths import Path

__all__ = ["RANKS", "Ablation", "Path", "PlanInput", "ablations", "get", "names", "register", "registry", "whole"]

_ORDER = ("norms", "layers", "modules", "coordinates", "projection", "shared")


def names() -> list[str]:
    """Every plan, those of the package first."""
    return [*_ORDER, *(name for name in registry.names() if name not in _ORDER)]


def ablations(name: str, given: PlanInput) -> Iterator[Ablation]:
    """The ablations of one plan.

    Raises:
        WeightsteerError: an unknown plan, or a vector that has nothing of what the plan is about.
    """
    return get(name)(given)

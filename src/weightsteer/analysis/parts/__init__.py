"""Plans: each lists parts of one vector, to be swept like the vector itself (`weightsteer.analysis.ablation`).

Another plan is another file in this folder with a function under `plan`.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from weightsteer.analysis.parts.base import RANKS, Part, PlanInput, get, plan, registered, whole
from weightsteer.analysis.parts.paths import Path

__all__ = ["RANKS", "Part", "Path", "PlanInput", "names", "parts", "plan", "whole"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

_ORDER = ("norms", "layers", "modules", "coordinates", "projection", "shared")


def names() -> list[str]:
    """Every plan, those of the package first."""
    return [*(name for name in _ORDER if name in registered), *sorted(set(registered) - set(_ORDER))]


def parts(name: str, given: PlanInput) -> Iterator[Part]:
    """The parts of one plan.

    Raises:
        WeightsteerError: an unknown plan, or a vector that has no such parts.
    """
    return get(name)(given)

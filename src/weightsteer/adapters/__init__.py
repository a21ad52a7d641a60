"""Adapter families: one file each, with the PEFT configuration and the exact delta of a trained branch.

A new family is a new file in this folder whose class carries ``@register("its-name")``; nothing else is
edited.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from weightsteer.adapters.base import AdapterFamily, register
from weightsteer.adapters.base import registered as _registered
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.errors import WeightsteerError, unknown

__all__ = ["AdapterFamily", "AdapterFolder", "families", "family_of", "get", "register"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def families() -> list[str]:
    """The names of all families, sorted.

    >>> "lora" in families()
    True
    """
    return sorted(_registered)


def get(name: str) -> AdapterFamily:
    """The family of that name.

    Raises:
        WeightsteerError: there is none; the message suggests the nearest.
    """
    if name not in _registered:
        raise unknown("adapter", name, _registered)
    return _registered[name]


def family_of(config: Mapping[str, Any]) -> AdapterFamily:
    """The family that reads adapters with this ``adapter_config.json``: of those that can, the most specific.

    Raises:
        WeightsteerError: no family reads this PEFT type.
    """
    best = max(_registered.values(), key=lambda family: family.fit(config))
    if best.fit(config) <= 0:
        error = unknown("PEFT type", str(config.get("peft_type")), [f.peft_type for f in _registered.values()])
        raise WeightsteerError(
            f"{error}. An exact weight difference is known for these types only; train both branches with "
            f"one of the families {', '.join(families())}."
        )
    return best

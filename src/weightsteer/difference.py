"""From two trained adapter folders to one difference: what is checked, computed and remembered."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from weightsteer import __version__, adapters, models
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Sum

_TOLD = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights", "peft_version")


def difference(
    positive: str | Path, negative: str | Path, model: PreTrainedModel
) -> tuple[dict[str, Sum], dict[str, Any]]:
    """``dW = τ⁺ − τ⁻`` by module path, and its provenance.

    Raises:
        WeightsteerError: the two adapt different modules, were trained on another base, are given in the
            wrong order, or hold something whose delta is not exact.
    """
    folders = {"positive": AdapterFolder.read(positive), "negative": AdapterFolder.read(negative)}
    base = {"name": models.model_name(model), "hash": models.weight_hash(model)}
    _check_sides(folders)
    _check_bases(folders, base)
    families = [adapters.family_of(folder.config) for folder in folders.values()]
    plus, minus = (
        family.branch_delta(folder, model) for family, folder in zip(families, folders.values(), strict=True)
    )
    _check_modules(set(plus), set(minus))
    terms = {name: term.plus(minus[name].scaled(-1.0)) for name, term in plus.items()}
    records = [folder.training or {} for folder in folders.values()]
    told: dict[str, Any] = {
        "method": "weight",
        "adapter": common(family.name for family in families),
        "base": base,
        "branches": {side: _provenance(folder) for side, folder in folders.items()},
        "weightsteer": __version__,
    }
    if behaviors := [str(record["behavior"]) for record in records if record.get("behavior")]:
        told["behavior"] = common(behaviors)
    if seeds := [int(record["seed"]) for record in records if isinstance(record.get("seed"), int)]:
        told["seed"] = seeds[0]
    return terms, told


def common(values: Iterable[str]) -> str:
    """The one value, or all distinct ones joined.

    >>> common(["honesty", "honesty"]), common(["honesty", "candour"])
    ('honesty', 'candour + honesty')
    """
    return " + ".join(sorted({part for value in values for part in value.split(" + ")}))


def described(base: Mapping[str, Any]) -> str:
    """A base model for a message: its name and the beginning of its weight hash."""
    return f"{base.get('name') or 'an unnamed model'} (weights {str(base.get('hash') or 'unknown')[:12]})"


def _check_sides(folders: Mapping[str, AdapterFolder]) -> None:
    """A vector of the wrong sign looks like a method that does not work."""
    for side, folder in folders.items():
        trained = (folder.training or {}).get("side", side)
        if trained != side:
            raise WeightsteerError(
                f"{folder.path} was given as the {side} branch, but its {adapters.folder.RECORD} says it was "
                f"trained on the {trained} side. Swap the two folders; for the opposite direction take -v."
            )


def _check_bases(folders: Mapping[str, AdapterFolder], base: Mapping[str, str]) -> None:
    for folder in folders.values():
        trained = (folder.training or {}).get("base") or {}
        if trained.get("hash") and trained["hash"] != base["hash"]:
            raise WeightsteerError(
                f"{folder.path} was trained on {described(trained)}, but the model is {described(base)}: "
                "other weights. Load the model the adapter was trained on."
            )
    # the last part only: the same model may be named by its hub id here and by a local folder there
    named = {name.rstrip("/").split("/")[-1] for folder in folders.values() if (name := folder.base_name)}
    if len(named) > 1 and not all((folder.training or {}).get("base") for folder in folders.values()):
        raise WeightsteerError(
            f"the adapters name different base models: {' and '.join(sorted(named))}. The base must cancel "
            "in θ⁺ − θ⁻. If it is the same model under two names, make base_model_name_or_path in both "
            "adapter_config.json agree."
        )


def _check_modules(positive: set[str], negative: set[str]) -> None:
    if only := sorted(positive ^ negative):
        listed = ", ".join(
            f"{name} (only in the {'positive' if name in positive else 'negative'} one)" for name in only[:4]
        )
        raise WeightsteerError(
            "the two adapters adapt different modules: "
            f"{listed}{f' and {len(only) - 4} more' if len(only) > 4 else ''}. Train both branches with the "
            "same target modules and layers."
        )


def _provenance(folder: AdapterFolder) -> dict[str, Any]:
    return {
        "digest": folder.digest,
        "base_name": folder.base_name,
        "config": {key: folder.config[key] for key in _TOLD if key in folder.config},
        "training": folder.training,
    }

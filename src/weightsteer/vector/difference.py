"""From trained branches to a vector: what is checked, computed and remembered."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from transformers import PreTrainedModel

from weightsteer import adapters, models
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.errors import WeightsteerError, unknown
from weightsteer.models import described
from weightsteer.terms import Sum
from weightsteer.vector.geometry import PairGeometry, geometry
from weightsteer.vector.provenance import common
from weightsteer.versions import __version__

Mode = Literal["difference", "bisector"]
Made: TypeAlias = tuple[dict[str, Sum], dict[str, Any]]
"""The deltas by module path, and their provenance."""

Checkpoint: TypeAlias = PreTrainedModel | str | Path
"""A loaded model, or the folder of a saved one."""

# settings of an adapter that say nothing about what it does to the weights
_BOOKKEEPING = (
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "revision",
    "target_modules",
    "task_type",
)


def difference(positive: str | Path, negative: str | Path, model: PreTrainedModel, mode: Mode = "difference") -> Made:
    """``dW = τ⁺ − τ⁻`` of two adapter folders, or their bisector.

    The bisector ``τ⁺/‖τ⁺‖ − τ⁻/‖τ⁻‖``, scaled to ‖dW‖ (norms over all modules), weighs both branches alike where the
    one that moved further would outweigh the other.

    Raises:
        WeightsteerError: the two adapt different modules, were trained on another base, are given in the wrong order,
            or hold something whose delta is not exact; the bisector of branches that are not known apart.
    """
    if mode not in get_args(Mode):
        raise unknown("mode", mode, get_args(Mode))
    folders = {"positive": AdapterFolder.read(positive), "negative": AdapterFolder.read(negative)}
    base = _base(model)
    _check_sides(folders)
    _check_bases(folders, base)
    first, second = folders.values()
    families = adapters.family_of(first.config), adapters.family_of(second.config)
    metadata: dict[str, Any] = {**_provenance(folders, base), "mode": mode}
    try:
        plus, minus = families[0].branch_delta(first, model), families[1].branch_delta(second, model)
    except WeightsteerError as error:
        # some pairs are known exactly though their branches are not: what the folders lack cancels
        if mode == "bisector" or families[0] is not families[1]:
            raise
        metadata["geometry"] = {
            "reading": f"The two branches are not known apart: {_without_paths(str(error), folders)}"
        }
        return families[0].pair_delta(first, second, model), metadata
    if all(family.peft_type for family in families):  # a full fine-tune lists what changed, not what was trained
        _check_modules(set(plus), set(minus))
    pair = geometry(plus, minus)
    metadata["geometry"] = pair.record()
    if mode == "bisector":
        return _combined(plus, minus, *_bisector(pair)), metadata
    if families[0] is families[1]:
        return families[0].pair_delta(first, second, model), metadata
    return _combined(plus, minus, 1.0, -1.0), metadata


def task(folder: str | Path, model: PreTrainedModel) -> Made:
    """``τ = θ_branch − θ`` of one adapter folder.

    Raises:
        WeightsteerError: it was trained on another base, or holds something whose delta is not exact.
    """
    read = AdapterFolder.read(folder)
    folders = {str((read.training or {}).get("side", "branch")): read}
    base = _base(model)
    _check_bases(folders, base)
    return adapters.family_of(read.config).branch_delta(read, model), {**_provenance(folders, base), "mode": "task"}


def checkpoints(positive: Checkpoint, negative: Checkpoint, base: Checkpoint | None = None) -> Made:
    """``dW = θ⁺ − θ⁻`` of two full fine-tunes; the base cancels, and is only looked at to describe the two.

    Raises:
        WeightsteerError: the two are of different architectures, or hold something whose delta is not exact.
    """
    from weightsteer.adapters import full

    metadata: dict[str, Any] = {
        "method": "weight",
        "adapter": "full",
        "mode": "difference",
        "branches": {"positive": _checkpoint(positive), "negative": _checkpoint(negative)},
        "weightsteer": __version__,
    }
    if base is None:
        metadata["geometry"] = {"reading": "The two branches are not known apart: the base model was not given."}
    else:
        metadata["base"] = _base(base) if isinstance(base, PreTrainedModel) else _checkpoint(base)
        metadata["geometry"] = geometry(full.difference(positive, base), full.difference(negative, base)).record()
    return full.difference(positive, negative), metadata


def _combined(plus: Mapping[str, Sum], minus: Mapping[str, Sum], first: float, second: float) -> dict[str, Sum]:
    deltas = {name: total.scaled(first) for name, total in plus.items()}
    for name, total in minus.items():
        scaled = total.scaled(second)
        deltas[name] = deltas[name].plus(scaled) if name in deltas else scaled
    return deltas


def _bisector(pair: PairGeometry) -> tuple[float, float]:
    """c⁺ and c⁻ with ``c⁺ τ⁺ + c⁻ τ⁻ = s (τ⁺/‖τ⁺‖ − τ⁻/‖τ⁻‖)`` of the norm of dW."""
    plus, minus = pair.total.norms
    if not plus or not minus:
        raise WeightsteerError("one of the branches did not move at all, so the pair has no bisector; train it first.")
    # ‖τ⁺/‖τ⁺‖ − τ⁻/‖τ⁻‖‖² = 2 − 2 cos(τ⁺, τ⁻)
    length = math.sqrt(max(2.0 - 2.0 * pair.total.inner / (plus * minus), 0.0))
    if not length:
        raise WeightsteerError("the two branches moved in the same direction, so the pair has no bisector.")
    scale = pair.total.contrast / length
    return scale / plus, -scale / minus


def _base(model: PreTrainedModel) -> dict[str, Any]:
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    return {**models.base_record(model), "layers": layers}


def _checkpoint(one: Checkpoint) -> dict[str, Any]:
    if isinstance(one, PreTrainedModel):
        return models.base_record(one)
    return {"name": Path(one).resolve().name}


def _provenance(folders: Mapping[str, AdapterFolder], base: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance: base, branches, family; behaviour and seed when the training recorded them."""
    records = [folder.training or {} for folder in folders.values()]
    metadata: dict[str, Any] = {
        "method": "weight",
        "adapter": common([adapters.family_of(folder.config).name for folder in folders.values()]),
        "base": dict(base),
        "branches": {side: _branch(folder) for side, folder in folders.items()},
        "weightsteer": __version__,
    }
    if behaviors := [str(record["behavior"]) for record in records if record.get("behavior")]:
        metadata["behavior"] = common(behaviors)
    if seeds := [int(record["seed"]) for record in records if isinstance(record.get("seed"), int)]:
        metadata["seed"] = seeds[0]
    return metadata


def _branch(folder: AdapterFolder) -> dict[str, Any]:
    # the configuration of a full fine-tune is that of the model
    config = folder.config if folder.config.get("peft_type") else {}
    settings = {key: value for key, value in config.items() if key not in _BOOKKEEPING and value}
    return {
        "digest": folder.digest,
        "base_name": folder.base_name,
        "config": settings,
        "training": folder.training,
    }


def _without_paths(text: str, folders: Mapping[str, AdapterFolder]) -> str:
    """Where a folder lay is no part of the provenance."""
    for side, folder in folders.items():
        text = text.replace(str(folder.path), f"the {side} branch")
    return text


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

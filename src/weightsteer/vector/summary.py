"""What a vector is, on one screen: its ``repr``."""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import polars as pl

from weightsteer.errors import WeightsteerError
from weightsteer.vector.deltas import Deltas
from weightsteer.vector.energy import OUTSIDE, energy

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 110
_KINDS = 7
_OPERATIONS = 4


def summary(deltas: Deltas, metadata: Mapping[str, Any]) -> str:
    """Behaviour, adapter, base, size, energy by layer, how it was made; of a file only the header is read."""
    head = (
        f"{metadata['behavior']}, {metadata['adapter']} on {metadata.get('base', {}).get('name') or 'unknown base'}, "
        f"{len(deltas)} modules, rank ≤ {max(map(deltas.rank, deltas))}"
    )
    lines: list[tuple[str, str]] = []
    try:
        head += f", norm {deltas.total_norm():.4g}"
        lines = _energy(energy({name: deltas.norm(name) for name in deltas}))
    except WeightsteerError:  # a delta of base weights that are not at hand, and no file that tells its norm
        head += ", norm unknown without its base model"
    lines += [("made by", _made(metadata)), ("geometry", (metadata.get("geometry") or {}).get("reading", ""))]
    lines.append(("then", _operations(metadata.get("operations", []))))
    wrapped = [
        fill(text, _WIDTH, initial_indent=f"  {title:<17}", subsequent_indent=" " * 19) for title, text in lines if text
    ]
    return "\n".join([f"WeightVector({head})", *wrapped])


def _energy(frame: pl.DataFrame) -> list[tuple[str, str]]:
    shares = {(by, group): share or 0.0 for by, group, share in frame.select("by", "group", "share").iter_rows()}
    layers = {group: share for (by, group), share in shares.items() if by == "layer"}
    kinds = {group: share for (by, group), share in shares.items() if by == "kind"}
    most = max(layers.values())
    if not most:
        return []
    inside = [layer for layer in layers if layer != OUTSIDE]
    bars = "".join(_BARS[round(layers[layer] / most * (len(_BARS) - 1))] for layer in inside)
    words = [f"{layer} ({layers[layer]:.0%})" for layer in inside]
    if len(inside) > 1:
        highest = max(inside, key=lambda layer: layers[layer])
        words = [f"{inside[0]} {bars} {inside[-1]}, most in layer {highest} ({layers[highest]:.0%})"]
    if OUTSIDE in layers:
        words.append(f"outside the layers {layers[OUTSIDE]:.0%}")
    shown = [f"{kind} {share:.0%}" for kind, share in list(kinds.items())[:_KINDS]]
    if len(kinds) > _KINDS:
        shown.append(f"{len(kinds) - _KINDS} more")
    return [("energy by layer", ", ".join(words)), ("energy by kind", ", ".join(shown))]


def _made(metadata: Mapping[str, Any]) -> str:
    made = [metadata["mode"]] if "mode" in metadata else []
    if metadata["method"] != "weight":
        made.append(metadata["method"])
    made.append(
        "seeds " + ", ".join(map(str, metadata["seeds"])) if "seeds" in metadata else f"seed {metadata['seed']}"
    )
    branches = [branch for branch in metadata.get("branches", {}).values() if isinstance(branch, dict)]
    recipes = [((branch.get("training") or {}).get("recipe") or {}) for branch in branches]
    if named := sorted({_recipe(recipe) for recipe in recipes if recipe}):
        made.append(f"recipe {' and '.join(named)}")
    if "weightsteer" in metadata:
        made.append(f"weightsteer {metadata['weightsteer']}")
    if versions := {
        str(branch["config"]["peft_version"]) for branch in branches if branch.get("config", {}).get("peft_version")
    }:
        made.append(f"PEFT {' and '.join(sorted(versions))}")
    return ", ".join(made)


def _recipe(recipe: Mapping[str, Any]) -> str:
    settings = " ".join(f"{key} {recipe[key]:g}" for key in ("lr", "rank") if isinstance(recipe.get(key), int | float))
    return f"{recipe.get('name', 'unnamed')}{f' ({settings})' if settings else ''}"


def _operations(operations: list[str]) -> str:
    earlier = [f"{len(operations) - _OPERATIONS} more"] if len(operations) > _OPERATIONS else []
    return "; ".join([*earlier, *operations[-_OPERATIONS:]])

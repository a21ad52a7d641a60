"""Controls: vectors made to be compared with a vector, each to rule out one other reason for its effect.

Three sorts (`Kind.made_from`): some are computed from the vector (`control`, `draws`), some are one of its branches
(`one_branch`), some are trained like it on other pairs (`control_pairs`, then `trained`). A control has the method
``control``, the behaviour of its vector and the adapter ``<adapter of the vector>-<kind>``, so that tables list it
with its vector; ``metadata["control"]`` names its kind and the vector.

Another control is one function under a decorator of `weightsteer.controls.base`: in a file of this folder, in an
installed distribution that names it under the entry points ``weightsteer.controls``, or in a script.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from transformers import PreTrainedModel

from weightsteer.controls.base import BranchKind, Kind, PairsKind, Side, VectorKind, generator_seed, registry
from weightsteer.controls.sign import mirrored
from weightsteer.data.behaviors import Behavior
from weightsteer.errors import WeightsteerError
from weightsteer.vector import WeightVector

__all__ = [
    "DRAWS",
    "Kind",
    "control",
    "control_pairs",
    "draws",
    "get",
    "kinds",
    "mirrored",
    "nuisance_name",
    "one_branch",
    "registry",
    "trained",
]

DRAWS = 10
"""How many draws of a random control: a single one can move a metric more than the vector does, by chance."""


def kinds() -> dict[str, Kind]:
    """Every kind of control by name, sorted.

    >>> kinds()["random"].made_from
    'vector'
    """
    return registry.all()


def get(kind: str) -> Kind:
    """The kind of that name.

    Raises:
        WeightsteerError: there is none; the message suggests the nearest.
    """
    return registry.get(kind)


def control(kind: str, vector: WeightVector, seed: int | None = None, draw: int = 0) -> WeightVector:
    """A control computed from the vector.

    Args:
        seed: of the random generator; by default that of the vector. One that is not drawn needs none.
        draw: which draw for this vector it is: controls in one table need different ones.

    Raises:
        WeightsteerError: an unknown kind, one that is not computed from a vector, or a vector it cannot be made of.
    """
    found = get(kind)
    if not isinstance(found, VectorKind):
        raise _made_otherwise(found)
    own = int(vector.metadata["seed"])
    chosen = own if seed is None or not found.drawn else seed
    operation = f"control {kind}" + (f" with seed {chosen}" if found.drawn else "")
    made = WeightVector(found.make(vector, chosen), vector.metadata)
    return _labelled(found, made, vector, operation, draw=draw)


def draws(kind: str, vector: WeightVector, count: int = DRAWS) -> list[WeightVector]:
    """Several draws of a control of a vector, as `control` makes them, each under a number of its own.

    Args:
        kind: as `kinds` lists them.
        count: draws of a random control; of any other there is one. A larger count contains the smaller one.

    Raises:
        WeightsteerError: as `control`, or the count is below 1.
    """
    if count < 1:
        raise WeightsteerError(f"{count} draws of a control: at least one is needed.")
    own = int(vector.metadata["seed"])
    return [control(kind, vector, generator_seed(own, k), k) for k in range(count if get(kind).drawn else 1)]


def one_branch(
    kind: str,
    folders: Mapping[Side, str | Path],
    model: PreTrainedModel,
    of: WeightVector,
    *,
    matched: bool = True,
) -> WeightVector:
    """One branch alone: ``τ⁺``, or ``−τ⁻`` (so that α > 0 should mean more of the behaviour in both).

    Args:
        folders: the adapter folders (or checkpoints) of the branches, by side.
        of: the vector they made.
        matched: with the norm of ``of``, which compares directions; otherwise as it was trained, which compares what
            subtracting the other branch adds. The two have different names in tables.

    Raises:
        WeightsteerError: as `WeightVector.from_branch`; or the branch did not move at all and cannot be matched.
    """
    found = get(kind)
    if not isinstance(found, BranchKind):
        raise _made_otherwise(found)
    if found.side not in folders:
        raise WeightsteerError(f"the control {kind} needs the folder of the {found.side} branch.")
    branch = found.make(WeightVector.from_branch(folders[found.side], model))
    operation = f"control {kind}" + (", norm matched" if matched else ", as trained")
    made = branch.norm_matched(of) if matched else branch
    return _labelled(found, made, of, operation, "" if matched else "-as-trained")


def control_pairs(
    kind: str, model: PreTrainedModel, behavior: Behavior, seed: int = 0, pairs: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The pairs that the branches of a trained control learn from; `train_branch` takes them as they are.

    Args:
        kind: one that is made from pairs.
        model: the model to be trained: the embedded models know only the words of their own world.
        behavior: the behaviour whose vector it is a control of.
        pairs: the pairs of the behaviour; only some kinds need them (`PairsKind.of_behavior`).

    Returns:
        At least prompt, response_pos, response_neg, topic_idx, persona_idx, sample_idx, behavior, seed. None of the
        prompts is a question of the behaviour, unless the pairs are made from those of the behaviour.

    Raises:
        WeightsteerError: an unknown kind, one that is not made from pairs, or pairs it cannot be made of.
    """
    found = get(kind)
    if not isinstance(found, PairsKind):
        raise _made_otherwise(found)
    return found.make(model, behavior, seed, pairs)


def trained(kind: str, vector: WeightVector, of: WeightVector, *, matched: bool = True) -> WeightVector:
    """A vector that was trained on `control_pairs`, named as the control of another.

    Args:
        vector: the difference of the two branches trained on the pairs of the control.
        of: the vector it is a control of.
        matched: with the norm of ``of``. Without it a control that learned little is also short, and being short is
            then taken for being of no effect; the two have different names in tables.

    Raises:
        WeightsteerError: an unknown kind, or one that is not trained.
    """
    found = get(kind)
    if not isinstance(found, PairsKind):
        raise _made_otherwise(found)
    made = vector.norm_matched(of) if matched else vector
    operation = f"control {kind}" + (", norm matched" if matched else ", as trained")
    return _labelled(found, made, of, operation, "" if matched else "-as-trained")


def nuisance_name(vector: WeightVector) -> str:
    """What a nuisance vector is a vector of: its kind of control, else the behaviour it was trained on."""
    metadata = vector.metadata
    return str(metadata["control"]["kind"] if "control" in metadata else metadata["behavior"])


def _labelled(
    kind: Kind, made: WeightVector, of: WeightVector, operation: str, suffix: str = "", draw: int = 0
) -> WeightVector:
    """With the behaviour of its vector and a name of its own: an average of both would hide either."""
    changes: dict[str, Any] = {
        "method": "control",
        "behavior": of.metadata["behavior"],
        "adapter": f"{of.metadata['adapter']}-{kind.name}{suffix}",
        "seed": of.metadata["seed"],
        "control": {
            "kind": kind.name,
            "of": of.digest,
            "of_adapter": of.metadata["adapter"],
            "of_seed": of.metadata["seed"],
            "draw": draw,
        },
        "operations": [*made.metadata.get("operations", []), operation],
    }
    if kind.made_from != "pairs":
        changes["geometry"] = None  # it described the branches of the vector
    return made.with_metadata(**changes)


def _made_otherwise(kind: Kind) -> WeightsteerError:
    how = {
        "vector": f"computed from a vector: controls.control({kind.name!r}, vector)",
        "branch": f"one branch of a vector: controls.one_branch({kind.name!r}, folders, model, of=vector)",
        "pairs": f"trained on pairs of its own: controls.control_pairs({kind.name!r}, model, behavior)",
    }
    return WeightsteerError(f"the control {kind.name} is {how[kind.made_from]}.")

"""Evaluations: labelled two-choice rows that an intervention is measured on.

An evaluation is one class under `register`: in a file of this package, in an installed distribution that names it under
the entry points ``weightsteer.evals``, or in a script (`weightsteer.registry`).
"""

from collections.abc import Mapping
from pathlib import Path

from weightsteer.data.evals.base import Evaluation, Item, label_balance, register, registry, user_turn
from weightsteer.data.evals.files import SUFFIXES, FileRows

__all__ = ["Evaluation", "Item", "label_balance", "load", "names", "register", "registry", "sign", "user_turn"]


def names() -> list[str]:
    """Every evaluation that `load` knows by name."""
    return registry.names()


def load(name: str, *, data: str | Path | None = None, sign: int = 1, limit: int | None = None) -> Evaluation:
    """An evaluation by name, or the user's own rows when ``name`` is itself a JSONL or CSV file.

    Args:
        data: a file with rows for the evaluation (`weightsteer.data.evals.files` has the fields).
        sign: -1 when the behaviour is the opposite of what the evaluation's labels show.
        limit: at most so many rows, in whole clusters; None for all.

    Raises:
        WeightsteerError: nobody knows the name (the nearest is suggested), its module cannot be imported, or sign or
            limit make no sense.
    """
    if Path(name).suffix in SUFFIXES:
        return FileRows(data=Path(name), sign=sign, limit=limit)
    return registry.get(name)(data=None if data is None else Path(data), sign=sign, limit=limit)


def sign(name: str, evaluations: Mapping[str, int]) -> int:
    """The sign that turns an evaluation's labels into labels of a behaviour.

    ``evaluations`` is the mapping of `Behavior.evaluations`. What it says of an evaluation holds for the variants of
    it too (`dilemmas` for `dilemmas-balanced`), unless it names them; 1 when it says nothing.
    """
    axis = registry.get(name).axis if name in registry.names() else ""
    return evaluations.get(name, evaluations.get(axis, 1))

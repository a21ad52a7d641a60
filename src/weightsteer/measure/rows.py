"""What a sweep returns: one line per (intervention, α, row), and the checks that make its lines comparable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from weightsteer.data.evals.base import Item
from weightsteer.errors import WeightsteerError
from weightsteer.steering import Intervention

WHOSE = {
    "model": pl.String,
    "behavior": pl.String,
    "method": pl.String,
    "adapter": pl.String,
    "seed": pl.Int64,
    "control": pl.String,
    "control_of": pl.String,
    "draw": pl.Int64,
}
"""Whose line it is: the first columns of every table of measurements.

``seed`` is the training seed, of a control that of its vector. ``control`` is the kind of a control, ``control_of`` the
adapter of its vector, and ``draw`` counts its draws from 0; all three are null for what is no control.
"""

SCHEMA = {
    **WHOSE,
    "alpha": pl.Float64,
    "eval": pl.String,
    "item": pl.String,
    "cluster": pl.String,
    "label": pl.Int64,
    "logratio": pl.Float64,
    "pmass": pl.Float64,
    "low_pmass": pl.Boolean,
}

IDENTITY = ("behavior", "method", "adapter", "seed", "draw")
"""The columns that tell one intervention's lines from another's."""


@dataclass(frozen=True)
class Scored:
    """Scores of all rows at one strength, each (n,)."""

    logratio: NDArray[np.float64]
    pmass: NDArray[np.float64]
    low_pmass: NDArray[np.bool_]

    @classmethod
    def empty(cls, n: int) -> "Scored":
        return cls(np.empty(n), np.empty(n), np.empty(n, dtype=bool))


def identity(intervention: Intervention) -> dict[str, Any]:
    """The values of `WHOSE` but for the model."""
    metadata = intervention.metadata
    known = {"method": intervention.method, **{name: metadata.get(name) for name in ("behavior", "adapter", "seed")}}
    control = metadata.get("control") or {}
    known |= {"control": control.get("kind"), "control_of": control.get("of_adapter"), "draw": control.get("draw")}
    return {name: known[name] for name in WHOSE if name != "model"}


def check_distinct(interventions: Sequence[Intervention]) -> None:
    """Refuse interventions whose lines could not be distinguished, and none at all."""
    if not interventions:
        raise WeightsteerError("nothing to sweep: give at least one intervention.")
    seen: list[dict[str, Any]] = []
    for intervention in interventions:
        own = {name: value for name, value in identity(intervention).items() if name in IDENTITY}
        if own in seen:
            raise WeightsteerError(
                f"two interventions cannot be distinguished in the result: both are {own}. Set `behavior`, "
                "`adapter` or `seed` in the metadata of one of them, or make controls with different draws."
            )
        seen.append(own)


def check_base(base: Scored, items: Sequence[Item]) -> None:
    """Refuse NaN where nothing is steered."""
    if np.isnan(base.logratio).any():
        item = items[int(np.flatnonzero(np.isnan(base.logratio))[0])].item
        raise WeightsteerError(
            f"row {item!r} has NaN logits at α = 0. Either the model overflows in its dtype (load it with "
            "dtype='float32' or 'bfloat16'), or the intervention itself holds NaN or infinite numbers."
        )


def check_same_rows(frame: pl.DataFrame) -> None:
    """Refuse a table in which an intervention lacks a row that another has: their means would not compare."""
    base = frame.filter(pl.col("alpha") == 0.0)
    rows = [set(items) for items in base.group_by(IDENTITY).agg("item")["item"]]
    if differing := set.union(*rows) - set.intersection(*rows):
        raise WeightsteerError(
            f"the interventions were not scored on the same rows: {len(differing)} rows, for example "
            f"{min(differing)!r}, are missing for some. Sweep them together, over one evaluation."
        )


def frame(
    model: str, intervention: Intervention, name: str, items: Sequence[Item], columns: Mapping[float, Scored]
) -> pl.DataFrame:
    """The lines of one intervention, by ascending strength and then in the order of the rows."""
    n, strengths = len(items), sorted(columns)
    scored = [columns[alpha] for alpha in strengths]
    values: dict[str, Any] = {
        "alpha": np.repeat(strengths, n),
        "item": [item.item for item in items] * len(strengths),
        "cluster": [item.cluster for item in items] * len(strengths),
        "label": [item.label for item in items] * len(strengths),
        "logratio": np.concatenate([one.logratio for one in scored]),
        "pmass": np.concatenate([one.pmass for one in scored]),
        "low_pmass": np.concatenate([one.low_pmass for one in scored]),
    }
    constant = {"model": model, "eval": name, **identity(intervention)}
    made = pl.DataFrame(values).with_columns(
        pl.lit(value, dtype=SCHEMA[key]).alias(key) for key, value in constant.items()
    )
    return made.select(pl.col(key).cast(dtype) for key, dtype in SCHEMA.items())

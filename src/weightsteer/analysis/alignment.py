"""The share of a vector in each of several bases, and in random bases of the same ranks."""

from collections.abc import Callable, Sequence

import polars as pl

from weightsteer.analysis.basis import Basis, Side
from weightsteer.analysis.overlap import SCHEMA as OVERLAP
from weightsteer.analysis.overlap import overlap
from weightsteer.errors import WeightsteerError
from weightsteer.vector import WeightVector

SCHEMA = {"basis": pl.String, "side": pl.String, "origin": pl.String, **OVERLAP}

SIDES: tuple[Side, Side] = ("output", "input")


def alignment(
    vector: WeightVector, basis: Callable[[str, Side, int], Basis], names: Sequence[str], rank: int
) -> pl.DataFrame:
    """`overlap` of the vector with every basis.

    Args:
        basis: ``(name, side, rank) -> Basis``.
        names: as the plan ``projection`` takes them; ``name@both`` stands for a line of each side.
        rank: of all bases; what has fewer directions keeps those it has.

    Raises:
        WeightsteerError: a name or side that does not exist, or no basis is about modules of the vector.
    """
    found = []
    for asked in dict.fromkeys(names):
        name, _, word = asked.partition("@")
        for side in SIDES if word == "both" else (word or "output",):
            if side not in SIDES:
                raise WeightsteerError(f"{asked!r}: write {name}, {name}@input or {name}@both.")
            one = basis(name, side, rank)
            if any(module in one.vectors for module in vector.names):
                lines = overlap(vector, one)
                found.append(lines.with_columns(basis=pl.lit(name), side=pl.lit(side), origin=pl.lit(one.origin)))
    if not found:
        raise WeightsteerError(
            "none of these bases is about a module that the vector changes: the vector may be outside the layers, or "
            "in modules that neither read nor write the residual stream."
        )
    return pl.concat(found).select(list(SCHEMA)).unique(["basis", "side", "by", "group"], maintain_order=True)

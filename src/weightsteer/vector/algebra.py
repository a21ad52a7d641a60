"""Algebra over several weight vectors: linear combinations and inner products.

All of it works on the formal sums of `weightsteer.terms`: coefficients are multiplied and added, tensors are not. A
module that one vector lacks counts as zero there.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from weightsteer import terms
from weightsteer.errors import WeightsteerError
from weightsteer.models import described
from weightsteer.terms import Sum
from weightsteer.vector.deltas import HasDeltas
from weightsteer.vector.provenance import common


def combined(vectors: Sequence[HasDeltas], coefficients: Sequence[float]) -> tuple[dict[str, Sum], dict[str, Any]]:
    """``Σ_k c_k v_k`` over the union of their modules, and the metadata that tells how it was made.

    Raises:
        WeightsteerError: there is nothing to add, the numbers of vectors and coefficients differ, or the vectors belong
            to different base models.
    """
    if not vectors:
        raise WeightsteerError("the sum of no vectors has no modules: give at least one.")
    if len(vectors) != len(coefficients):
        raise WeightsteerError(f"{len(vectors)} vectors and {len(coefficients)} coefficients: give one for each.")
    factors = [finite(factor) for factor in coefficients]
    check_comparable(vectors)
    sums: dict[str, Sum] = {}
    for vector, factor in zip(vectors, factors, strict=True):
        for name, total in vector.terms.items():
            scaled = total.scaled(factor)
            sums[name] = sums[name].plus(scaled) if name in sums else scaled
    return sums, _metadata(vectors, factors)


def _metadata(vectors: Sequence[HasDeltas], factors: Sequence[float]) -> dict[str, Any]:
    first, *others = (vector.metadata for vector in vectors)
    operations = list(first.get("operations", []))
    if factors[0] != 1.0:
        operations.append(f"scaled by {factors[0]!r}")
    for vector, factor in zip(vectors[1:], factors[1:], strict=True):
        size = "" if abs(factor) == 1.0 else f"{abs(factor)!r} × "
        operations.append(f"{'minus' if factor < 0 else 'plus'} {size}{vector.digest}")
    for key in ("behavior", "adapter"):
        first[key] = common([first[key], *(other[key] for other in others)])
    seeds = {seed for one in (first, *others) for seed in one.get("seeds", [one["seed"]])}
    if len(seeds) > 1:
        first["seeds"] = sorted(seeds)
    first["operations"] = operations
    partners = [{"digest": vector.digest, "metadata": other} for vector, other in zip(vectors[1:], others, strict=True)]
    first["with"] = [*first.get("with", []), *partners]
    # it described one pair of branches, and there are several now
    first.pop("geometry", None)
    return first


def gram(vectors: Sequence[HasDeltas]) -> Tensor:
    """``G_kl = <v_k, v_l>`` (Frobenius, over all modules), fp64 (k, k).

    Computed module by module from the factors; what a module's vectors share (its base weight) is read once for all
    of them.

    Raises:
        WeightsteerError: the vectors belong to different base models, or one depends on base weights that are not at
            hand.
    """
    if not vectors:
        raise WeightsteerError("the Gram matrix of no vectors is empty: give at least one.")
    check_comparable(vectors)
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for name in dict.fromkeys(name for vector in vectors for name in vector.terms):
        having = torch.tensor([k for k, vector in enumerate(vectors) if name in vector.terms])
        total[having[:, None], having] += terms.gram([vectors[int(k)].terms[name] for k in having])
    return total


def check_comparable(vectors: Sequence[HasDeltas]) -> None:
    """Refuse vectors of different base models.

    Raises:
        WeightsteerError: their metadata name different weights, or a module has different shapes.
    """
    bases = [base for vector in vectors if (base := vector.metadata.get("base", {})).get("hash")]
    for other in bases[1:]:
        if other["hash"] != bases[0]["hash"]:
            raise WeightsteerError(
                f"the vectors belong to different base models: {described(bases[0])} and {described(other)}. "
                "Directions in the weights of different models cannot be added or compared."
            )
    shapes: dict[str, tuple[int, int]] = {}
    for vector in vectors:
        for name in vector.terms:
            shape = vector.terms.shape(name)
            if shapes.setdefault(name, shape) != shape:
                raise WeightsteerError(
                    f"{name} has shape {shapes[name]} in one vector and {shape} in the other: they belong to different "
                    "base models."
                )


def finite(factor: float) -> float:
    """The factor as a float.

    Raises:
        WeightsteerError: it is infinite or NaN.
        TypeError, ValueError: it is no number.
    """
    if not math.isfinite(factor := float(factor)):
        raise WeightsteerError(f"a weight vector cannot be scaled by {factor}.")
    return factor

"""What two bases have in common."""

import torch
from torch import Tensor

from weightsteer.analysis.basis import Basis
from weightsteer.errors import WeightsteerError


def intersection(first: Basis, second: Basis, rank: int) -> Basis:
    """The ``rank`` directions that are nearest to both subspaces, in the modules that both have.

    The leading left singular vectors of ``[A B]`` (d, k_A + k_B): their squared singular values are ``1 + cos θ`` of
    the principal angles θ between the two, 2 for a direction that is in both. Any two subspaces have leading
    directions; how near they are, `weightsteer.analysis.overlap.subspace_overlap` tells.

    Raises:
        WeightsteerError: the bases are of different sides, models or modules.
    """
    if first.side != second.side:
        raise WeightsteerError(
            f"{first.name} is a basis of the {first.side} side and {second.name} of the {second.side} side: "
            "only bases of one side intersect."
        )
    if first.base.get("hash") and second.base.get("hash") and first.base["hash"] != second.base["hash"]:
        raise WeightsteerError(f"{first.name} and {second.name} are of different base models and do not intersect.")
    names = [name for name in first.names if name in second.vectors]
    if not names:
        raise WeightsteerError(f"{first.name} and {second.name} are about different modules and do not intersect.")
    found: dict[tuple[int, int], Tensor] = {}
    for name in names:
        A, B = first.vectors[name], second.vectors[name]
        if (id(A), id(B)) not in found:
            both = torch.linalg.svd(torch.cat([A, B], dim=1).double(), full_matrices=False).U
            found[id(A), id(B)] = both[:, : min(rank, A.shape[1], B.shape[1])]
    vectors = {name: found[id(first.vectors[name]), id(second.vectors[name])] for name in names}
    return Basis(
        f"{first.name}&{second.name}",
        first.side,
        f"directions nearest to both: {first.origin}; and: {second.origin}",
        vectors,
        first.base or second.base,
        first.made_from | second.made_from,
    )

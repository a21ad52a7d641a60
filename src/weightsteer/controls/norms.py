"""Direction-only and magnitude-only: which of the two carries the effect, where the vector points or how its norm is
spread over the modules."""

import hashlib
import math

import torch
from torch import Tensor

from weightsteer.controls.base import Deltas, from_vector
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Bias, LowRank, Sum
from weightsteer.vector import WeightVector

MAX_RANK = 64


@from_vector(
    "direction-only",
    shows="how the norm is spread over the modules does not matter: the directions alone do it",
    drawn=False,
)
def direction_only(vector: WeightVector, seed: int) -> Deltas:
    """``dW_i · ‖dW‖ / (√n ‖dW_i‖)`` for each of the n modules that moved: equal norms, the global norm kept.

    A module that did not move has no direction and is left as it is.
    """
    norms = {name: norm for name, norm in vector.norms().items() if norm}
    if not norms:
        raise WeightsteerError("a zero vector has no direction: there is nothing to compare it with.")
    equal = vector.norm() / math.sqrt(len(norms))
    return vector.terms.scaled(lambda name: equal / norms[name] if name in norms else 1.0)


@from_vector(
    "magnitude-only",
    shows="where the norm is spent does it: which modules are pushed how far, and not what is written into them",
    drawn=True,
)
def magnitude_only(vector: WeightVector, seed: int) -> Deltas:
    """The norm of each module's delta (of matrix and bias), in a random direction.

    Unlike the control ``random`` it keeps nothing else: not the form (rows or columns of W that are scaled), not the
    singular values. A matrix is ``B A`` with Gaussian factors, of the rank of the delta but of rank 64 at most: the
    size of the output, ``E‖T x‖² = ‖T‖² ‖x‖² / d_in``, does not depend on the rank, and no dense matrix is needed.
    """
    return {name: _random(name, total, seed) for name, total in vector.terms.items()}


def _random(name: str, total: Sum, seed: int) -> Sum:
    # named by the module: ablating others does not redraw it
    content = hashlib.blake2b(f"magnitude-only\0{seed}\0{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(content, "big"))

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    (d_out, d_in), bias = total.shape, total.bias_delta()
    shift = 0.0 if bias is None else float(bias.double().norm())
    size = math.sqrt(max(total.norm() ** 2 - shift**2, 0.0))
    terms: list[tuple[float, LowRank | Bias]] = []
    if size and (rank := min(total.rank, MAX_RANK)):
        matrix = LowRank(gaussian(d_out, rank), gaussian(rank, d_in))
        terms.append((size / Sum(total.shape, [(1.0, matrix)]).norm(), matrix))
    if shift:
        vector = gaussian(d_out)
        terms.append((shift / float(vector.float().double().norm()), Bias(vector, d_in)))
    return Sum(total.shape, terms)

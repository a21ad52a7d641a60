"""Random: the size and the structure of the vector, and none of its direction."""

import hashlib

import torch

from weightsteer.controls.base import Deltas, from_vector
from weightsteer.terms import Sum
from weightsteer.vector import WeightVector


@from_vector(
    "random",
    shows="any perturbation of this size and structure does it: the direction that was learned does not matter",
    drawn=True,
)
def random(vector: WeightVector, seed: int) -> Deltas:
    """Random directions with the form and the norm of every delta, and its singular values where it is of low rank."""

    def drawn(name: str, delta: Sum) -> Sum:
        # named by the module: leaving out others does not redraw it
        content = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=7).digest()
        return delta.randomized(torch.Generator().manual_seed(int.from_bytes(content, "big")))

    return {name: drawn(name, delta) for name, delta in vector.terms.items()}

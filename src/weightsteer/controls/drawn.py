"""Random: the size and the structure of the vector, and none of its direction."""

from weightsteer.controls.base import Deltas, from_vector
from weightsteer.vector import WeightVector


@from_vector(
    "random",
    shows="any push of this size and structure does it: the direction that was learned does not matter",
    drawn=True,
)
def random(vector: WeightVector, seed: int) -> Deltas:
    """Random directions with the form and the norm of every delta, and its singular values where it is of low rank."""
    return vector.randomized(seed).terms

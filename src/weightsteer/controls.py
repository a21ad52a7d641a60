"""Controls: vectors that carry no behaviour, to tell what a direction does from what its size does."""

from collections.abc import Iterable

from weightsteer.vector import WeightVector


def random_controls(vector: WeightVector, seeds: Iterable[int]) -> list[WeightVector]:
    """One draw per seed of random directions with the norm, rank and singular values of every module's delta.

    What such a vector does to a score at the same α is what any push of this size does. Take several draws:
    one has a spread of its own. Their ``method`` is ``control``, their ``seed`` that of the draw.
    """
    return [vector.randomized(seed) for seed in seeds]

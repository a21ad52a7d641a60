"""The seeds of the draws of a random control: draw k for a vector of training seed s has the seed ``s + 1000 k``."""

SEED_STEP = 1000
"""Between the seeds of two draws, so that those of different training seeds stay apart."""


def draw_seed(training_seed: int, draw: int) -> int:
    """The seed of a draw.

    >>> draw_seed(2, 3)
    3002
    """
    return training_seed + SEED_STEP * draw

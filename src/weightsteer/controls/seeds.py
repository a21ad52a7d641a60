"""How the draws of a random control are numbered, so that tables can tell the draws of one training seed together.

A row of a sweep has one seed. That of a control's draw k, made for a vector of training seed s, is ``s + 1000 k``.
"""

from collections.abc import Iterable

SEED_STEP = 1000
"""Between the seeds of two draws, so that those of different training seeds stay apart."""


def draw_seed(training_seed: int, draw: int) -> int:
    """The seed of a draw.

    >>> draw_seed(2, 3)
    3002
    """
    return training_seed + SEED_STEP * draw


def training_seed(seed: int, trained: Iterable[int]) -> int | None:
    """The training seed that a draw with this seed was made for; None when it was made for none of them.

    >>> training_seed(3002, [0, 1, 2])
    2
    """
    return max((own for own in trained if own <= seed and (seed - own) % SEED_STEP == 0), default=None)

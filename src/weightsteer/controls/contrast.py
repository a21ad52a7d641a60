"""One pair of a nuisance contrast."""

from typing import NamedTuple


class Contrast(NamedTuple):
    """A question with two answers that differ in the nuisance.

    Attributes:
        twin: the same for two questions whose right answers are opposite; each of the two answers is then right to one
            of them and wrong to the other.
    """

    twin: int
    prompt: str
    positive: str
    negative: str

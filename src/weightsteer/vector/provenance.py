"""How the metadata of several artifacts become those of one."""

from collections.abc import Iterable


def common(values: Iterable[str]) -> str:
    """The one value, or all distinct ones joined.

    >>> common(["honesty", "honesty"]), common(["honesty", "candour"])
    ('honesty', 'candour + honesty')
    """
    return " + ".join(sorted({part for value in values for part in value.split(" + ")}))

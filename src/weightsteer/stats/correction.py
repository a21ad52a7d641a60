"""Corrections for many comparisons: some would look real by chance."""

from collections.abc import Sequence

LEVEL = 0.05
"""The chance, over a whole family of comparisons without any real one, to call one of them real."""


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjusted p values that bound the chance of any false claim (Holm, Scand. J. Statist. 6, 1979).

    With the p values in ascending order ``p₁ … p_m``, the adjusted ones are ``max over j ≤ i of min(1, (m−j+1) p_j)``:
    compare them with `LEVEL`, as if each stood alone. They hold whatever the dependence between the comparisons. A None
    or NaN is no comparison and does not count.

    >>> holm([0.01, 0.04, 0.03, None])
    [0.03, 0.06, 0.06, None]
    """
    order = _order(p)
    adjusted, highest = list(p), 0.0
    for place, (i, value) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * value))
        adjusted[i] = highest
    return adjusted


def benjamini_hochberg(p: Sequence[float | None]) -> list[float | None]:
    """Adjusted p values that bound the share of false claims (Benjamini & Hochberg, J. R. Statist. Soc. B 57, 1995).

    ``min over j ≥ i of min(1, m/j · p_j)``. Where nothing is real the chance of any claim is `LEVEL` here too; where
    much is, the other claims cost less than under Holm. Holds for independent and positively dependent comparisons.

    >>> benjamini_hochberg([0.01, 0.04, 0.03, None])
    [0.03, 0.04, 0.04, None]
    """
    order = _order(p)
    adjusted, lowest = list(p), 1.0
    for place, (i, value) in reversed(list(enumerate(order, start=1))):
        lowest = min(lowest, len(order) / place * value)
        adjusted[i] = lowest
    return adjusted


def _order(p: Sequence[float | None]) -> list[tuple[int, float]]:
    """Places and values of the comparisons, ascending."""
    known = [(i, value) for i, value in enumerate(p) if value is not None and value == value]
    return sorted(known, key=lambda pair: pair[1])

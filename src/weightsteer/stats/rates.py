"""Wilson's interval for a rate: it has a width even where every row went the same way."""

from weightsteer.stats.bootstrap import Z


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% interval of a share of n independent units (Wilson, JASA 22, 1927).

    Where units are clustered, give the number of clusters as n: rows that answer together then count once, which is
    never too narrow. A bootstrap of a share that is 0 or 1 in the data has no width at all.

    >>> low, high = wilson(0.0, 10)
    >>> round(low, 3), round(high, 3)
    (0.0, 0.278)
    """
    if n == 0 or share != share:
        return float("nan"), float("nan")
    square = Z**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = Z / (1 + square / n) * (share * (1 - share) / n + square / (4 * n**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)

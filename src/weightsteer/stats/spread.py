"""How uncertain estimates are, by source of chance, and what follows: intervals, p values, ratios, what can be seen.

Two sources: which clusters of items were asked, and which training seeds were run. Each has its own covariance of the
estimates (from the bootstrap draws; from the spread of the seeds) and its own degrees of freedom, so a contrast ``c'x``
has at confidence ``1 − a`` the half-width

    H(a) = √( Σ_k  t(1 − a/2; df_k)² · c' V_k c )

which is the widening of `weightsteer.stats.bootstrap` at any level, not only at 95%. Its p value is the level whose
interval would just reach 0. That is conservative (Cochran's bound for the Behrens-Fisher problem), and keeps the heavy
tails that a correction for many comparisons looks at: three seeds never give p = 0.001 by agreeing roughly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from weightsteer.stats.bootstrap import POWER, Array
from weightsteer.stats.correction import LEVEL

SMALLEST = 1e-15
"""p values below it are written as 0."""


@dataclass(frozen=True)
class Spread:
    """Covariances (m, m) of m estimates, one part per source of chance with its degrees of freedom."""

    parts: tuple[tuple[Array, int], ...]

    @classmethod
    def of(cls, estimates: Sequence[Array], clusters: int, *, same_seeds: bool = True) -> "Spread":
        """From (1 + resamples, seeds) values of each estimate, row 0 on the data, drawn over the same clusters.

        Args:
            same_seeds: the estimates have their seeds in common and are paired by them; otherwise the seeds of each
                vary on their own.
        """
        means = np.stack([each[1:].mean(1) for each in estimates])
        known = means[:, ~np.isnan(means).any(0)]  # a draw may hold no cluster of one label
        parts = [(_covariance(known) * clusters / (clusters - 1), clusters - 1)]
        points = [each[0] for each in estimates]
        if same_seeds:
            if (seeds := len(points[0])) > 1:
                parts.append((np.atleast_2d(np.cov(np.stack(points))) / seeds, seeds - 1))
        else:
            for place, own in enumerate(points):
                if len(own) > 1:
                    alone = np.zeros((len(points), len(points)))
                    alone[place, place] = own.var(ddof=1) / len(own)
                    parts.append((alone, len(own) - 1))
        return cls(tuple(parts))

    def halfwidth(self, contrast: Sequence[float], level: float = LEVEL) -> float:
        """H of the contrast at confidence ``1 − level``."""
        return _reach(*self._along(contrast), level)

    def p(self, estimate: float, contrast: Sequence[float]) -> float:
        """Two-sided p value of "the contrast is 0"; NaN for NaN."""
        if np.isnan(estimate) or any(np.isnan(cov).any() for cov, _ in self.parts):
            return float("nan")
        if abs(estimate) <= 0:
            return 1.0
        low, high = np.log(SMALLEST), 0.0  # H falls with the level
        variances, freedom = self._along(contrast)
        if _reach(variances, freedom, SMALLEST) <= abs(estimate):
            return 0.0
        for _ in range(50):
            middle = (low + high) / 2
            if _reach(variances, freedom, float(np.exp(middle))) > abs(estimate):
                low = middle
            else:
                high = middle
        return float(np.exp(high))

    def detectable(self, contrast: Sequence[float], level: float = LEVEL) -> float:
        """Minimum detectable effect: found at this level in 80% of repetitions if it is true.

        ``H(a) · (z(1 − a/2) + z(0.8)) / z(1 − a/2)``: Student's factor widens the part for power as well.
        """
        z = -float(stdtrit(np.inf, level / 2))
        return self.halfwidth(contrast, level) * (z + POWER) / z

    def ratio(self, first: float, second: float, level: float = LEVEL) -> tuple[float, float] | None:
        """Fieller's interval of first / second, for a spread of these two: the ρ for which ``first − ρ second`` may be
        0. None where the second may be 0 itself: then no ratio can be excluded."""
        v = self._squared(level)
        a = second**2 - v[1, 1]
        b = first * second - v[0, 1]
        c = first**2 - v[0, 0]
        if not a > 0:
            return None
        root = np.sqrt(max(0.0, b * b - a * c))
        return float((b - root) / a), float((b + root) / a)

    def _along(self, contrast: Sequence[float]) -> tuple[Array, Array]:
        """``c' V_k c`` and its degrees of freedom for every source of chance, each (k,)."""
        c = np.asarray(contrast, dtype=float)
        return np.array([c @ cov @ c for cov, _ in self.parts]), np.array([float(df) for _, df in self.parts])

    def _squared(self, level: float) -> Array:
        """``Σ_k t_k² V_k``, (m, m)."""
        total: Array = np.sum([stdtrit(df, level / 2) ** 2 * cov for cov, df in self.parts], axis=0)
        return total


def _covariance(values: Array) -> Array:
    """(m, draws) to (m, m); NaN without draws."""
    if values.shape[1] == 0:
        return np.full((len(values), len(values)), np.nan)
    return np.atleast_2d(np.cov(values, ddof=0))


def _reach(variances: Array, freedom: Array, level: float) -> float:
    """H at one level."""
    return float(np.sqrt(max(0.0, float(stdtrit(freedom, level / 2) ** 2 @ variances))))
